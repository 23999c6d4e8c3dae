"""One collector's files: appends records, rotates, completes. Used by the writer thread only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gleaner.machine.capture.directory import Waiting, file_stem
from gleaner.wire.capture_file import COMPLETE_SUFFIX, IN_PROGRESS_SUFFIX, frame


@dataclass
class OpenFile:
    path: Path
    fd: int
    size: int
    records: int
    unsynced: bool = True


@dataclass(frozen=True)
class Finished:
    """A file that became complete, or could not (`error`): then it is still there as `.prog`, if at all."""

    path: Path
    records: int
    size_bytes: int
    error: OSError | None = None

    @property
    def is_lost(self) -> bool:
        """Somebody removed the file while it was written."""
        return isinstance(self.error, FileNotFoundError)


class Sink:
    """Invariant: between calls an open file ends with a whole record."""

    def __init__(self, root: Path, directory: str, rotate_bytes: int, wall_ns: Callable[[], int]) -> None:
        self.directory = directory
        self._folder = root / directory
        self._rotate_bytes = rotate_bytes
        self._wall_ns = wall_ns
        self._file: OpenFile | None = None
        self.written = Waiting()
        """Everything this sink has put into files."""

    def write_single(self, header: bytes, parts: Sequence[bytes]) -> OpenFile:
        """A file of its own for a binary record; complete it with `complete`. Raises OSError, and leaves no file then."""
        file = self._create(header)
        try:
            self._append(file, parts)
        except OSError:
            os.close(file.fd)
            file.path.unlink(missing_ok=True)
            raise
        return file

    def append(self, header: bytes, parts: Sequence[bytes]) -> Finished | None:
        """Adds a record to the current file; returns the previous file when this one had to be begun. Raises OSError."""
        finished = None
        if self._file is not None and self._file.size > self._rotate_bytes:
            finished = self.finish()
        if self._file is None:
            self._file = self._create(header)
        try:
            self._append(self._file, parts)
        except OSError:
            if self._file.records == 0:
                self._abandon_empty()
            raise
        return finished

    def sync(self) -> None:
        """Puts what was written on the disk."""
        if self._file is not None and self._file.unsynced:
            os.fdatasync(self._file.fd)
            self._file.unsynced = False

    def finish(self) -> Finished | None:
        """Completes the current file, if there is one; the sink is without a file afterwards, whatever happens."""
        file, self._file = self._file, None
        return None if file is None else complete(file)

    def _abandon_empty(self) -> None:
        if self._file is not None:
            os.close(self._file.fd)
            self._file.path.unlink(missing_ok=True)
            self._file = None

    def _create(self, header: bytes) -> OpenFile:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        time_ns = self._wall_ns()
        while True:
            stem = file_stem(time_ns)
            path = self._folder / (stem + IN_PROGRESS_SUFFIX)
            try:
                # A file of that time may be complete already: two captures in one microsecond, or a clock set back.
                if not os.path.lexists(self._folder / (stem + COMPLETE_SUFFIX)):
                    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
                    break
            except FileExistsError:
                pass
            time_ns += 1000
        try:
            _write_all(fd, [header])
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        return OpenFile(path, fd, len(header), 0)

    def _append(self, file: OpenFile, parts: Sequence[bytes]) -> None:
        framed = frame(parts)
        try:
            _write_all(file.fd, framed)
        except OSError:
            os.ftruncate(
                file.fd, file.size
            )  # half a record would only cost the reader a search, but is not ours to leave
            raise
        header_bytes = 0 if file.records else file.size
        size = sum(len(part) for part in framed)
        file.size += size
        file.records += 1
        self.written.records += 1
        self.written.files += header_bytes > 0
        self.written.size_bytes += header_bytes + size
        file.unsynced = True


def complete(file: OpenFile) -> Finished:
    """Data to the disk first, then the name that says so."""
    final = file.path.with_name(file.path.name.removesuffix(IN_PROGRESS_SUFFIX) + COMPLETE_SUFFIX)
    error: OSError | None = None
    try:
        os.fdatasync(file.fd)
        file.path.rename(final)
    except OSError as problem:
        error = problem
    finally:
        os.close(file.fd)
    return Finished(final, file.records, file.size, error)


def _write_all(fd: int, buffers: Sequence[bytes]) -> None:
    expected = sum(len(b) for b in buffers)
    written = os.writev(fd, buffers)
    while written < expected:  # a short write: a full disk, usually
        rest = memoryview(b"".join(buffers))[written:]
        written += os.write(fd, rest)
