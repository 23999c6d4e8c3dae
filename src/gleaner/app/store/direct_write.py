"""Writes big files past the page cache: packs are written once, synced at once and read later, if ever.

Copying them into the cache cost more processor time than encrypting and indexing them (14–78 µs of 30 kB in a virtual
machine that gives free pages back to its host, against 5–8 µs this way), and pushed out what is read again and again.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

# What the kernel asks of position, length and memory: the device's block, at most a page everywhere.
_BLOCK = 4096
BUFFER_BYTES = 1 << 20
# Absent on macOS, where files then go through the cache.
_DIRECT = getattr(os, "O_DIRECT", 0)


class DirectWriter:
    """A buffer that the kernel takes as it is. One thread at a time."""

    def __init__(self) -> None:
        self._buffer = mmap.mmap(-1, BUFFER_BYTES)

    def write(self, handle: int, pieces: Iterable[bytes]) -> None:
        """Fills an empty file that `open_direct` has opened. Raises OSError."""
        size = filled = 0
        for piece in pieces:
            size += len(piece)
            view = memoryview(piece)
            while view:
                part = view[: BUFFER_BYTES - filled]
                self._buffer[filled : filled + len(part)] = part
                filled, view = filled + len(part), view[len(part) :]
                if filled == BUFFER_BYTES:
                    self._flush(handle, filled)
                    filled = 0
        if filled:
            padding = -filled % _BLOCK
            self._buffer[filled : filled + padding] = bytes(padding)
            self._flush(handle, filled + padding)
            os.ftruncate(handle, size)

    def close(self) -> None:
        self._buffer.close()

    def _flush(self, handle: int, length: int) -> None:
        with memoryview(self._buffer) as view:
            start = 0
            while start < length:
                try:
                    start += os.write(handle, view[start:length])
                except OSError as err:
                    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
                    if err.errno != errno.EINVAL or not flags & _DIRECT:
                        raise
                    # A file system with larger blocks, or one that says so only now: through the cache then.
                    fcntl.fcntl(handle, fcntl.F_SETFL, flags & ~_DIRECT)


def open_direct(path: str | Path) -> int:
    """A new, empty file; past the cache where its file system can. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return os.open(path, flags | _DIRECT, 0o600)
    except OSError as err:
        if err.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
        return os.open(path, flags, 0o600)
