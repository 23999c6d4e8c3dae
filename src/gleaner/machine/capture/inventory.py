"""What a full disk's thinning must know of a million files, in 25 bytes each: no names, which are found again to delete."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gleaner.machine.capture.at_rest import Keyring, is_encrypted, open_sealed
from gleaner.machine.capture.directory import SKIPPED_DIRECTORIES
from gleaner.machine.capture.errors import CaptureKeyMissing
from gleaner.machine.capture.listing import oldest_first
from gleaner.wire.capture_file import COMPLETE_SUFFIX, CaptureFileError, has_tags

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gleaner.machine.capture.thinning import Series

# Files of one collector have the same tags for long: where the first and the last of so many agree, those between are
# taken to. Before a file goes for being untagged, its own header is read.
TAG_STEP = 64
_HEADER_PEEK = 4096
_BLOCK_BYTES = 512


class Tags:
    """Reads whether files are tagged, each by its own header: tags may change with the configuration."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._known: dict[bytes, bool] = {}

    def of(self, path: str) -> bool:
        """What cannot be read counts as tagged."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                head = os.read(handle, _HEADER_PEEK)
            finally:
                os.close(handle)
            if is_encrypted(head):
                head = open_sealed(head, self._keyring).plain
            # Files of one collector begin alike: header length, header.
            start = head[: 1 + head[0]] if head and head[0] < 128 else head
            answer = self._known.get(start)
            if answer is None:
                answer = self._known[start] = has_tags(head)
            return answer
        except (OSError, CaptureFileError, CaptureKeyMissing):
            return True


@dataclass
class Inventory:
    """The complete files of one directory in the order of their names."""

    directory: str
    times_ns: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("q"))
    """Hashes of the names."""
    tagged: bytearray = field(default_factory=bytearray)

    def series(self) -> tuple[Series, NDArray[np.int64]]:
        """The files by time, and their keys. A file system's clock ticks every few ms: within one, the names tell."""
        import numpy as np

        from gleaner.machine.capture.thinning import Series

        times, sizes = np.frombuffer(self.times_ns, np.int64), np.frombuffer(self.sizes, np.int64)
        tagged, keys = np.frombuffer(self.tagged, np.bool_), np.frombuffer(self.keys, np.int64)
        if np.any(times[1:] < times[:-1]):
            order = np.argsort(times, kind="stable")
            times, sizes, tagged, keys = times[order], sizes[order], tagged[order], keys[order]
        return Series(self.directory, times, sizes, tagged), keys


def complete_names(folder: str, pause: Callable[[], None]) -> Iterator[str]:
    """Complete files, oldest first. Raises OSError."""

    def is_wanted(entry: os.DirEntry[str]) -> bool:
        pause()
        return entry.name.endswith(COMPLETE_SUFFIX) and entry.is_file(follow_symlinks=False)

    return oldest_first(folder, is_wanted)


def directories(root: Path) -> Iterator[str]:
    """All below `root`, relative to it, without the skipped ones."""
    stack = [""]
    while stack:
        directory = stack.pop()
        try:
            with os.scandir(f"{root}/{directory}") as entries:
                stack += (
                    f"{directory}/{entry.name}".lstrip("/")
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False) and entry.name not in SKIPPED_DIRECTORIES
                )
        except OSError:
            continue  # removed while we looked, or unreadable
        yield directory


def take_inventory(root: Path, directory: str, tags: Tags, pause: Callable[[], None], *, exact: bool) -> Inventory:
    """`exact`: each file's tags are read. `pause` is called with every file."""
    found = Inventory(directory)
    folder = f"{root}/{directory}".rstrip("/")
    step = 1 if exact else TAG_STEP
    block: list[str] = []
    try:
        for name in complete_names(folder, pause):
            pause()
            try:
                status = os.lstat(f"{folder}/{name}")
            except OSError:
                continue
            found.times_ns.append(status.st_mtime_ns)
            found.sizes.append(max(status.st_size, status.st_blocks * _BLOCK_BYTES))
            found.keys.append(hash(name))
            block.append(f"{folder}/{name}")
            if len(block) == step:
                found.tagged += _tags_of(block, tags)
                block.clear()
    except OSError:
        pass  # removed while we looked: what was found is gone as well, or goes later
    found.tagged += _tags_of(block, tags)
    return found


def _tags_of(block: list[str], tags: Tags) -> bytes:
    if not block:
        return b""
    ends = {tags.of(block[0]), tags.of(block[-1])}
    return bytes(len(block) * [ends.pop()] if len(ends) == 1 else [tags.of(path) for path in block])
