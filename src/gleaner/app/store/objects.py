"""Where pack bytes lie: objects by name, written once and whole (`object_store.py`); here in a local folder.

obstore's local store does not sync to disk, so for a folder this module does: write to `tmp/`, fsync the file, rename,
fsync the folder (and the day's folder when it is new). A crash leaves at most files in `tmp/`, removed at start.
"""

from __future__ import annotations

import errno
import os
import queue
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import obstore
from obstore.exceptions import GenericError
from obstore.store import LocalStore

from gleaner.app.store.direct_write import DirectWriter, open_direct

_WRITE_BYTES = 4 << 20
_DIRECT_FROM_BYTES = 512 << 10
# IOV_MAX is 1024.
_WRITE_PIECES = 512


class LocalObjects:
    is_shared = False

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._store = LocalStore(str(root))
        self._synced_folders: set[str] = set()
        self._idle_writers: queue.SimpleQueue[DirectWriter] = queue.SimpleQueue()

    @property
    def address(self) -> str:
        return str(self._root)

    def start(self) -> None:
        """Removes unfinished writes. At process start only."""
        folder = self._root / "tmp"
        if folder.is_dir():
            for file in folder.iterdir():
                file.unlink(missing_ok=True)

    def put(self, name: str, content: bytes | Iterator[bytes], *, durable: bool) -> None:
        """Writes an object that must not exist yet; with `durable` it survives a power cut once this returns."""
        temporary = f"{self._root}/tmp/{name.replace('/', '-')}"
        day = name.rpartition("/")[0]
        is_known = day in self._synced_folders
        if not is_known:
            for folder in (self._root / "tmp", self._root / day):
                folder.mkdir(exist_ok=True, mode=0o700)
        try:
            self._write(temporary, iter((content,) if isinstance(content, bytes) else content), durable=durable)
            os.rename(temporary, f"{self._root}/{name}")  # noqa: PTH104 - a path object takes as long as the rename
        except BaseException:
            Path(temporary).unlink(missing_ok=True)  # a full disk must not be filled by what did not fit
            raise
        if durable:
            _sync(f"{self._root}/{day}")
            if not is_known:
                # Also when somebody else has just made it: whether they have synced its name yet is not known here.
                _sync(str(self._root))
                self._synced_folders.add(day)

    def _write(self, path: str, content: Iterator[bytes], *, durable: bool) -> None:
        """Big objects that are synced at once go past the page cache, small ones into it: they may be looked at now."""
        begin, size = [], 0
        while size < _DIRECT_FROM_BYTES and (piece := next(content, None)) is not None:
            begin.append(piece)
            size += len(piece)
        is_direct = durable and size >= _DIRECT_FROM_BYTES
        # Not by obstore, whose local store copies the bytes into its own threads: 500 MB/s against 2 GB/s.
        handle = open_direct(path) if is_direct else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            if is_direct:
                with self._writer() as writer:
                    writer.write(handle, chain(begin, content))
            else:
                for pieces in _gathered(chain(begin, content)):
                    _write_all(handle, pieces)
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)

    @contextmanager
    def _writer(self) -> Iterator[DirectWriter]:
        """One of at most as many as threads have written at once."""
        try:
            writer = self._idle_writers.get_nowait()
        except queue.Empty:
            writer = DirectWriter()
        yield writer
        self._idle_writers.put(writer)

    def read(self, name: str, start: int, length: int) -> bytes:
        """Raises FileNotFoundError, and OSError when the object is shorter or cannot be read."""
        try:
            return bytes(obstore.get_range(self._store, name, start=start, length=length))
        except GenericError as err:
            why = str(err).partition("\n")[0]
            raise OSError(errno.EIO, f"bytes {start} to {start + length} of {name}: {why}") from None

    def size(self, name: str) -> int:
        return int(obstore.head(self._store, name)["size"])

    def exists(self, name: str) -> bool:
        try:
            return self.size(name) >= 0
        except FileNotFoundError:
            return False

    def delete(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        return (name for name, _ in self.sizes())

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Every object's name and size in bytes."""
        for page in obstore.list(self._store, chunk_size=1000):
            for entry in page:
                path = str(entry["path"])
                if not path.startswith("tmp/"):
                    yield path, int(entry["size"])


def _gathered(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Groups for one writev each: at most _WRITE_PIECES pieces, of _WRITE_BYTES or little more."""
    group: list[bytes] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += len(piece)
        if size >= _WRITE_BYTES or len(group) >= _WRITE_PIECES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _write_all(handle: int, pieces: list[bytes]) -> None:
    left = sum(len(piece) for piece in pieces) - os.writev(handle, pieces)
    if not left:
        return
    # Rare (a signal, a full disk about to say so): the rest in one go.
    rest = memoryview(b"".join(pieces))[-left:]
    while rest:
        rest = rest[os.write(handle, rest) :]


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
