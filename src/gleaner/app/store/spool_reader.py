"""A spooled upload as a file one can seek in, as zip needs it; the bytes stay encrypted on disk."""

from __future__ import annotations

import bisect
import io
import itertools
from typing import IO, Any

from gleaner.app.store.spool import SpoolFile


class _SpoolReader(io.RawIOBase):
    def __init__(self, file: SpoolFile) -> None:
        super().__init__()
        self._file = file
        self._ends = list(itertools.accumulate(file.lengths()))
        self._at = 0
        self._cached = -1, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if base + offset < 0:
            raise OSError(f"position {base + offset} is before the start")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        if self._at >= self._file.size or not view:
            return 0
        number = bisect.bisect_right(self._ends, self._at)
        if self._cached[0] != number:
            self._cached = number, self._file.frame(number)
        frame = self._cached[1]
        start = self._at - (self._ends[number] - len(frame))
        piece = frame[start : start + len(view)]
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def reader(file: SpoolFile) -> IO[bytes]:
    return io.BufferedReader(_SpoolReader(file), 1 << 16)
