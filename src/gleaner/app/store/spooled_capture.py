"""Big `.capture` files: the picture or video inside goes from the spool to the pack without being in memory at once.

Only the few bytes before and after the payload are parsed: `varint | DataCaptureMetadata`, `varint | SensorData`, and in it
field 1 (metadata), field 3 (the binary payload), then at most Gleaner's checksum. Anything else takes the ordinary way.
The file's id, which covers every byte, has been checked by then, so the checksum inside need not be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.message import DecodeError
from viam.proto.app.datasync import DataCaptureMetadata, DataType, SensorMetadata

from gleaner.app.services.fleet_values import Place
from gleaner.app.store.payload import CHUNK_BYTES
from gleaner.app.store.records import Upload
from gleaner.app.store.spool import SpoolFile
from gleaner.app.store.uploads import as_upload_metadata, from_capture_file, from_stream
from gleaner.wire.capture_file import SEAL_BYTES

_HEAD_BYTES = 1 << 20
_METADATA_TAG = 0x0A  # field 1, length-delimited
_BINARY_TAG = 0x1A  # field 3, length-delimited


def from_spooled_capture(
    file: SpoolFile, place: Place, key: bytes, now_ns: int, tags: Sequence[str] = ()
) -> Upload | None:
    """As `from_capture_file`; takes over the spooled file. Raises InvalidInput and then leaves it to the caller."""
    found = _find_payload(file.head(_HEAD_BYTES), file.size)
    if found is None:
        made = from_capture_file(file.read_all(), place, key, now_ns, tags)
        file.discard()
        return made
    capture, sensor, start, length = found
    payload = SlicePayload(file, start, length)
    return from_stream(as_upload_metadata(capture, tags), sensor, payload, place, now_ns, idempotency_key=key)


class SlicePayload:
    """A range of a spooled file."""

    def __init__(self, file: SpoolFile, start: int, length: int) -> None:
        self._file, self._start, self._length = file, start, length

    @property
    def size(self) -> int:
        return self._length

    @property
    def in_memory(self) -> int:
        return self._file.in_memory

    def chunks(self) -> Iterator[bytes]:
        pending = bytearray()
        skip, left = self._start, self._length
        for frame in self._file.frames():
            part = frame[skip : skip + left]
            skip = max(skip - len(frame), 0)
            left -= len(part)
            pending += part
            while len(pending) >= CHUNK_BYTES:
                yield bytes(pending[:CHUNK_BYTES])
                del pending[:CHUNK_BYTES]
            if left == 0:
                break
        if pending:
            yield bytes(pending)

    def head(self, length: int) -> bytes:
        return self._file.head(self._start + min(length, self._length))[self._start :]

    def discard(self) -> None:
        self._file.discard()

    def abandon(self) -> None:
        self._file.abandon()


def _find_payload(head: bytes, size: int) -> tuple[DataCaptureMetadata, SensorMetadata, int, int] | None:
    """(header, sensor metadata, payload's start, its length) of a file that holds one binary record and nothing else."""
    try:
        length, position = _varint(head, 0)
        capture = DataCaptureMetadata.FromString(head[position : position + length])
        position += length
        record_length, position = _varint(head, position)
        record_end = position + record_length
        if capture.type != DataType.DATA_TYPE_BINARY_SENSOR or record_end != size or head[position] != _METADATA_TAG:
            return None
        length, position = _varint(head, position + 1)
        sensor = SensorMetadata.FromString(head[position : position + length])
        position += length
        if head[position] != _BINARY_TAG:
            return None
        length, position = _varint(head, position + 1)
    except (IndexError, DecodeError):
        return None
    is_whole = position + length in (record_end, record_end - SEAL_BYTES)
    return (capture, sensor, position, length) if is_whole and position < len(head) else None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """(number, where it ends). Raises IndexError at the end of the data."""
    number = shift = 0
    while True:
        byte = data[position]
        number |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return number, position
