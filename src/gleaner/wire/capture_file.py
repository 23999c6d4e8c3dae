"""Viam's capture-file framing, with a checksum that Viam's readers skip.

Layout: `varint length | DataCaptureMetadata`, then `varint length | SensorData`, again and again. Every message that we
write ends with the unknown field 60001 (fixed32): CRC-32 of the message's bytes before that field. A message that
carries it is *sealed*.

Invariants of reading:
- a file whose header is sealed yields sealed records only; after damage in a tabular file reading goes on at the next
  record whose checksum fits (a binary file holds one record, so nothing is searched for inside its payload);
- a file without any seal (written by viam-server) yields the records that parse, up to the first that does not;
- a sealed record under an unsealed header means the header is damaged: nothing is yielded, because the component, the
  method and the tags would be guesses.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from zlib_ng.zlib_ng import crc32

from gleaner.wire.sensor_data import split_binary, varint

if TYPE_CHECKING:  # imported where it is needed: sync sends our own files without it, and is 10 MB smaller
    from viam.proto.app.datasync import DataCaptureMetadata, SensorData

CRC_FIELD_NUMBER = 60001
CRC_TAG = varint(CRC_FIELD_NUMBER << 3 | 5)
SEAL_BYTES = len(CRC_TAG) + 4
MIN_RECORD_BYTES = SEAL_BYTES + 1
_CHECKSUM = struct.Struct("<I")

IN_PROGRESS_SUFFIX = ".prog"
COMPLETE_SUFFIX = ".capture"

BINARY_METHODS = frozenset(
    ("NextPointCloud", "ReadImage", "PointCloudMap", "GetImages", "CaptureAllFromCamera", "GetAudio")
)
"""Methods whose files hold exactly one binary record each; every other method is tabular."""

MIME_EXTENSIONS = {
    "image/jpeg": ".jpeg",
    "image/png": ".png",
    "image/vnd.viam.dep": ".dep",
    "image/vnd.viam.rgba": ".rgba",
    "pointcloud/pcd": ".pcd",
    "video/mp4": ".mp4",
    "audio/wav": ".wav",
    "audio/mpeg": ".mp3",
}


ENCRYPTED_MAGIC = b"\x00GLNRST1"
# The last byte is the version.
ENCRYPTED_FAMILY = ENCRYPTED_MAGIC[:-1]
"""How a capture file begins that a machine has encrypted (`machine/capture/at_rest.py`). No plain one can: its first
byte would be the length of the header, which is never empty."""


class CaptureFileError(ValueError):
    """The file says nothing reliable: its header is missing, cut or damaged. The message says which."""


class _Seal(Enum):
    ABSENT = "absent"
    GOOD = "good"
    BROKEN = "broken"


# Fields of DataCaptureMetadata, and DataType's values in the first.
_TYPE_FIELD, _TAGS_FIELD = 5, 8
_BINARY, _TABULAR = 1, 2


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `end` of one message, without its length prefix."""

    start: int
    end: int


@dataclass(frozen=True)
class Layout:
    """Where the usable messages of a capture file lie."""

    header: Span
    records: tuple[Span, ...]
    sealed: bool
    good_end: int
    """Behind the last usable record; what follows is damage or a torn tail."""
    damaged_bytes: int
    """Bytes that belong to no usable message, the torn tail included."""


@dataclass(frozen=True)
class CaptureFile:
    metadata: DataCaptureMetadata
    records: tuple[SensorData, ...]
    layout: Layout


def extension_for(mime_type: str, otherwise: str = "") -> str:
    return MIME_EXTENSIONS.get(mime_type, otherwise)


# --- writing ---------------------------------------------------------------------------------------------------------


def frame(parts: Sequence[bytes]) -> list[bytes]:
    """The bytes to append for one message given in parts: length, parts, seal. For `os.writev`; copies no payload."""
    checksum = size = 0
    for part in parts:
        checksum = crc32(part, checksum)
        size += len(part)
    return [varint(size + SEAL_BYTES), *parts, CRC_TAG + _CHECKSUM.pack(checksum)]


def encode_header(metadata: DataCaptureMetadata) -> bytes:
    """The beginning of a capture file."""
    return b"".join(frame([metadata.SerializeToString(deterministic=True)]))


def encode_record(message: bytes | SensorData) -> bytes:
    """One framed and sealed record, from serialized SensorData."""
    body = message if isinstance(message, bytes) else message.SerializeToString()
    return b"%b%b%b%b" % (varint(len(body) + SEAL_BYTES), body, CRC_TAG, _CHECKSUM.pack(crc32(body)))


# --- reading ---------------------------------------------------------------------------------------------------------


def read_capture(data: bytes | memoryview) -> CaptureFile:
    """Raises CaptureFileError; damage behind the header only costs the damaged records."""
    layout = find_layout(data)
    metadata = _parse_metadata(_message(data, layout.header, layout.sealed))
    from viam.proto.app.datasync import SensorData

    records = tuple(SensorData.FromString(_message(data, span, layout.sealed)) for span in layout.records)
    return CaptureFile(metadata, records, layout)


def iter_records(data: bytes | memoryview) -> Iterator[SensorData]:
    """The usable records one at a time: for big files, where only one should be in memory."""
    from viam.proto.app.datasync import SensorData

    layout = find_layout(data)
    for span in layout.records:
        yield SensorData.FromString(_message(data, span, layout.sealed))


def sealed_binary(data: bytes, position: int) -> tuple[bytes, memoryview] | None:
    """(serialized SensorMetadata, payload) of the one record of a binary capture that Gleaner wrote; None: `read_capture`.

    `position` is the header's end (`sealed_header`). The record's checksum is checked.
    """
    span = _frame_at(data, position)
    if span is None or span.end != len(data) or _seal_of(data, span) is not _Seal.GOOD:
        return None
    return split_binary(memoryview(data)[span.start : span.end - SEAL_BYTES])


def sealed_header(data: bytes) -> tuple[bytes, int] | None:
    """(header message, where the first record begins) of a file that Gleaner wrote; None: `read_capture` judges it."""
    header = _frame_at(data, 0)
    if header is None or _seal_of(data, header) is not _Seal.GOOD:
        return None
    return _message(data, header, sealed=True), header.end


def header_size(data: bytes) -> int:
    """Where the first record begins; 0 if the header is cut. Checks nothing."""
    header = _frame_at(data, 0)
    return header.end if header is not None else 0


def is_one_record(data: bytes, position: int) -> bool:
    """Whether exactly one record with a seal follows. Its checksum is not computed."""
    span = _frame_at(data, position)
    return span is not None and span.end == len(data) and data[span.end - SEAL_BYTES : span.end - 4] == CRC_TAG


def read_header(data: bytes) -> DataCaptureMetadata:
    """What a file says about itself; `data` is its beginning. Raises CaptureFileError."""
    header = _frame_at(data, 0)
    if header is None:
        raise CaptureFileError("the capture file is cut off inside its header")
    seal = _seal_of(data, header)
    if seal is _Seal.BROKEN:
        raise CaptureFileError("the capture file's header is damaged: its checksum does not fit")
    return _parse_metadata(_message(data, header, seal is _Seal.GOOD))


def has_tags(data: bytes) -> bool:
    """Whether the header names a tag; `data` is the file's beginning. Raises CaptureFileError."""
    header = _frame_at(data, 0)
    if header is not None and _seal_of(data, header) is _Seal.GOOD:
        fields = _fields(data[header.start : header.end])
        if fields is not None:
            return any(number == _TAGS_FIELD for number, _ in fields)
    return bool(read_header(data).tags)


def _message(data: bytes | memoryview, span: Span, sealed: bool) -> bytes:
    """A message without its seal: exactly what was given to the writer."""
    return bytes(memoryview(data)[span.start : span.end - SEAL_BYTES if sealed else span.end])


def find_layout(data: bytes | memoryview) -> Layout:
    """Finds header and usable records. Raises CaptureFileError when the header cannot be trusted."""
    data = data if isinstance(data, bytes) else bytes(data)
    if data.startswith(ENCRYPTED_FAMILY):
        raise CaptureFileError(
            "the capture file is encrypted by the machine that captured it: read it there, or with that machine's key"
        )
    header = _frame_at(data, 0)
    if header is None:
        raise CaptureFileError("the capture file is cut off inside its header")
    seal = _seal_of(data, header)
    if seal is _Seal.BROKEN:
        raise CaptureFileError("the capture file's header is damaged: its checksum does not fit")
    is_tabular = _data_type(data[header.start : header.end], seal) == _TABULAR
    if seal is _Seal.GOOD:
        records = list(_sealed_records(data, header.end, resync=is_tabular))
    else:
        records = _unsealed_records(data, header.end, is_tabular)
    return _layout(data, header, records, seal is _Seal.GOOD)


def _layout(data: bytes, header: Span, records: list[Span], sealed: bool) -> Layout:
    used = _framed_size(header) + sum(_framed_size(span) for span in records)
    good_end = records[-1].end if records else header.end
    return Layout(header, tuple(records), sealed, good_end, len(data) - used)


def _framed_size(span: Span) -> int:
    size = span.end - span.start
    return len(varint(size)) + size


def _data_type(body: bytes, seal: _Seal) -> int:
    """Field `type` of the header. In a header that our seal vouches for it is found without protobuf's library."""
    found = dict(_fields(body) or ()).get(_TYPE_FIELD) if seal is _Seal.GOOD else None
    return found if found in (_BINARY, _TABULAR) else int(_parse_metadata(body).type)


def _fields(body: bytes) -> list[tuple[int, int]] | None:
    """(number, value, or size) of the fields on the top level of a serialized message; None: protobuf must look at it."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(body):
        key, at = _read_varint(body, at)
        value = 0
        match key & 7:
            case 0:
                value, at = _read_varint(body, at)
            case 2:
                value, at = _read_varint(body, at)
                at += value
            case 5:
                at += 4
            case _:
                return None
        found.append((key >> 3, value))
    return found if at == len(body) else None


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(body):
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return value, len(body) + 1


def _parse_metadata(body: bytes) -> DataCaptureMetadata:
    from google.protobuf.message import DecodeError
    from viam.proto.app.datasync import DataCaptureMetadata

    try:
        metadata: DataCaptureMetadata = DataCaptureMetadata.FromString(body)
    except DecodeError as error:
        raise CaptureFileError(
            "the capture file's header cannot be decoded: it is damaged or not a capture file"
        ) from error
    if metadata.type not in (_BINARY, _TABULAR):
        raise CaptureFileError(
            f"the capture file's header has data type {metadata.type}, expected binary (1) or tabular (2)"
        )
    return metadata


def _frame_at(data: bytes, position: int) -> Span | None:
    """The message whose length prefix is at `position`, if it lies wholly inside the data."""
    size = shift = 0
    for index in range(position, min(position + 10, len(data))):
        byte = data[index]
        size |= (byte & 127) << shift
        if byte < 128:
            end = index + 1 + size
            return Span(index + 1, end) if size and end <= len(data) else None
        shift += 7
    return None


def _seal_of(data: bytes, span: Span) -> _Seal:
    mark = span.end - SEAL_BYTES
    if mark < span.start or data[mark : mark + len(CRC_TAG)] != CRC_TAG:
        return _Seal.ABSENT
    expected = int.from_bytes(data[span.end - 4 : span.end], "little")
    return _Seal.GOOD if crc32(memoryview(data)[span.start : mark]) == expected else _Seal.BROKEN


def _sealed_records(data: bytes, position: int, *, resync: bool) -> Iterator[Span]:
    while position < len(data):
        span = _frame_at(data, position)
        if span is None or _seal_of(data, span) is not _Seal.GOOD:
            span = _next_sealed(data, position) if resync else None
            if span is None:
                return
        yield span
        position = span.end


def _next_sealed(data: bytes, position: int) -> Span | None:
    """The next sealed record at or behind `position`, found by its seal, then by the length that leads to it."""
    low = position
    mark = data.find(CRC_TAG, position)
    while mark >= 0:
        end = mark + SEAL_BYTES
        if end <= len(data):
            span = _record_ending_at(data, low, end)
            if span is not None:
                return span
            following = _frame_at(data, end)
            if following is not None and _seal_of(data, following) is _Seal.GOOD:
                return following
        # Whatever failed is given up to here, so that the search stays linear however the bytes were made.
        low = mark + 1
        mark = data.find(CRC_TAG, low)
    return None


def _record_ending_at(data: bytes, low: int, end: int) -> Span | None:
    """A record that starts at or behind `low`, ends at `end` and whose checksum fits."""
    for start in range(end - MIN_RECORD_BYTES, low - 1, -1):
        # Only the lengths that fit are worth a checksum: the last byte of a length prefix is below 128.
        prefix = varint(end - start)
        begin = start - len(prefix)
        if begin >= low and data[begin:start] == prefix:
            span = Span(start, end)
            if _seal_of(data, span) is _Seal.GOOD:
                return span
    return None


def _unsealed_records(data: bytes, position: int, is_tabular: bool) -> list[Span]:
    records: list[Span] = []
    while position < len(data):
        span = _frame_at(data, position)
        if span is None or not _is_plain_record(data, span, is_tabular):
            break
        records.append(span)
        position = span.end
    if _holds_seal(data, position, is_tabular):
        raise CaptureFileError("the capture file's header is damaged: it lacks the checksum that its records have")
    return records


def _holds_seal(data: bytes, position: int, is_tabular: bool) -> bool:
    if position >= len(data):
        return False
    if is_tabular:
        return _next_sealed(data, position) is not None
    return data[-SEAL_BYTES : len(data) - 4] == CRC_TAG


def _is_plain_record(data: bytes, span: Span, is_tabular: bool) -> bool:
    if _seal_of(data, span) is not _Seal.ABSENT:
        return False
    from google.protobuf.message import DecodeError
    from viam.proto.app.datasync import SensorData

    try:
        record = SensorData.FromString(data[span.start : span.end])
    except DecodeError:
        return False
    times: bool = record.metadata.HasField("time_requested") and record.metadata.HasField("time_received")
    kind: str | None = record.WhichOneof("data")
    return times and kind == ("struct" if is_tabular else "binary")
