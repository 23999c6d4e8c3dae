"""Which captures somebody asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.offline.reading import Opened, Record, capture_paths, open_capture

_AGO = re.compile(r"^(\d+(?:\.\d+)?)([smhd])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Selection:
    """Empty is everything. `since_ns` belongs to it, `until_ns` does not; any of `tags` is enough."""

    component: str = ""
    method: str = ""
    since_ns: int | None = None
    until_ns: int | None = None
    tags: tuple[str, ...] = ()

    def wants(self, file: Opened) -> bool:
        if self.component not in ("", file.component) or self.method not in ("", file.method):
            return False
        # What cannot be read may be what was asked for: it is never left out silently.
        return bool(file.problem) or not self.tags or bool(set(self.tags) & set(file.tags))

    def wants_record(self, record: Record) -> bool:
        at = record.requested_ns
        return (self.since_ns is None or at >= self.since_ns) and (self.until_ns is None or at < self.until_ns)


def selected(root: Path, selection: Selection, keyring: Keyring) -> Iterator[Opened]:
    """One file in memory at a time."""
    for path in capture_paths(root):
        file = open_capture(path, keyring)
        if file is not None and selection.wants(file):
            yield file


def parse_time(text: str, now_ns: int) -> int:
    """ISO 8601 (local time unless it names a zone), or how long ago: 90s, 15m, 2h, 7d. Raises ValueError."""
    ago = _AGO.match(text)
    if ago:
        return now_ns - int(float(ago[1]) * _SECONDS[ago[2]] * 1e9)
    try:
        return (
            int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000
            + datetime.fromisoformat(text).microsecond * 1000
        )
    except ValueError:
        raise ValueError(f"{text!r} is no time: write 2026-05-01T12:00 or how long ago, like 2h") from None
