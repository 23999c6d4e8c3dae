"""What a ledger shows of its counts: the rows of docs/architecture.md."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gleaner.machine.capture.directory import Waiting
from gleaner.machine.capture.ledger import Counts

_FILES = "files:"


def files_row(root: str) -> str:
    """What stands for a collector's directory where files of a folder of `additional_sync_paths` are counted."""
    return f"{_FILES}{root}"


def collector_row(directory: str, stored: int, counts: Counts) -> dict[str, Any]:
    """One collector's line of the Ledger in docs/architecture.md."""
    is_files = directory.startswith(_FILES)
    parts = ["", directory.removeprefix(_FILES), "files"] if is_files else directory.split("/")
    dropped = sum(counts.dropped.values())
    waiting = max(0, stored - counts.synced.records - counts.set_aside.records)
    return {
        "component": parts[1] if len(parts) == 3 else directory,
        "method": parts[2] if len(parts) == 3 else "",
        "captured": counts.synced.records + waiting + dropped,
        "stored": stored,
        "waiting": waiting,
        "synced": counts.synced.records,
        "dropped": dict(sorted(counts.dropped.items())),
        "frequency_hz": 0.0,
        "last_error": "",
        "skipped": 0,
        "vetoed": 0,
        "late_ms": None,
    }


def stored_before(waiting: Mapping[str, Waiting], counts: Mapping[str, Counts]) -> dict[str, Waiting]:
    """Everything that was ever written to files, from what is left and what left."""
    stored: dict[str, Waiting] = {}
    for directory in waiting.keys() | counts.keys():
        here, gone = waiting.get(directory, Waiting()), counts.get(directory, Counts())
        stored[directory] = Waiting(
            here.records + gone.synced.records + gone.set_aside.records,
            here.files + gone.synced.files + gone.set_aside.files,
            here.size_bytes + gone.synced.size_bytes + gone.set_aside.size_bytes,
        )
    return stored


def iso(time_ns: int | None) -> str | None:
    """UTC ISO 8601 with microseconds and Z."""
    if time_ns is None:
        return None
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
