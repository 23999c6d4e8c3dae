"""The messages of the sync WebSocket, `/api/sync`. Both directions, one binary message each.

Layout: `u32 LE header length | JSON header | payload`; docs/architecture.md "Sync" is the protocol. `decode` checks
everything a peer could get wrong, so that the code behind it never has to.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from gleaner.wire.ids import is_capture_id

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
_MAX_NUMBER = 2**63 - 1


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


_ENTRY_KINDS, _STATUSES = tuple(EntryKind), tuple(Status)


@dataclass(frozen=True)
class Entry:
    """One local file. `path` is relative to the capture directory for captures and sequences, absolute for other files."""

    id: str
    path: str
    size: int
    kind: EntryKind
    tags: tuple[str, ...] = ()
    dataset_ids: tuple[str, ...] = ()
    modified_ns: int = 0
    created_ns: int = 0
    name: str = ""
    packed: int = 0
    """Bytes on the line when the payload is compressed with zlib (in batches only); 0: it travels as it is."""


@dataclass(frozen=True)
class Batch:
    """`payloads` as they travel: `plain` gives an entry's own bytes."""

    seq: int
    entries: tuple[Entry, ...]
    payloads: tuple[bytes, ...]


@dataclass(frozen=True)
class Resume:
    """Asks how much of a big file the server holds already. Answered by `Offset`, or by `Ack` when it has it all."""

    seq: int
    entry: Entry


@dataclass(frozen=True)
class Offset:
    """Where to go on; also the answer to a piece that does not fit, with that piece's `seq`."""

    seq: int
    id: str
    offset: int
    held_ms: float = field(default=0, compare=False)


@dataclass(frozen=True)
class Piece:
    """Answered by `PieceAck`; the last one by `Ack`."""

    seq: int
    id: str
    offset: int
    last: bool
    data: bytes


@dataclass(frozen=True)
class PieceAck:
    seq: int
    id: str
    offset: int
    held_ms: float = field(default=0, compare=False)


@dataclass(frozen=True)
class Result:
    id: str
    status: Status
    message: str = ""
    hint: str = ""
    again: bool = False
    """Of a rejection: it says nothing of the file, whose bytes did not arrive as they were. It must be kept."""


@dataclass(frozen=True)
class Ack:
    """`held_ms`: between the frame's arrival and its answer, so that the client can tell the line's time from the disk's."""

    seq: int
    results: tuple[Result, ...]
    held_ms: float = field(default=0, compare=False)


@dataclass(frozen=True)
class SlowDown:
    """Back-pressure: send nothing new for `seconds`. Everything already sent is still answered."""

    seconds: float
    message: str = ""


ClientFrame = Batch | Resume | Piece
ServerFrame = Offset | PieceAck | Ack | SlowDown
Frame = ClientFrame | ServerFrame


def encode(frame: Frame) -> bytes:
    """The bytes of one WebSocket message."""
    match frame:
        case Batch(seq, entries, payloads):
            if [e.packed or e.size for e in entries] != [len(p) for p in payloads]:
                raise FrameError(f"batch {seq}: the payload sizes differ from the entries' sizes")
            return _pack({"kind": "batch", "seq": seq, "entries": [_entry(e) for e in entries]}, *payloads)
        case Resume(seq, entry):
            return _pack({"kind": "resume", "seq": seq, "entry": _entry(entry)})
        case Piece(seq, id_, offset, last, data):
            return _pack({"kind": "piece", "seq": seq, "id": id_, "offset": offset, "last": last}, data)
        case Offset():
            return _pack({"kind": "offset", **asdict(frame)})
        case PieceAck():
            return _pack({"kind": "piece_ack", **asdict(frame)})
        case Ack(seq, results, held_ms):
            return _pack({"kind": "ack", "seq": seq, "held_ms": held_ms, "results": [_result(r) for r in results]})
        case SlowDown():
            return _pack({"kind": "slow_down", **asdict(frame)})


def decode(message: bytes | str) -> Frame:
    """Raises FrameError for anything that `encode` would not have written."""
    if isinstance(message, str):
        raise FrameError("a text message came, expected a binary one")
    header, payload = _unpack(message)
    kind = header.get("kind")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise FrameError(f"unknown frame kind {kind!r}; this version knows {', '.join(_READERS)}")
    if payload and kind not in ("batch", "piece"):
        raise FrameError(f"a frame of kind {kind!r} came with {len(payload)} bytes of payload, expected none")
    return reader(header, payload)


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


def _entry(entry: Entry) -> dict[str, Any]:
    """Without what has its default: asdict and long headers were a tenth of a machine's work for small files."""
    found: dict[str, Any] = {"id": entry.id, "path": entry.path, "size": entry.size, "kind": entry.kind}
    if entry.tags:
        found["tags"] = entry.tags
    if entry.dataset_ids:
        found["dataset_ids"] = entry.dataset_ids
    if entry.modified_ns:
        found["modified_ns"] = entry.modified_ns
    if entry.created_ns:
        found["created_ns"] = entry.created_ns
    if entry.name:
        found["name"] = entry.name
    if entry.packed:
        found["packed"] = entry.packed
    return found


def _result(result: Result) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {"id": result.id, "status": result.status}
    if result.message:
        found["message"] = result.message
    if result.hint:
        found["hint"] = result.hint
    if result.again:
        found["again"] = True
    return found


def _pack(header: dict[str, Any], *payloads: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > MAX_HEADER_BYTES:
        raise FrameError(f"the header has {len(text)} bytes, at most {MAX_HEADER_BYTES} are allowed")
    return b"".join((len(text).to_bytes(4, "little"), text, *payloads))


def _unpack(message: bytes) -> tuple[dict[str, Any], memoryview]:
    if len(message) < 4:
        raise FrameError(f"a message of {len(message)} bytes came, expected at least 4")
    size = int.from_bytes(message[:4], "little")
    if size > MAX_HEADER_BYTES or 4 + size > len(message):
        raise FrameError(f"the header length {size} does not fit a message of {len(message)} bytes")
    try:
        header = json.loads(message[4 : 4 + size])
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise FrameError("the header is not a JSON object")
    return header, memoryview(message)[4 + size :]


# --- one reader per kind ---------------------------------------------------------------------------------------------


def _read_batch(header: dict[str, Any], payload: memoryview) -> Batch:
    raw = _list(header, "entries")
    if not 1 <= len(raw) <= BATCH_ENTRIES:
        raise FrameError(f"a batch has {len(raw)} entries, expected 1 to {BATCH_ENTRIES}")
    entries = tuple(_read_entry(item) for item in raw)
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
    return Batch(_integer(header, "seq"), entries, tuple(payloads))


def _read_resume(header: dict[str, Any], _payload: memoryview) -> Resume:
    return Resume(_integer(header, "seq"), _read_entry(header.get("entry")))


def _read_piece(header: dict[str, Any], payload: memoryview) -> Piece:
    if len(payload) > PIECE_BYTES:
        raise FrameError(f"a piece has {len(payload)} bytes, at most {PIECE_BYTES} are allowed")
    last = header.get("last")
    if not isinstance(last, bool):
        raise FrameError(f"'last' is {last!r}, expected true or false")
    return Piece(_integer(header, "seq"), _id(header), _integer(header, "offset"), last, bytes(payload))


def _read_offset(header: dict[str, Any], _payload: memoryview) -> Offset:
    return Offset(_integer(header, "seq"), _id(header), _integer(header, "offset"), _held_ms(header))


def _read_piece_ack(header: dict[str, Any], _payload: memoryview) -> PieceAck:
    return PieceAck(_integer(header, "seq"), _id(header), _integer(header, "offset"), _held_ms(header))


def _read_ack(header: dict[str, Any], _payload: memoryview) -> Ack:
    results = []
    for item in _list(header, "results"):
        status = item.get("status") if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or status not in _STATUSES:
            raise FrameError(f"an ack's result has the status {status!r}, expected one of {', '.join(Status)}")
        again = item.get("again") is True
        results.append(Result(_id(item), Status(status), _text(item, "message"), _text(item, "hint"), again))
    return Ack(_integer(header, "seq"), tuple(results), _held_ms(header))


def _read_slow_down(header: dict[str, Any], _payload: memoryview) -> SlowDown:
    return SlowDown(_number(header, "seconds", 3600), _text(header, "message"))


def _held_ms(header: dict[str, Any]) -> float:
    return _number(header, "held_ms", 3_600_000) if "held_ms" in header else 0.0


_READERS: dict[str, Callable[[dict[str, Any], memoryview], Frame]] = {
    "batch": _read_batch,
    "resume": _read_resume,
    "piece": _read_piece,
    "offset": _read_offset,
    "piece_ack": _read_piece_ack,
    "ack": _read_ack,
    "slow_down": _read_slow_down,
}


def _read_entry(item: Any) -> Entry:
    if not isinstance(item, Mapping):
        raise FrameError("an entry is not a JSON object")
    path, kind = _text(item, "path"), item.get("kind")
    if not path or len(path) > MAX_PATH_CHARACTERS or "\0" in path:
        raise FrameError(f"an entry's path has {len(path)} characters, expected 1 to {MAX_PATH_CHARACTERS} without NUL")
    if kind not in _ENTRY_KINDS:
        raise FrameError(f"an entry's kind is {kind!r}, expected one of {', '.join(EntryKind)}")
    return Entry(
        id=_id(item),
        path=path,
        size=_integer(item, "size"),
        kind=EntryKind(kind),
        tags=_texts(item, "tags"),
        dataset_ids=_texts(item, "dataset_ids"),
        modified_ns=_integer(item, "modified_ns", 0),
        created_ns=_integer(item, "created_ns", 0),
        name=_text(item, "name"),
        packed=_integer(item, "packed", 0),
    )


def _number(item: Mapping[str, Any], key: str, most: float) -> float:
    value = item.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise FrameError(f"{key!r} is {value!r}, expected a number from 0 to {most}")
    return float(value)


def _integer(item: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = item.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_NUMBER:
        raise FrameError(f"{key!r} is {value!r}, expected a whole number from 0")
    return value


def _id(item: Mapping[str, Any]) -> str:
    value = item.get("id")
    if not isinstance(value, str) or not is_capture_id(value):
        raise FrameError(f"'id' is {value!r}, expected 32 lower-case hex digits")
    return value


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key, "")
    if not isinstance(value, str):
        raise FrameError(f"{key!r} is {value!r}, expected text")
    return value


def _list(item: Mapping[str, Any], key: str) -> list[Any]:
    value = item.get(key)
    if not isinstance(value, list):
        raise FrameError(f"{key!r} is {value!r}, expected a list")
    return value


def _texts(item: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = item.get(key, [])
    if not isinstance(value, list) or not all(isinstance(t, str) for t in value):
        raise FrameError(f"{key!r} is {value!r}, expected a list of texts")
    return tuple(value)
