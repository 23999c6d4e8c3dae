"""The ledger of a capture directory as somebody else reads it: `gleaner machine status` without a machine, and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gleaner.machine.capture.directory import STATE, Waiting, count_records, is_binary_path, walk_files
from gleaner.machine.capture.ledger import (
    LEDGER_FILE,
    Counts,
    Leaving,
    LedgerStore,
    is_same_file,
)
from gleaner.machine.capture.ledger_rows import collector_row, iso, stored_before
from gleaner.wire.capture_file import COMPLETE_SUFFIX, IN_PROGRESS_SUFFIX

SNAPSHOT_ATTEMPTS = 5


def read_ledger(root: Path) -> dict[str, Any]:
    """The ledger of a capture directory from outside, unfinished files included. Changes nothing.

    Exact for a directory at rest; while a machine captures or syncs there it is a picture of about that moment.
    """
    for _ in range(SNAPSHOT_ATTEMPTS):
        counts, leaving = _durable_state(root)
        waiting, oldest_ns = _waiting_files(root, {file.path for file in leaving if is_same_file(file)})
        if _durable_state(root) == (counts, leaving):
            break
    stored = stored_before(waiting, counts)
    rows = [collector_row(d, stored[d].records, counts.get(d, Counts())) for d in sorted(stored)]
    return {
        "collectors": rows,
        "backlog_files": sum(w.files for w in waiting.values()),
        "backlog_bytes": sum(w.size_bytes for w in waiting.values()),
        "oldest_unsent": iso(oldest_ns),
        "sync_error": "",
    }


def _durable_state(root: Path) -> tuple[dict[str, Counts], list[Leaving]]:
    if not (root / STATE / LEDGER_FILE).exists():
        return {}, []
    store = LedgerStore(root, durable=False)
    try:
        return store.counts(), store.leaving()
    finally:
        store.close()


def _waiting_files(root: Path, counted: set[str]) -> tuple[dict[str, Waiting], int | None]:
    """What the files hold, without those that the ledger has counted already and a kill kept from leaving."""
    waiting: dict[str, Waiting] = {}
    oldest_ns: int | None = None
    for entry in walk_files(root):
        is_complete = entry.name.endswith(COMPLETE_SUFFIX)
        if entry.path in counted or not (is_complete or entry.name.endswith(IN_PROGRESS_SUFFIX)):
            continue
        path = Path(entry.path)
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        directory = path.parent.relative_to(root).as_posix()
        here = waiting.setdefault(directory, Waiting())
        here.records += 1 if is_complete and is_binary_path(directory) else count_records(path)
        here.files += 1
        here.size_bytes += status.st_size
        oldest_ns = status.st_mtime_ns if oldest_ns is None else min(oldest_ns, status.st_mtime_ns)
    return waiting, oldest_ns
