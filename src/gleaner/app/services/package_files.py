"""Package files at rest: encrypted in segments, so that any range can be read without the rest.

Layout: segments of 64 KiB of plaintext (the last one shorter), each AES-256-GCM with a 16-byte tag. Every file has its own
random key, so the nonce is the segment's number; the associated data says whether a segment is the last one, so that a
cut file is noticed. They lie in a folder of the app, or in the bucket where several app processes share one
(`store/object_store.py`): written once and whole. Only `PackageService` writes and deletes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gleaner.app.store.object_store import Objects

SEGMENT_BYTES = 64 * 1024
TAG_BYTES = 16
_SEALED_BYTES = SEGMENT_BYTES + TAG_BYTES
# A megabyte a read: a bucket is far away.
_SEGMENTS_A_READ = 16
_SUFFIX = ".package"


class DamagedFile(Exception):
    """A package file does not decrypt: it was cut, changed, or belongs to another key."""


@dataclass(frozen=True)
class WrittenFile:
    size_bytes: int
    crc32c: int


def name_of(package_id: str) -> str:
    return f"{package_id}{_SUFFIX}"


def write_file(objects: Objects, name: str, key: bytes, chunks: Iterable[bytes]) -> WrittenFile:
    """Durable when it returns. If `chunks` raises, nothing is left behind."""
    sealing = _Sealing(key, chunks)
    objects.put(name, sealing.segments(), durable=True)
    return WrittenFile(sealing.size, sealing.crc32c)


def read_range(
    objects: Objects, name: str, key: bytes, size: int, start: int = 0, end: int | None = None
) -> Iterator[bytes]:
    """Plaintext bytes `start` to `end` (exclusive; default: the end), about a megabyte at a time.

    Raises DamagedFile, FileNotFoundError, and OSError when it cannot be read now.
    """
    end = size if end is None else min(end, size)
    cipher, last = AESGCM(key), max(0, (size - 1) // SEGMENT_BYTES)
    if start >= end:
        return
    if (there := objects.size(name)) != size + (last + 1) * TAG_BYTES:
        raise DamagedFile(_words(name, min(there // _SEALED_BYTES, last)))
    final = (end - 1) // SEGMENT_BYTES
    for first in range(start // SEGMENT_BYTES, final + 1, _SEGMENTS_A_READ):
        offset = first * _SEALED_BYTES
        sealed = objects.read(name, offset, min(_SEGMENTS_A_READ * _SEALED_BYTES, there - offset))
        for number in range(first, min(first + _SEGMENTS_A_READ, final + 1)):
            at = (number - first) * _SEALED_BYTES
            plain = _open(cipher, number, sealed[at : at + _SEALED_BYTES], name, is_last=number == last)
            begin = number * SEGMENT_BYTES
            yield plain[max(0, start - begin) : end - begin]


def move_into(objects: Objects, folder: Path) -> Iterator[str]:
    """Puts the package files of a folder there, the same bytes, and removes them; their names as they are done.

    For who goes over to a bucket, or restores a backup beside one. What is there already is left as it is. Raises OSError.
    """
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        if not objects.exists(path.name):
            objects.put(path.name, path.read_bytes(), durable=True)
        path.unlink()
        yield path.name


class _Sealing:
    """Counts what it seals."""

    def __init__(self, key: bytes, chunks: Iterable[bytes]) -> None:
        self._cipher, self._chunks = AESGCM(key), chunks
        self.size = self.crc32c = 0

    def segments(self) -> Iterator[bytes]:
        pending, number = bytearray(), 0
        for chunk in self._chunks:
            self.crc32c = google_crc32c.extend(self.crc32c, bytes(chunk))
            self.size += len(chunk)
            pending += chunk
            while len(pending) > SEGMENT_BYTES:
                yield self._sealed(number, bytes(pending[:SEGMENT_BYTES]), is_last=False)
                del pending[:SEGMENT_BYTES]
                number += 1
        yield self._sealed(number, bytes(pending), is_last=True)

    def _sealed(self, number: int, plain: bytes, *, is_last: bool) -> bytes:
        return self._cipher.encrypt(number.to_bytes(12, "big"), plain, _place(is_last=is_last))


def _open(cipher: AESGCM, number: int, sealed: bytes, name: str, *, is_last: bool) -> bytes:
    try:
        return cipher.decrypt(number.to_bytes(12, "big"), sealed, _place(is_last=is_last))
    except InvalidTag as error:
        raise DamagedFile(_words(name, number)) from error


def _place(*, is_last: bool) -> bytes:
    return b"last" if is_last else b"more"


def _words(name: str, number: int) -> str:
    return f"packages/{name} is damaged at segment {number}: restore it from a backup, or train again"
