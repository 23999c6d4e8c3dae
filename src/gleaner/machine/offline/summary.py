"""What `gleaner data ls` says of each collector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.offline.reading import Opened, iso_ns
from gleaner.machine.offline.selection import Selection, selected


@dataclass
class Summary:
    api: str
    component: str
    method: str
    files: int = 0
    unfinished: int = 0
    records: int = 0
    size_bytes: int = 0
    first: str | None = None
    last: str | None = None
    damaged: int = 0
    encrypted: int = 0
    tags: list[str] = field(default_factory=list)

    def add(self, file: Opened, selection: Selection) -> None:
        times = [record.requested_ns for record in file.records() if selection.wants_record(record)]
        if not times and file.record_count:
            return
        self.files += 1
        self.unfinished += not file.is_complete
        self.records += len(times)
        self.size_bytes += file.size_bytes
        self.damaged += file.is_damaged
        self.encrypted += file.is_encrypted
        self.tags += [tag for tag in file.tags if tag not in self.tags]
        if times:
            first, last = iso_ns(min(times)), iso_ns(max(times))
            self.first = min(self.first or first, first)
            self.last = max(self.last or last, last)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def summarize(
    root: Path, selection: Selection, keyring: Keyring, seen: Callable[[], None] = lambda: None
) -> list[Summary]:
    """By component and method; `seen` is called for every file."""
    found: dict[tuple[str, str, str], Summary] = {}
    for file in selected(root, selection, keyring):
        key = (file.component, file.method, file.api)
        found.setdefault(key, Summary(file.api, file.component, file.method)).add(file, selection)
        seen()
    return [found[key] for key in sorted(found) if found[key].files]
