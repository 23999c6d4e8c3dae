"""Finds the files that are ready to be sent, lazily: a million of them need no list of a million.

A *shelf* is one collector's directory, or everything else of a root. Shelves know whether their files carry tags, so that
tagged data can overtake; a pass takes a batch from each in turn, so that no collector waits behind another one's backlog.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from gleaner.machine.capture.directory import SKIPPED_DIRECTORIES, file_stem
from gleaner.machine.capture.listing import TASTE, oldest_first
from gleaner.wire.capture_file import COMPLETE_SUFFIX, IN_PROGRESS_SUFFIX
from gleaner.wire.sync_frames import EntryKind

_SEQUENCES = "sequences"
# Collectors' directories lie at `<api>/<resource>/<method>`.
_COLLECTOR_DEPTH = 3
# Its name and its own "."; each directory in it adds one. File systems that do not count (btrfs) say 1.
_LINKS_OF_A_LEAF = 2


class Candidate(NamedTuple):
    """A file that may be sent, as the directory showed it."""

    path: str
    kind: EntryKind
    size: int
    modified_ns: int
    changed_ns: int
    inode: int


@dataclass(frozen=True)
class Look:
    """Which files to look for: those that rest at `now_ns`; with `since_ns`, only those that are newer."""

    now_ns: int
    settle_ms: int
    since_ns: int = 0

    @property
    def first_name(self) -> str:
        """Captures with smaller names are older: told without asking the disk about each of a million."""
        return file_stem(self.since_ns)[:19] if self.since_ns else ""


@dataclass
class Shelf:
    """`files` yields the candidates, oldest first. `path` is "" for other files."""

    path: str
    files: Iterator[Candidate]
    is_tagged: bool = field(default=False)


def shelves(roots: Iterable[Path], look: Look, is_tagged: Callable[[str], bool]) -> list[Shelf]:
    """The first root is the capture directory. `is_tagged` judges a collector's directory, or a root of other files."""
    found: list[Shelf] = []
    for number, root in enumerate(distinct_roots(roots)):
        if number:
            found.append(Shelf("", _below(str(root), look), is_tagged(str(root))))
            continue
        rest, collectors = _split(str(root))
        found += [Shelf(path, _below(path, look), is_tagged(path)) for path in collectors if _may_hold_new(path, look)]
        found.append(Shelf("", _in_directories(rest, look), is_tagged(str(root))))
        found.append(Shelf("", _ended_sequences(str(root), look)))
    return found


def _may_hold_new(path: str, look: Look) -> bool:
    """Not when a directory without others was last changed before: a backlog that waits costs no look at its names."""
    if not look.since_ns:
        return True
    try:
        status = os.stat(path)  # noqa: PTH116 (text in)
    except OSError:
        return False
    return status.st_mtime_ns >= look.since_ns or status.st_nlink != _LINKS_OF_A_LEAF


def _ended_sequences(root: str, look: Look) -> Iterator[Candidate]:
    """Whole as soon as they are there: they come by rename."""
    for candidate in _in_directory(f"{root}/{_SEQUENCES}", replace(look, settle_ms=0), []):
        if candidate.path.endswith(".seq"):
            yield candidate._replace(kind=EntryKind.SEQUENCE)


def candidates(roots: Iterable[Path], now_ns: int, settle_ms: int) -> Iterator[Candidate]:
    """Complete captures, and other files that have rested, one shelf after the other."""
    for shelf in shelves(roots, Look(now_ns, settle_ms), lambda _path: False):
        yield from shelf.files


def files_below(root: str) -> Iterator[Candidate]:
    """What is sent of a folder of other files, now or once it has rested."""
    return _below(root, Look(0, 0))


def distinct_roots(roots: Iterable[Path]) -> list[Path]:
    """Without the roots that lie inside another one: their files would be sent twice at once."""
    found: list[Path] = []
    for root in (Path(os.path.abspath(r)) for r in roots):  # noqa: PTH100 (resolve() would follow links)
        if any(root == other or other in root.parents for other in found):
            continue
        found = [other for other in found if root not in other.parents] + [root]
    return found


def _split(root: str) -> tuple[list[str], list[str]]:
    """(directories above the collectors, the collectors' directories, whatever lies below them included)."""
    above, level = [root], [root]
    for _ in range(_COLLECTOR_DEPTH - 1):
        level = [path for parent in level for path in _directories_in(parent)]
        above += level
    return above, [path for parent in level for path in _directories_in(parent)]


def _directories_in(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(e.path for e in entries if _is_searched(e))
    except OSError:
        return []


def _is_searched(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and entry.name not in SKIPPED_DIRECTORIES and entry.name != _SEQUENCES


def _in_directories(paths: list[str], look: Look) -> Iterator[Candidate]:
    for path in paths:
        yield from _in_directory(path, look, [])


def _below(path: str, look: Look) -> Iterator[Candidate]:
    stack = [path]
    while stack:
        yield from _in_directory(stack.pop(), look, stack)


def _in_directory(path: str, look: Look, found: list[str]) -> Iterator[Candidate]:
    """The candidates of one directory, oldest first; puts its directories into `found`."""
    first_name = look.first_name
    directories: set[str] = set()

    def is_wanted(entry: os.DirEntry[str]) -> bool:
        name = entry.name
        if entry.is_dir(follow_symlinks=False):
            if _is_searched(entry):
                directories.add(entry.path)
            return False
        # An old capture is passed over before the sort: a backlog costs a look for new files next to nothing.
        if name.endswith(COMPLETE_SUFFIX):
            return name >= first_name and entry.is_file(follow_symlinks=False)
        return not name.endswith(IN_PROGRESS_SUFFIX) and entry.is_file(follow_symlinks=False)

    try:
        for name in oldest_first(path, is_wanted, taste=TASTE):
            candidate = _judge(f"{path}/{name}", look)
            if candidate is not None:
                yield candidate
    except OSError:
        pass  # removed while we looked, or unreadable: left alone
    found += sorted(directories, reverse=True)


def _judge(path: str, look: Look) -> Candidate | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    is_capture = path.endswith(COMPLETE_SUFFIX)
    modified_ns, settle_ns = status.st_mtime_ns, look.settle_ms * 1_000_000
    age_ns = look.now_ns - modified_ns
    # A time in the future means that a clock was wrong: such a file would never rest, so it counts as rested.
    if not is_capture and (status.st_size == 0 or 0 <= age_ns < settle_ns or modified_ns < look.since_ns - settle_ns):
        return None
    kind = EntryKind.CAPTURE if is_capture else EntryKind.FILE
    return Candidate(path, kind, status.st_size, modified_ns, min(status.st_ctime_ns, modified_ns), status.st_ino)


def path_tags(path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tags and dataset ids that the directories of an arbitrary file name: `tag=<t>`, `dataset=<id>`."""
    tags: list[str] = []
    datasets: list[str] = []
    for part in Path(path).parent.parts:
        key, equals, value = part.partition("=")
        if equals and value and key in ("tag", "dataset"):
            (tags if key == "tag" else datasets).append(value)
    return tuple(dict.fromkeys(tags)), tuple(dict.fromkeys(datasets))
