"""The few calls that reach the disk for capture files, in one place that is passed in.

Tests pass a recorder (which replays every power cut) or a disk that fails; everything else uses `Files`. All raise OSError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600


class Files:
    """The real disk."""

    def create(self, path: str) -> int:
        """A new file to append to; FileExistsError when the name is taken."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)

    def reopen(self, path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def write(self, fd: int, buffers: Sequence[bytes]) -> None:
        """All of it. After an OSError any part may have been written."""
        expected = sum(map(len, buffers))
        written = os.writev(fd, buffers)
        while written < expected:  # a short write: a full disk, usually
            rest = memoryview(b"".join(buffers))[written:]
            written += os.write(fd, rest)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def rename(self, source: str, target: str) -> None:
        Path(source).rename(target)

    def unlink(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def is_at(self, fd: int, path: str) -> bool:
        """Whether the open file still has this name."""
        try:
            named = os.lstat(path)
        except FileNotFoundError:
            return False
        opened = os.fstat(fd)
        return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)

    def whereabouts(self, fd: int) -> str:
        """The name that somebody else gave to an open file; empty when it was removed."""
        if not os.fstat(fd).st_nlink:
            return ""
        try:
            return str(Path(f"/proc/self/fd/{fd}").readlink())
        except OSError:
            return ""

    def make_folder(self, path: str) -> list[str]:
        """Makes a folder with its parents; returns the folders that have a new entry, to be synced."""
        missing = []
        while not Path(path).is_dir():
            missing.append(path)
            path = str(Path(path).parent)
        changed = []
        for folder in reversed(missing):
            try:
                Path(folder).mkdir(mode=FOLDER_MODE)
            except FileExistsError:
                if not Path(folder).is_dir():
                    raise
            changed.append(str(Path(folder).parent))
        return changed

    def sync_folder(self, path: str) -> None:
        """Makes names durable. A folder that is gone has none."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def identity(self, path: str) -> tuple[int, int] | None:
        """Tells a folder from another one at the same path; None when there is none."""
        try:
            status = Path(path).stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino


class Root:
    """The capture folder itself: whether it is still the one that was opened."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self._files = files
        self._identity: tuple[int, int] | None = None
        self.created: set[str] | None = None
        """While the backlog is counted: files made in this run, without suffixes. Noted before they appear."""

    def note(self) -> None:
        self._identity = self._files.identity(str(self.path))

    def is_same(self) -> bool:
        return self._identity is None or self._files.identity(str(self.path)) == self._identity
