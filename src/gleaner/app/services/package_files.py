"""Package files at rest: encrypted in segments, so that any range can be read without the rest.

Layout: segments of 64 KiB of plaintext (the last one shorter), each AES-256-GCM with a 16-byte tag. Every file has its own
random key, so the nonce is the segment's number; the associated data says whether a segment is the last one, so that a
cut file is noticed. Written to a temporary name, synced and renamed: a crash leaves at most a `.tmp` file, which
`remove_leftovers` deletes at start. Only `PackageService` writes and deletes here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEGMENT_BYTES = 64 * 1024
TAG_BYTES = 16


class DamagedFile(Exception):
    """A package file does not decrypt: it was cut, changed, or belongs to another key."""


@dataclass(frozen=True)
class WrittenFile:
    size_bytes: int
    crc32c: int


def write_file(path: Path, key: bytes, chunks: Iterable[bytes]) -> WrittenFile:
    """Durable when it returns. If `chunks` raises, nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    cipher, crc32c, size, number = AESGCM(key), 0, 0, 0
    pending = bytearray()
    temporary = path.with_suffix(".tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for chunk in chunks:
                crc32c = google_crc32c.extend(crc32c, bytes(chunk))
                size += len(chunk)
                pending += chunk
                while len(pending) > SEGMENT_BYTES:
                    file.write(_seal(cipher, number, bytes(pending[:SEGMENT_BYTES]), is_last=False))
                    del pending[:SEGMENT_BYTES]
                    number += 1
            file.write(_seal(cipher, number, bytes(pending), is_last=True))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return WrittenFile(size, crc32c)


def read_range(path: Path, key: bytes, size: int, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Plaintext bytes `start` to `end` (exclusive; default: the end), a segment at a time. Raises DamagedFile."""
    end = size if end is None else min(end, size)
    cipher, last = AESGCM(key), max(0, (size - 1) // SEGMENT_BYTES)
    if start >= end:
        return
    with path.open("rb") as file:
        for number in range(start // SEGMENT_BYTES, (end - 1) // SEGMENT_BYTES + 1):
            file.seek(number * (SEGMENT_BYTES + TAG_BYTES))
            sealed = file.read(SEGMENT_BYTES + TAG_BYTES)
            first = number * SEGMENT_BYTES
            plain = _open(cipher, number, sealed, path, is_last=number == last)
            yield plain[max(0, start - first) : end - first]


def remove_leftovers(folder: Path) -> None:
    for path in folder.glob("**/*.tmp"):
        path.unlink()


def _seal(cipher: AESGCM, number: int, plain: bytes, *, is_last: bool) -> bytes:
    return cipher.encrypt(number.to_bytes(12, "big"), plain, b"last" if is_last else b"more")


def _open(cipher: AESGCM, number: int, sealed: bytes, path: Path, *, is_last: bool) -> bytes:
    try:
        return cipher.decrypt(number.to_bytes(12, "big"), sealed, b"last" if is_last else b"more")
    except InvalidTag as error:
        raise DamagedFile(f"{path} is damaged at segment {number}: restore it from a backup, or train again") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
