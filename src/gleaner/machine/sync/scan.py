"""Finds the files that are ready to be sent, lazily: a million of them need no list of a million."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from gleaner.machine.capture.directory import SKIPPED_DIRECTORIES
from gleaner.wire.capture_file import COMPLETE_SUFFIX, IN_PROGRESS_SUFFIX
from gleaner.wire.sync_frames import EntryKind

# Files come in the order of their names (= times) as far as one gulp of a directory goes.
GULP = 10_000
_SEQUENCES = "sequences"


@dataclass(frozen=True)
class Candidate:
    path: str
    kind: EntryKind
    size: int
    modified_ns: int
    changed_ns: int
    inode: int


def candidates(roots: Iterable[Path], now_ns: int, settle_ms: int) -> Iterator[Candidate]:
    """Complete captures, and other files that have rested. The first root is the capture directory."""
    for root in distinct_roots(roots):
        yield from _candidates_below(root, now_ns, settle_ms)


def distinct_roots(roots: Iterable[Path]) -> list[Path]:
    """Without the roots that lie inside another one: their files would be sent twice at once."""
    found: list[Path] = []
    for root in (Path(os.path.abspath(r)) for r in roots):  # noqa: PTH100 (resolve() would follow links)
        if any(root == other or other in root.parents for other in found):
            continue
        found = [other for other in found if root not in other.parents] + [root]
    return found


def _candidates_below(root: Path, now_ns: int, settle_ms: int) -> Iterator[Candidate]:
    stack = [str(root)]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                while gulp := sorted(islice(entries, GULP), key=lambda e: e.name):
                    for entry in gulp:
                        if entry.is_dir(follow_symlinks=False):
                            if entry.name not in SKIPPED_DIRECTORIES and entry.name != _SEQUENCES:
                                stack.append(entry.path)
                            continue
                        candidate = _judge(entry, now_ns, settle_ms)
                        if candidate is not None:
                            yield candidate
        except OSError:
            continue  # removed while we looked, or unreadable: left alone


def _judge(entry: os.DirEntry[str], now_ns: int, settle_ms: int) -> Candidate | None:
    if entry.name.endswith(IN_PROGRESS_SUFFIX) or not entry.is_file(follow_symlinks=False):
        return None
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    is_capture = entry.name.endswith(COMPLETE_SUFFIX)
    age_ns = now_ns - status.st_mtime_ns
    # A time in the future means that a clock was wrong: such a file would never rest, so it counts as rested.
    if not is_capture and (status.st_size == 0 or 0 <= age_ns < settle_ms * 1_000_000):
        return None
    kind = EntryKind.CAPTURE if is_capture else EntryKind.FILE
    return Candidate(
        entry.path, kind, status.st_size, status.st_mtime_ns, min(status.st_ctime_ns, status.st_mtime_ns), status.st_ino
    )


def path_tags(path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tags and dataset ids that the directories of an arbitrary file name: `tag=<t>`, `dataset=<id>`."""
    tags: list[str] = []
    datasets: list[str] = []
    for part in Path(path).parent.parts:
        key, equals, value = part.partition("=")
        if equals and value and key in ("tag", "dataset"):
            (tags if key == "tag" else datasets).append(value)
    return tuple(dict.fromkeys(tags)), tuple(dict.fromkeys(datasets))
