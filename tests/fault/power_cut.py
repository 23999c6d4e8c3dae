"""A disk that remembers every operation, and what a power cut at any moment may leave of it.

The model is POSIX at its least helpful. After a cut, of each file: what was written before its last completed fsync began
is there; of what came later each page is there, or is zero, or is missing with the end of the file. Of each name: what was
done before the last completed fsync of its folder began is there; of what came later any prefix is (a rename is atomic). A
folder itself is such a name in its parent. Files and names are independent of each other: no order is kept.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gleaner.machine.capture.files import Files

PAGE = 4096


@dataclass(frozen=True)
class Write:
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    size: int


@dataclass
class Inode:
    """Everything that happened to one file or folder, by the number of the operation."""

    changes: list[tuple[int, Write | Truncate]] = field(default_factory=list)
    synced: list[tuple[int, int]] = field(default_factory=list)
    """(completed at, covers operations before)."""
    names: list[tuple[int, str]] = field(default_factory=list)
    """The name from that operation on; empty when it was removed."""
    is_folder: bool = False
    size: int = 0


class Forgetful(random.Random):
    """Chance at its meanest to names: new ones are there and so are the ones that they replaced; all data is."""

    def choice(self, seq: Sequence[Any]) -> Any:
        last = seq[-1]
        return seq[0] if isinstance(last, tuple) and last[0] == "" else last

    def random(self) -> float:
        return 0.5


class RecordingFiles(Files):
    """The real disk, with a log. `failing_syncs`: numbers of the fsyncs of files that give EIO."""

    def __init__(self, root: Path, failing_syncs: Sequence[int] = ()) -> None:
        self.root = root
        self.inodes: list[Inode] = []
        self.folder_syncs: dict[str, list[tuple[int, int]]] = {}
        self.observe: Callable[[], dict[str, int]] = dict
        self.observed: list[dict[str, int]] = []
        """What `observe` said before each operation."""
        self._failing = set(failing_syncs)
        self._lock = threading.RLock()
        self._open: dict[int, Inode] = {}
        self._named: dict[str, Inode] = {}
        self._syncs = 0

    @property
    def operations(self) -> int:
        return len(self.observed)

    def _next(self) -> int:
        self.observed.append(self.observe())
        return len(self.observed) - 1

    def note(self) -> int:
        """An operation that does nothing: a moment to cut at."""
        with self._lock:
            return self._next()

    # --- Files -------------------------------------------------------------------------------------------------------

    def create(self, path: str) -> int:
        with self._lock:
            fd = super().create(path)
            inode = Inode(names=[(self._next(), path)])
            self.inodes.append(inode)
            self._open[fd] = self._named[path] = inode
            return fd

    def reopen(self, path: str) -> int:
        with self._lock:
            fd = super().reopen(path)
            self._open[fd] = self._named[path]
            return fd

    def write(self, fd: int, buffers: Sequence[bytes]) -> None:
        with self._lock:
            super().write(fd, buffers)
            inode, data = self._open[fd], b"".join(buffers)
            inode.changes.append((self._next(), Write(inode.size, data)))
            inode.size += len(data)

    def truncate(self, fd: int, size: int) -> None:
        with self._lock:
            super().truncate(fd, size)
            inode = self._open[fd]
            inode.changes.append((self._next(), Truncate(size)))
            inode.size = size

    def sync(self, fd: int) -> None:
        with self._lock:
            inode, begun, number = self._open[fd], self._next(), self._syncs
            self._syncs += 1
        if number in self._failing:
            raise OSError(errno.EIO, "the disk failed")
        with self._lock:
            inode.synced.append((self._next(), begun))

    def close(self, fd: int) -> None:
        with self._lock:
            super().close(fd)
            del self._open[fd]

    def rename(self, source: str, target: str) -> None:
        with self._lock:
            super().rename(source, target)
            number, inode = self._next(), self._named.pop(source)
            replaced = self._named.get(target)
            if replaced is not None:
                replaced.names.append((number, ""))
            inode.names.append((number, target))
            self._named[target] = inode

    def unlink(self, path: str) -> None:
        with self._lock:
            super().unlink(path)
            inode = self._named.pop(path, None)
            if inode is not None:
                inode.names.append((self._next(), ""))

    def make_folder(self, path: str) -> list[str]:
        with self._lock:
            before = {folder for folder in self.root.rglob("*") if folder.is_dir()}
            changed = super().make_folder(path)
            made = sorted({folder for folder in self.root.rglob("*") if folder.is_dir()} - before)
            for folder in made:
                self.inodes.append(Inode(names=[(self._next(), str(folder))], is_folder=True))
            return changed

    def sync_folder(self, path: str) -> None:
        with self._lock:
            begun = self._next()
        with self._lock:
            self.folder_syncs.setdefault(path, []).append((self._next(), begun))

    # --- after the cut -----------------------------------------------------------------------------------------------

    def leave(self, cut: int, target: Path, chance: random.Random | None) -> None:
        """Makes in `target` what a cut after `cut` operations may leave; without `chance`, only what is sure."""
        made: dict[str, tuple[int, Inode]] = {}
        for inode in self.inodes:
            name, since = self._name_after(inode, cut, chance)
            if name and (name not in made or made[name][0] < since):
                made[name] = (since, inode)
        for name in sorted(made):
            inode, path = made[name][1], target / Path(name).relative_to(self.root)
            if not path.parent.is_dir():
                continue  # its folder's name was not durable
            if inode.is_folder:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(_content_after(inode, cut, chance))

    def _name_after(self, inode: Inode, cut: int, chance: random.Random | None) -> tuple[str, int]:
        states: list[tuple[str, int]] = [("", -1)]
        for number, name in inode.names:
            if number >= cut:
                break
            folder = os.path.dirname(name or states[-1][0])  # noqa: PTH120
            is_durable = any(done < cut and covers > number for done, covers in self.folder_syncs.get(folder, ()))
            states = [(name, number)] if is_durable else [*states, (name, number)]
        return chance.choice(states) if chance is not None else states[0]


def _content_after(inode: Inode, cut: int, chance: random.Random | None) -> bytes:
    covered = max((covers for done, covers in inode.synced if done < cut), default=0)
    content = bytearray()
    # All of the later writes, some pages of them, or none: the first and the last are likelier than chance would have it.
    share = chance.choice((0.0, 0.2, 0.5, 0.9, 1.0)) if chance is not None else 0.0
    for number, change in inode.changes:
        if number >= cut:
            break
        is_sure = number < covered
        if isinstance(change, Truncate):
            if is_sure or (chance is not None and chance.random() < share):
                del content[change.size :]
            continue
        if is_sure:
            _put(content, change.offset, change.data)
        elif chance is not None:
            _put_some(content, change, share, chance)
    return bytes(content)


def _put_some(content: bytearray, change: Write, share: float, chance: random.Random) -> None:
    data, offset = change.data, change.offset
    if chance.random() < 0.2:
        data = data[: chance.randrange(len(data) + 1)]  # torn
    at = 0
    while at < len(data):
        end = min(len(data), (offset + at) // PAGE * PAGE + PAGE - offset)
        if chance.random() < share:
            _put(content, offset + at, data[at:end])
        elif chance.random() < 0.3:
            _put(content, offset + at, bytes(end - at))  # the size is there, the data is not
        at = end


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data
