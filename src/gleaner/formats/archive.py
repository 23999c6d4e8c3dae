"""Entries as one stream: tar, which goes on at any byte without reading what comes before, or zip for people.

Both are the same bytes for the same entries, so that a cut download goes on where it stopped.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from enum import StrEnum

from gleaner.formats.values import Entry

_BLOCK = 512
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
#: From this size on an entry gets zip's 64-bit fields; just below the 4 GiB where it must.
_ZIP64_BYTES = 0xFFFF_0000


class Archive(StrEnum):
    TAR = "tar"
    ZIP = "zip"


class EntryChanged(Exception):
    """An entry gave another number of bytes than it said: the archive is cut, because its header is out already."""


def packed(entries: Iterable[Entry], archive: Archive, start: int = 0) -> Iterator[bytes]:
    """The archive's bytes from `start` on. Raises EntryChanged."""
    if archive is Archive.TAR:
        yield from _tar(entries, start)
        return
    at = 0
    for chunk in _zip(entries):
        at += len(chunk)
        if at > start:
            yield chunk[max(len(chunk) - (at - start), 0) :]


def _tar(entries: Iterable[Entry], start: int) -> Iterator[bytes]:
    at = 0
    for entry in entries:
        header = _tar_header(entry)
        if at + len(header) > start:
            yield header[max(start - at, 0) :]
        at += len(header)
        padding = -entry.size % _BLOCK
        if at + entry.size + padding > start:
            yield from _after(_exactly(entry), start - at)
            yield bytes(padding)[max(start - at - entry.size, 0) :]
        at += entry.size + padding
    end = bytes(2 * _BLOCK)
    yield end[max(start - at, 0) :]


def _tar_header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.size, info.mode = entry.size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _after(chunks: Iterator[bytes], skip: int) -> Iterator[bytes]:
    for chunk in chunks:
        if skip < len(chunk):
            yield chunk[max(skip, 0) :]
        skip -= len(chunk)


def _exactly(entry: Entry) -> Iterator[bytes]:
    given = 0
    for chunk in entry.open():
        given += len(chunk)
        if given > entry.size:
            break
        yield chunk
    if given != entry.size:
        raise EntryChanged(f"{entry.path} has {given} bytes, expected {entry.size}")


class _Drain(io.RawIOBase):
    """What the zip has written since it was last asked."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        content = bytes(memoryview(data))  # type: ignore[arg-type]
        self._chunks.append(content)
        return len(content)

    def taken(self) -> Iterator[bytes]:
        chunks, self._chunks = self._chunks, []
        yield from (chunk for chunk in chunks if chunk)


def _zip(entries: Iterable[Entry]) -> Iterator[bytes]:
    drain = _Drain()
    with zipfile.ZipFile(drain, "w", zipfile.ZIP_STORED) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.path, _ZIP_TIME)
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=entry.size >= _ZIP64_BYTES) as member:
                for chunk in _exactly(entry):
                    member.write(chunk)
                    yield from drain.taken()
            yield from drain.taken()
    yield from drain.taken()
