"""How records are laid out in a pack. Pure: bytes in, bytes out.

    pack    = "GLEANPK1" | u16 length | wrapped data key | record*
    record  = "REC1" | u32 sealed header length | u64 payload size | sealed header | sealed segment*

The header is JSON: what the record is, its idempotency key, and everything the index needs (rebuild reads nothing else).
Payloads are cut into segments of 64 KiB, each sealed alone, so that any range is read by opening only its segments.
AES-256-GCM under the pack's own random key. The nonce is (record's offset in the pack, segment number), unique because a
pack is written once; offset and payload size are also authenticated, so that records cannot be moved, cut or swapped.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.json import Encoder

from gleaner.app.store.payload import CHUNK_BYTES, SEGMENT_BYTES, Payload

PACK_MAGIC = b"GLEANPK1"
_RECORD_MAGIC = b"REC1"
_PACK_START = struct.Struct("<8sH")
_RECORD_START = struct.Struct("<4sIQ")
_NONCE = struct.Struct(">QI")
_BOUND = struct.Struct(">QQ")
_HEADER_SEGMENT = 0xFFFFFFFF
_HEADERS = Encoder()  # a seventh of the time of json.dumps
TAG_BYTES = 16
_MAX_HEADER = 64 << 20  # a .capture's annotations and file name are small; this only stops nonsense lengths


@dataclass(frozen=True)
class Position:
    """Where a record lies in its pack, in bytes from the pack's start."""

    record_offset: int
    body_offset: int
    size: int


@dataclass(frozen=True)
class FoundRecord:
    header: dict[str, Any]
    position: Position


def pack_start(wrapped_key: bytes) -> bytes:
    return _PACK_START.pack(PACK_MAGIC, len(wrapped_key)) + wrapped_key


def read_pack_start(data: bytes) -> tuple[bytes, int] | None:
    """The wrapped key and where records begin; None if this is no (whole) pack start."""
    if len(data) < _PACK_START.size:
        return None
    magic, length = _PACK_START.unpack_from(data)
    end = _PACK_START.size + length
    if magic != PACK_MAGIC or len(data) < end:
        return None
    return data[_PACK_START.size : end], end


def sealed_size(size: int) -> int:
    """Bytes in the pack of a payload of `size` bytes."""
    return size + segment_count(size) * TAG_BYTES


def segment_count(size: int) -> int:
    return -(-size // SEGMENT_BYTES)


class RecordWriter:
    """Turns headers and payloads into pack bytes, remembering where each record went."""

    def __init__(self, data_key: bytes, start: bytes) -> None:
        self._cipher = AESGCM(data_key)
        self._start = start
        self.offset = len(start)
        self.positions: list[Position] = []

    def start(self) -> bytes:
        return self._start

    def record(self, header: dict[str, Any], payload: Payload) -> Iterator[bytes]:
        offset, size = self.offset, payload.size
        bound = _BOUND.pack(offset, size)
        plain = _HEADERS.encode(header)
        sealed = self._cipher.encrypt(_NONCE.pack(offset, _HEADER_SEGMENT), plain, bound)
        yield _RECORD_START.pack(_RECORD_MAGIC, len(sealed), size) + sealed
        seen, number = 0, 0
        for chunk in payload.chunks():
            seen += len(chunk)
            view = memoryview(chunk)
            for start in range(0, len(chunk), SEGMENT_BYTES):
                segment = view[start : start + SEGMENT_BYTES]
                yield self._cipher.encrypt(_NONCE.pack(offset, number), segment, bound)
                number += 1
        if seen != size:
            raise ValueError(f"a payload of {size} bytes gave {seen}")
        body_offset = offset + _RECORD_START.size + len(sealed)
        self.offset = body_offset + sealed_size(size)
        self.positions.append(Position(offset, body_offset, size))


def open_segments(cipher: AESGCM, position: Position, first: int, sealed: bytes) -> bytes:
    """Opens consecutive whole segments, of which `first` is the number of the first. Raises InvalidTag."""
    bound = _BOUND.pack(position.record_offset, position.size)
    step = SEGMENT_BYTES + TAG_BYTES
    if len(sealed) <= step:
        return cipher.decrypt(_NONCE.pack(position.record_offset, first), sealed, bound)
    return b"".join(
        cipher.decrypt(_NONCE.pack(position.record_offset, first + index), sealed[start : start + step], bound)
        for index, start in enumerate(range(0, len(sealed), step))
    )


class RangeReader:
    """Reads ranges of an object; what `scan_records` needs of a store."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, start: int, length: int) -> bytes:
        raise NotImplementedError


def scan_records(reader: RangeReader, cipher: AESGCM, start: int, *, check_bodies: bool) -> Iterator[FoundRecord]:
    """Every whole record from `start`; stops at the first that is torn or does not open."""
    offset = start
    while offset + _RECORD_START.size <= reader.size:
        magic, header_length, size = _RECORD_START.unpack(reader.read(offset, _RECORD_START.size))
        body_offset = offset + _RECORD_START.size + header_length
        end = body_offset + sealed_size(size)
        if magic != _RECORD_MAGIC or header_length > _MAX_HEADER or end > reader.size:
            return
        position = Position(offset, body_offset, size)
        try:
            sealed = reader.read(offset + _RECORD_START.size, header_length)
            plain = cipher.decrypt(_NONCE.pack(offset, _HEADER_SEGMENT), sealed, _BOUND.pack(offset, size))
            if check_bodies:
                _check_body(reader, cipher, position)
        except InvalidTag:
            return
        yield FoundRecord(json.loads(plain), position)
        offset = end


def _check_body(reader: RangeReader, cipher: AESGCM, position: Position) -> None:
    step = CHUNK_BYTES // SEGMENT_BYTES
    for first in range(0, segment_count(position.size), step):
        count = min(step, segment_count(position.size) - first)
        plain = min(position.size - first * SEGMENT_BYTES, count * SEGMENT_BYTES)
        start = position.body_offset + first * (SEGMENT_BYTES + TAG_BYTES)
        open_segments(cipher, position, first, reader.read(start, sealed_size(plain)))
