"""Bytes of one upload, in memory or in the spool, read the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

# One AEAD segment of a pack; large payloads travel in multiples of it.
SEGMENT_BYTES = 64 * 1024
CHUNK_BYTES = 16 * SEGMENT_BYTES


class Payload(Protocol):
    @property
    def size(self) -> int: ...

    @property
    def in_memory(self) -> int:
        """Bytes of memory it holds while it waits."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """The bytes in order, in pieces of CHUNK_BYTES (the last one may be shorter)."""
        ...

    def head(self, length: int) -> bytes: ...

    def discard(self) -> None:
        """Frees what it holds; called once the bytes are in a pack or will not be needed."""
        ...

    def abandon(self) -> None:
        """Frees what it holds, except what the sender could continue; called when storing failed for now."""
        ...


class MemoryPayload:
    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    @property
    def in_memory(self) -> int:
        return len(self._data)

    def chunks(self) -> Iterator[bytes]:
        if len(self._data) <= CHUNK_BYTES:
            yield self._data
            return
        for start in range(0, len(self._data), CHUNK_BYTES):
            yield self._data[start : start + CHUNK_BYTES]

    def head(self, length: int) -> bytes:
        return self._data[:length]

    def discard(self) -> None:
        self._data = b""

    def abandon(self) -> None:
        self._data = b""


def sha256_of(payload: Payload) -> bytes:
    digest = hashlib.sha256()
    for chunk in payload.chunks():
        digest.update(chunk)
    return digest.digest()
