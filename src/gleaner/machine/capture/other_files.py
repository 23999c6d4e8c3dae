"""The ledger's rows of `additional_sync_paths`: found = synced + waiting + dropped, in files.

Other programs write and may remove there, so what waits is what lies there: it is looked at every few seconds. What was
synced or set aside is counted by sync in the ledger's database, under `files_row`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gleaner.machine.capture.directory import Waiting
from gleaner.machine.capture.ledger import Counts, LedgerStore, is_same_file
from gleaner.machine.capture.ledger_rows import files_row
from gleaner.machine.sync.scan import distinct_roots, files_below

# Sync may send while the folders are walked: then the picture is not of one moment, and is taken again.
LOOK_ATTEMPTS = 4


@dataclass(frozen=True)
class OtherFiles:
    """Of each folder: everything that was found in it so far, what has left included; and why it cannot be read."""

    found: Mapping[str, Waiting] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    def stored(self, counts: Mapping[str, Counts]) -> dict[str, Waiting]:
        """By row, with what has left since the look."""
        return {row: _at_least(found, counts.get(row, Counts())) for row, found in self.found.items()}


def other_roots(capture_dir: Path, paths: Sequence[str]) -> list[str]:
    """The folders that are looked through beside the capture directory; those inside it or another one are part of that."""
    return [str(root) for root in distinct_roots([capture_dir, *(Path(p).expanduser() for p in paths)])[1:]]


def look(store: LedgerStore, roots: Sequence[str]) -> OtherFiles:
    """Blocking. Raises sqlite3.Error."""
    before = _left(store, roots)
    for _ in range(LOOK_ATTEMPTS):
        lying = {root: _lying(root, before[1]) for root in roots}
        after = _left(store, roots)
        if after == before:
            break
        before = after
    found = {files_row(root): _sum(lying[root], before[0][root]) for root in roots}
    return OtherFiles(found, {files_row(root): why for root in roots if (why := _unreadable(root))})


def _left(store: LedgerStore, roots: Sequence[str]) -> tuple[dict[str, Waiting], frozenset[str]]:
    """(what has left each folder, files that are counted as such and still lie there)."""
    counts = store.counts()
    left = {root: _gone(counts.get(files_row(root), Counts())) for root in roots}
    below = tuple(f"{root}/" for root in roots)
    return left, frozenset(file.path for file in store.leaving() if file.path.startswith(below) and is_same_file(file))


def _lying(root: str, leaving: frozenset[str]) -> Waiting:
    lying = Waiting()
    for file in files_below(root):
        if file.path not in leaving:
            lying.records, lying.files, lying.size_bytes = (
                lying.records + 1,
                lying.files + 1,
                lying.size_bytes + file.size,
            )
    return lying


def _unreadable(root: str) -> str:
    try:
        os.scandir(root).close()
    except FileNotFoundError:
        return ""  # whoever writes into it makes it
    except OSError as error:
        return (
            f"the folder cannot be read ({error.strerror}): give the machine's user the right to read and delete in it"
        )
    return ""


def _gone(counts: Counts) -> Waiting:
    return _sum(counts.synced, counts.set_aside)


def _sum(left: Waiting, right: Waiting) -> Waiting:
    return Waiting(left.records + right.records, left.files + right.files, left.size_bytes + right.size_bytes)


def _at_least(found: Waiting, counts: Counts) -> Waiting:
    gone = _gone(counts)
    return Waiting(
        max(found.records, gone.records), max(found.files, gone.files), max(found.size_bytes, gone.size_bytes)
    )
