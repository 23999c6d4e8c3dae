"""Memory and open files of the processes over time, and whether they grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import psutil
from fault_loop import Loop

# Caches fill at first: growth is judged from the second fifth of the time on.
WARM_UP = 0.2
MOST_GROWTH_MB = 8.0
MOST_GROWTH = 0.08
MOST_MORE_FILES = 4


@dataclass(frozen=True)
class Sample:
    rss_mb: float
    open_files: int


@dataclass
class Track:
    """One process's samples."""

    name: str
    samples: list[Sample] = field(default_factory=list)

    def growth(self) -> tuple[float, float, int]:
        """(median RSS MB of the first window after the warm-up, growth until the last window, growth of open files)."""
        warm = self.samples[int(len(self.samples) * WARM_UP) :]
        window = max(1, len(warm) // 5)
        first, last = warm[:window], warm[-window:]
        return (
            median(s.rss_mb for s in first),
            median(s.rss_mb for s in last) - median(s.rss_mb for s in first),
            round(median(s.open_files for s in last) - median(s.open_files for s in first)),
        )

    def is_flat(self) -> bool:
        rss_mb, growth_mb, more_files = self.growth()
        return growth_mb <= max(MOST_GROWTH_MB, rss_mb * MOST_GROWTH) and more_files <= MOST_MORE_FILES

    def __str__(self) -> str:
        rss_mb, growth_mb, more_files = self.growth()
        return (
            f"{self.name} {rss_mb:.0f} MB {growth_mb:+.1f} MB, open files {self.samples[-1].open_files} {more_files:+d}"
        )


def sample(loop: Loop, tracks: Sequence[Track]) -> None:
    """Adds one sample to each of machine, sync and app."""
    assert loop.machine.process is not None
    assert loop.app.process is not None
    pids = {"machine": loop.machine.process.pid, "sync": loop.machine.sync_pid, "app": loop.app.process.pid}
    for track in tracks:
        pid = pids[track.name]
        assert pid is not None, f"{track.name} does not run"
        process = psutil.Process(pid)
        track.samples.append(Sample(process.memory_info().rss / 1e6, process.num_fds()))
