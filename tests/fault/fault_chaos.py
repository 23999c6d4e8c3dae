"""Kills and cuts at random instants, and a witness who has seen what the machine had when nobody asked it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fault_loop import Loop, Part

from cutting_proxy import Cut, CuttingProxy
from gleaner.machine.capture.directory import walk_files
from gleaner.wire.capture_file import COMPLETE_SUFFIX, CaptureFileError, read_capture

# Sync is what the kills are for, and cheap to kill: it is back in half a second.
VICTIMS = ("sync",) * 14 + ("machine",) * 3 + ("app",) * 3
CUTS = tuple(cut for cut in Cut if cut is not Cut.NONE)
PATIENCE_S = 30.0


class Witness:
    """Reads every complete file that it gets to see before sync has removed it: the times of what must arrive."""

    def __init__(self, root: Path) -> None:
        self.pictures: set[int] = set()
        """µs since the epoch."""
        self.readings: set[int] = set()
        self._root = root
        self._seen: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness")

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            for entry in walk_files(self._root):
                if entry.name.endswith(COMPLETE_SUFFIX) and entry.path not in self._seen:
                    self._read(Path(entry.path))

    def _read(self, path: Path) -> None:
        try:
            content = read_capture(path.read_bytes())
        except (OSError, CaptureFileError):
            return  # already sent; a complete file that cannot be read would be in the ledger
        self._seen.add(str(path))
        for record in content.records:
            requested = record.metadata.time_requested
            times = self.pictures if record.WhichOneof("data") == "binary" else self.readings
            times.add(requested.seconds * 1_000_000 + requested.nanos // 1000)


def unmatched(wanted: set[int], found: Sequence[int]) -> list[int]:
    """Times of `wanted` that are not in `found`; a microsecond's rounding is forgiven."""
    have = set(found)
    return sorted(t for t in wanted if not have & {t - 1, t, t + 1})


def doubled(found: Sequence[int]) -> int:
    return len(found) - len(set(found))


@dataclass
class Chaos:
    """Kills until `kills` processes have died by it; another thread cuts the proxies meanwhile."""

    loop: Loop
    proxies: Sequence[CuttingProxy]
    chance: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)

    def run(self, kills: int) -> None:
        ended = threading.Event()
        cutter = threading.Thread(target=self._cut_until, args=(ended, random.Random(self.chance.random())))
        cutter.start()
        try:
            while self.killed.total() < kills:
                time.sleep(self.chance.uniform(0.05, 0.7))
                self._kill(self.chance.choice(VICTIMS))
        finally:
            ended.set()
            cutter.join()

    def _kill(self, victim: str) -> None:
        if victim == "sync":
            os.kill(self._sync_pid(), signal.SIGKILL)
        else:
            part: Part = getattr(self.loop, victim)
            part.kill()
            time.sleep(self.chance.uniform(0.0, 0.4))
            part.start()
        self.killed[victim] += 1

    def _sync_pid(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while (pid := self.loop.machine.sync_pid) is None:
            said = self.loop.machine.log.read_text()[-3000:]
            assert time.monotonic() < deadline, f"no sync process, but {self.loop.machine.children()}: {said}"
            time.sleep(0.05)
        return pid

    def _cut_until(self, ended: threading.Event, chance: random.Random) -> None:
        while not ended.wait(chance.uniform(0.5, 2.5)):
            cut = chance.choice(CUTS)
            for proxy in self.proxies:
                proxy.set(cut)
            self.cuts[cut] += 1
            ended.wait(chance.uniform(0.05, 1.0))
            for proxy in self.proxies:
                proxy.set(Cut.NONE)
