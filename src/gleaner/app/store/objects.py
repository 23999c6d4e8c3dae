"""Where pack bytes lie: objects by name, written once and whole. Local folder now; obstore's S3, GCS and Azure stores fit behind it.

obstore's local store does not sync to disk, so for a folder this module does: write to `tmp/`, fsync the file, rename,
fsync the folder (and the day's folder when it is new). A crash leaves at most files in `tmp/`, removed at start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import obstore
from obstore.store import LocalStore


class LocalObjects:
    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._store = LocalStore(str(root))

    def start(self) -> None:
        """Removes unfinished writes. At process start only."""
        folder = self._root / "tmp"
        if folder.is_dir():
            for file in folder.iterdir():
                file.unlink(missing_ok=True)

    def put(self, name: str, content: bytes | Iterator[bytes], *, durable: bool) -> None:
        """Writes an object that must not exist yet; with `durable` it survives a power cut once this returns."""
        temporary = f"tmp/{name.replace('/', '-')}"
        obstore.put(self._store, temporary, content)
        if durable:
            _sync(self._root / temporary)
        target = self._root / name
        is_new_folder = not target.parent.is_dir()
        target.parent.mkdir(exist_ok=True, mode=0o700)
        (self._root / temporary).rename(target)  # obstore's goes through its thread pool: 0.5 ms against 20 µs
        if durable:
            _sync(target.parent)
            if is_new_folder:
                _sync(self._root)

    def read(self, name: str, start: int, length: int) -> bytes:
        """Raises FileNotFoundError."""
        return bytes(obstore.get_range(self._store, name, start=start, length=length))

    def size(self, name: str) -> int:
        return int(obstore.head(self._store, name)["size"])

    def delete(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        for page in obstore.list(self._store, chunk_size=1000):
            for entry in page:
                path = str(entry["path"])
                if not path.startswith("tmp/"):
                    yield path


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
