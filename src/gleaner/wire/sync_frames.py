"""The messages of the sync WebSocket, `/api/sync`. Both directions, one binary message each.

Layout: `u32 LE header length | JSON header | payload`; docs/architecture.md "Sync" is the protocol. `decode` checks
everything a peer could get wrong, so that the code behind it never has to.
"""

from __future__ import annotations

import json
import zlib
from enum import StrEnum
from typing import Annotated

from msgspec import DecodeError, Meta, Struct, ValidationError, to_builtins
from msgspec.json import Decoder, Encoder

from gleaner.wire.ids import CAPTURE_ID_PATTERN

SMALL_FILE_BYTES = 1024 * 1024
"""Bigger files travel by resume and piece."""
PIECE_BYTES = 256 * 1024
BATCH_BYTES = 1024 * 1024
BATCH_ENTRIES = 256
WINDOW_FRAMES = 32
WINDOW_BYTES = 32 * 1024 * 1024
"""At most; a sender keeps less on its way where the line is slow (machine/sync/flow.py)."""
COMPRESSION_HEADER = "gleaner-compression"
"""In the server's answer to the handshake: what it takes compressed. Without it a client compresses nothing."""
ZLIB = "zlib"
KINDS_HEADER = "gleaner-kinds"
"""In the server's answer to the handshake: entry kinds that it knows beside `capture` and `file`."""
MAX_HEADER_BYTES = 1024 * 1024
MAX_FRAME_BYTES = 4 + MAX_HEADER_BYTES + BATCH_BYTES + SMALL_FILE_BYTES
"""What a receiver must accept: a batch may pass BATCH_BYTES by its last entry."""
MAX_BATCH_PLAIN_BYTES = 16 * 1024 * 1024
"""What the entries of one batch may be together once they are decompressed."""
MAX_PATH_CHARACTERS = 4096

_Id = Annotated[str, Meta(pattern=rf"\A{CAPTURE_ID_PATTERN}\Z")]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Path = Annotated[str, Meta(min_length=1, max_length=MAX_PATH_CHARACTERS, pattern=r"\A[^\0]*\Z")]
_HeldMs = Annotated[float, Meta(ge=0, le=3_600_000)]


class FrameError(ValueError):
    """The peer sent something that is not a frame of this protocol; the message says what. Close the connection."""


class EntryKind(StrEnum):
    CAPTURE = "capture"
    FILE = "file"
    SEQUENCE = "sequence"
    """The `.seq` of a stretch of time: the app keeps what it says, not the file."""


class Status(StrEnum):
    STORED = "stored"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


class Entry(Struct, frozen=True, omit_defaults=True, gc=False):
    """One local file. `path` is relative to the capture directory for captures and sequences, absolute for other files."""

    id: _Id
    path: _Path
    size: _Count
    kind: EntryKind
    tags: tuple[str, ...] = ()
    dataset_ids: tuple[str, ...] = ()
    modified_ns: _Count = 0
    created_ns: _Count = 0
    name: str = ""
    packed: _Count = 0
    """Bytes on the line when the payload is compressed with zlib (in batches only); 0: it travels as it is."""


class Result(Struct, frozen=True, omit_defaults=True, gc=False):
    id: _Id
    status: Status
    message: str = ""
    hint: str = ""
    again: bool = False
    """Of a rejection: it says nothing of the file, whose bytes did not arrive as they were. It must be kept."""


class _Header(Struct, frozen=True, tag_field="kind"):
    """What travels as JSON; of frames without a payload, all of it."""


class _BatchHeader(_Header, frozen=True, tag="batch"):
    seq: _Count
    entries: Annotated[tuple[Entry, ...], Meta(min_length=1, max_length=BATCH_ENTRIES)]


class _PieceHeader(_Header, frozen=True, tag="piece"):
    seq: _Count
    id: _Id
    offset: _Count
    last: bool


class Batch(Struct, frozen=True):
    """`payloads` as they travel: `plain` gives an entry's own bytes."""

    seq: int
    entries: tuple[Entry, ...]
    payloads: tuple[bytes, ...]


class Piece(Struct, frozen=True):
    """Answered by `PieceAck`; the last one by `Ack`."""

    seq: int
    id: str
    offset: int
    last: bool
    data: bytes


class Resume(_Header, frozen=True, tag="resume"):
    """Asks how much of a big file the server holds already. Answered by `Offset`, or by `Ack` when it has it all."""

    seq: _Count
    entry: Entry


class Offset(_Header, frozen=True, tag="offset"):
    """Where to go on; also the answer to a piece that does not fit, with that piece's `seq`."""

    seq: _Count
    id: _Id
    offset: _Count
    held_ms: _HeldMs = 0


class PieceAck(_Header, frozen=True, tag="piece_ack"):
    seq: _Count
    id: _Id
    offset: _Count
    held_ms: _HeldMs = 0


class Ack(_Header, frozen=True, tag="ack"):
    """`held_ms`: between the frame's arrival and its answer, so that the client can tell the line's time from the disk's."""

    seq: _Count
    results: tuple[Result, ...]
    held_ms: _HeldMs = 0


class SlowDown(_Header, frozen=True, tag="slow_down"):
    """Back-pressure: send nothing new for `seconds`. Everything already sent is still answered."""

    seconds: Annotated[float, Meta(ge=0, le=3600)]
    message: str = ""


ClientFrame = Batch | Resume | Piece
ServerFrame = Offset | PieceAck | Ack | SlowDown
Frame = ClientFrame | ServerFrame

_encoder = Encoder()
_decoder = Decoder(_BatchHeader | _PieceHeader | Resume | Offset | PieceAck | Ack | SlowDown)


def encode(frame: Frame) -> bytes:
    """The bytes of one WebSocket message."""
    match frame:
        case Batch(seq, entries, payloads):
            if [e.packed or e.size for e in entries] != [len(p) for p in payloads]:
                raise FrameError(f"batch {seq}: the payload sizes differ from the entries' sizes")
            return _pack(_BatchHeader(seq, entries), *payloads)
        case Piece(seq, id_, offset, last, data):
            return _pack(_PieceHeader(seq, id_, offset, last), data)
        case _:
            return _pack(frame)


def decode(message: bytes | str) -> Frame:
    """Raises FrameError for anything that `encode` would not have written."""
    if isinstance(message, str):
        raise FrameError("a text message came, expected a binary one")
    header, payload = _unpack(message)
    match header:
        case _BatchHeader(seq, entries):
            return Batch(seq, entries, _divided(entries, payload))
        case _PieceHeader(seq, id_, offset, last):
            if len(payload) > PIECE_BYTES:
                raise FrameError(f"a piece has {len(payload)} bytes, at most {PIECE_BYTES} are allowed")
            return Piece(seq, id_, offset, last, bytes(payload))
        case _:
            if payload:
                kind = type(header).__name__
                raise FrameError(f"a {kind} frame came with {len(payload)} bytes of payload, expected none")
            return header


def plain(entry: Entry, payload: bytes) -> bytes:
    """An entry's bytes from what travelled. Raises FrameError, having made at most `entry.size` bytes of it."""
    if not entry.packed:
        return payload
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(payload, entry.size + 1)
    except zlib.error as error:
        raise FrameError(f"{entry.path} does not decompress: {error}") from error
    if len(content) != entry.size or not unpacker.eof or unpacker.unused_data:
        raise FrameError(f"{entry.path} decompresses to something else than its {entry.size} bytes")
    return content


def _pack(header: _Header, *payloads: bytes) -> bytes:
    try:
        text = _encoder.encode(header)
    except UnicodeEncodeError:  # a tag or a message with half a character: no reason to stop everything else
        text = json.dumps(to_builtins(header), ensure_ascii=False).encode("utf-8", "replace")
    if len(text) > MAX_HEADER_BYTES:
        raise FrameError(f"the header has {len(text)} bytes, at most {MAX_HEADER_BYTES} are allowed")
    return b"".join((len(text).to_bytes(4, "little"), text, *payloads))


def _unpack(message: bytes) -> tuple[_BatchHeader | _PieceHeader | Resume | ServerFrame, memoryview]:
    if len(message) < 4:
        raise FrameError(f"a message of {len(message)} bytes came, expected at least 4")
    size = int.from_bytes(message[:4], "little")
    if size > MAX_HEADER_BYTES or 4 + size > len(message):
        raise FrameError(f"the header length {size} does not fit a message of {len(message)} bytes")
    view = memoryview(message)
    try:
        return _decoder.decode(view[4 : 4 + size]), view[4 + size :]
    except ValidationError as error:
        raise FrameError(f"the header is none of this protocol: {error}") from error
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"the header is not JSON: {error}") from error


def _divided(entries: tuple[Entry, ...], payload: memoryview) -> tuple[bytes, ...]:
    """The payload of each entry."""
    if any(entry.packed and entry.size > SMALL_FILE_BYTES for entry in entries):
        raise FrameError(f"a compressed entry holds more than {SMALL_FILE_BYTES} bytes: it may be a bomb")
    if sum(entry.size for entry in entries) > MAX_BATCH_PLAIN_BYTES:
        raise FrameError(f"a batch holds more than {MAX_BATCH_PLAIN_BYTES} bytes")
    total = sum(entry.packed or entry.size for entry in entries)
    if total != len(payload):
        raise FrameError(f"a batch's entries add up to {total} bytes but its payload has {len(payload)}")
    payloads, start = [], 0
    for entry in entries:
        end = start + (entry.packed or entry.size)
        payloads.append(bytes(payload[start:end]))
        start = end
    return tuple(payloads)
