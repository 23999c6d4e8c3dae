"""Builds `Upload`s from what arrives: Viam's upload messages, capture files, plain files. Pure: no store is touched.

Each upload gets an idempotency key. Viam's clients send none, so it is derived from what cannot differ between two
sendings of the same thing and does differ between two things:
- binary: part, component, method, both timestamps, annotations, payload hash;
- readings: part, component, method and the canonical readings (never the request's bytes: Go's map order varies);
- files: part, name, modify time, payload hash.
Our own sync sends a capture id, which is the key.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from viam.proto.app.datasync import DataCaptureMetadata, DataType, MimeType, SensorData, SensorMetadata, UploadMetadata

from gleaner.app.errors import InvalidInput
from gleaner.app.services.fleet_values import Place
from gleaner.app.store import sniff
from gleaner.app.store.payload import MemoryPayload, Payload, sha256_of
from gleaner.app.store.records import (
    READINGS_AS_SENT,
    Box,
    Classification,
    ReadingsSummary,
    RecordInfo,
    Upload,
    clean_tags,
    derived_key,
)
from gleaner.app.store.shapes import Decoded, decoded
from gleaner.app.store.structs import plain, struct_to_dict
from gleaner.wire.capture_file import CaptureFileError, read_capture, sealed_binary, sealed_header
from gleaner.wire.sensor_data import MAX_READING_BYTES

AS_SENT = b"\0"
"""How a batch begins that holds a capture file's sealed records as they are; any other batch is JSON."""

_END_OF_TIME_NS = 2**63
# Names of an enum take a microsecond to look up.
_BINARY, _TABULAR = DataType.DATA_TYPE_BINARY_SENSOR, DataType.DATA_TYPE_TABULAR_SENSOR
_NO_PATH = PurePosixPath()
_OLD_MIME_TYPES = {
    MimeType.MIME_TYPE_IMAGE_JPEG: "image/jpeg",
    MimeType.MIME_TYPE_IMAGE_PNG: "image/png",
    MimeType.MIME_TYPE_APPLICATION_PCD: "pointcloud/pcd",
    MimeType.MIME_TYPE_VIDEO_MP4: "video/mp4",
}


def from_sensor_contents(metadata: UploadMetadata, contents: Sequence[SensorData], place: Place, now_ns: int) -> Upload:
    """`DataCaptureUpload`: one binary capture, or a batch of readings. Raises InvalidInput."""
    if not contents:
        raise InvalidInput("The upload has no sensor contents", "Send at least one reading or one picture.")
    if metadata.type == DataType.DATA_TYPE_TABULAR_SENSOR:
        return _readings(metadata, contents, place, now_ns)
    if metadata.type not in (DataType.DATA_TYPE_BINARY_SENSOR, DataType.DATA_TYPE_FILE):
        raise InvalidInput(
            "The upload's type is not set", "Set `type` to DATA_TYPE_BINARY_SENSOR or DATA_TYPE_TABULAR_SENSOR."
        )
    if len(contents) != 1:
        raise InvalidInput(f"A binary upload has {len(contents)} contents, expected exactly 1", "Send them one by one.")
    if contents[0].WhichOneof("data") != "binary":
        raise InvalidInput(
            "The upload is declared binary but its content is not", "Set `type` to DATA_TYPE_TABULAR_SENSOR."
        )
    payload = MemoryPayload(contents[0].binary)
    return from_stream(metadata, contents[0].metadata, payload, place, now_ns)


def from_stream(
    metadata: UploadMetadata,
    sensor: SensorMetadata,
    payload: Payload,
    place: Place,
    now_ns: int,
    *,
    digest: bytes = b"",
    idempotency_key: bytes = b"",
    source: RecordInfo | None = None,
) -> Upload:
    """`StreamingDataCaptureUpload`: one binary capture whose bytes came in pieces.

    `digest` is their SHA-256 and `source` what `_of_source` says, where they are known.
    """
    if payload.size == 0:
        raise InvalidInput("The capture is empty", "Send the picture's bytes.")
    digest = digest or sha256_of(payload)
    requested, received = _time_ns(sensor.time_requested), _time_ns(sensor.time_received)
    key = idempotency_key
    if not key:
        annotations = sensor.annotations.SerializeToString(deterministic=True)
        key = derived_key("binary", *_source(metadata, place), requested, received, annotations, digest)
    declared = metadata.mime_type or _OLD_MIME_TYPES.get(sensor.mime_type, "")
    has_marks = sensor.HasField("annotations")
    info = _described(source or _of_source(metadata, place), metadata, payload, declared).having(
        idempotency_key=key,
        digest=digest,
        captured_ns=requested or received or now_ns,
        received_ns=received or requested or now_ns,
        synced_ns=now_ns,
        boxes=_boxes(sensor) if has_marks else (),
        classifications=_classifications(sensor) if has_marks else (),
    )
    return Upload(info, payload)


def from_file(
    metadata: UploadMetadata,
    payload: Payload,
    place: Place,
    now_ns: int,
    *,
    digest: bytes = b"",
    idempotency_key: bytes = b"",
    revive: bool = False,
) -> Upload:
    """`FileUpload`, a synced file, or one dropped on the page. Raises InvalidInput for an empty file."""
    if payload.size == 0:
        raise InvalidInput(f"The file {metadata.file_name or '(no name)'} is empty", "Send it once it has content.")
    digest = digest or sha256_of(payload)
    modified, created = _time_ns(metadata.file_modify_time), _time_ns(metadata.file_create_time)
    key = idempotency_key or derived_key("file", *_source(metadata, place), metadata.file_name, modified, digest)
    captured = modified or created or now_ns
    info = _described(_of_source(metadata, place), metadata, payload, metadata.mime_type).having(
        idempotency_key=key, digest=digest, captured_ns=captured, received_ns=captured, synced_ns=now_ns
    )
    return Upload(info, payload, revive)


def from_capture_file(data: bytes, place: Place, key: bytes, now_ns: int, tags: Sequence[str] = ()) -> Upload | None:
    """A `.capture` file as it lies on the machine's disk; None if it holds no readings. Raises InvalidInput."""
    try:
        if made := _from_sealed(data, place, key, now_ns, tuple(tags)):
            return made
        capture = read_capture(data)
    except (CaptureFileError, DecodeError) as err:
        raise InvalidInput(f"Not a readable capture file: {err}", "It stays on the machine; look at it there.") from err
    if not capture.records:
        return None
    metadata = as_upload_metadata(capture.metadata, tags)
    if metadata.type == _TABULAR:
        return _readings(metadata, capture.records, place, now_ns, key)
    record = capture.records[0]
    return from_stream(metadata, record.metadata, MemoryPayload(record.binary), place, now_ns, idempotency_key=key)


def _from_sealed(data: bytes, place: Place, key: bytes, now_ns: int, tags: tuple[str, ...]) -> Upload | None:
    """An undamaged file of ours, looked into no further than needed. None: `read_capture` has to judge it."""
    header = sealed_header(data)
    if header is None:
        return None
    message, at = header
    metadata, source = _of_collector(message, tags, place)
    if metadata.type == _TABULAR:
        return _readings_as_sent(data, at, metadata, place, key, now_ns)
    binary = sealed_binary(data, at) if metadata.type == _BINARY else None
    if binary is None:
        return None
    sensor, content = SensorMetadata.FromString(binary[0]), MemoryPayload(bytes(binary[1]))
    return from_stream(metadata, sensor, content, place, now_ns, idempotency_key=key, source=source)


def decode_readings(payload: bytes) -> list[tuple[int, int, dict[str, Any]]]:
    """(time requested ns, time received ns, data) of a stored batch, in the order they were captured."""
    if not payload.startswith(AS_SENT):
        return [(requested, received, data) for requested, received, data in json.loads(payload)]
    found = decoded(payload, len(AS_SENT))
    if found is None:
        raise ValueError("a stored batch of readings is none")
    run = found.run
    return list(zip(run.requested_ns.tolist(), run.received_ns.tolist(), found.documents(), strict=True))


def _of_source(metadata: UploadMetadata, place: Place) -> RecordInfo:
    """What all captures of one source share."""
    return RecordInfo(
        place=place,
        idempotency_key=b"",
        digest=b"",
        size=0,
        component_type=metadata.component_type,
        component_name=metadata.component_name,
        method=metadata.method_name,
        tags=clean_tags(metadata.tags),
        dataset_ids=tuple(dict.fromkeys(metadata.dataset_ids)),
        method_parameters=_parameters(metadata),
    )


@lru_cache(maxsize=256)
def _of_collector(header: bytes, tags: tuple[str, ...], place: Place) -> tuple[UploadMetadata, RecordInfo]:
    """All files of a collector begin with the same header. Not to be changed by who gets it."""
    metadata = as_upload_metadata(DataCaptureMetadata.FromString(header), tags)
    return metadata, _of_source(metadata, place)


def _described(source: RecordInfo, metadata: UploadMetadata, payload: Payload, declared_mime: str) -> RecordInfo:
    """With what the name and the first bytes say."""
    path = PurePosixPath(metadata.file_name.replace("\\", "/")) if metadata.file_name else _NO_PATH
    extension = metadata.file_extension or path.suffix
    found = sniff.sniff(payload.head(sniff.HEAD_BYTES), mime_type=declared_mime, file_ext=extension)
    extension = _dotted(extension) or sniff.extension_of(found.mime_type)
    name = path.name
    if name and not name.lower().endswith(extension.lower()):
        name += extension  # the SDK sends stem and extension apart
    return source.having(
        size=payload.size,
        mime_type=found.mime_type,
        kind=found.kind,
        file_name=name,
        file_ext=extension,
        width=found.width,
        height=found.height,
    )


def _readings_as_sent(
    data: bytes, at: int, metadata: UploadMetadata, place: Place, key: bytes, now_ns: int
) -> Upload | None:
    """Readings, kept as they are: nothing is made of them but what the index must know."""
    found = decoded(data, at)
    if found is None:
        return None
    payload = MemoryPayload(AS_SENT + memoryview(data)[at:])
    info = _readings_info(metadata, place, key, sha256_of(payload), payload.size, _summary(found), now_ns)
    return Upload(info.having(mime_type=READINGS_AS_SENT), payload)


def _summary(found: Decoded) -> tuple[ReadingsSummary, int]:
    """And when the newest was received."""
    run = found.run
    newest = int(run.requested_ns.argmax())
    latest = json.dumps(found.document(newest), separators=(",", ":"))
    first_ns, last_ns = int(run.requested_ns.min()), int(run.requested_ns[newest])
    return ReadingsSummary(len(run), first_ns, last_ns, latest), int(run.received_ns[newest])


def _readings(
    metadata: UploadMetadata, contents: Sequence[SensorData], place: Place, now_ns: int, key: bytes = b""
) -> Upload:
    rows: list[tuple[int, int, dict[str, Any]]] = []
    for content in contents:
        if content.WhichOneof("data") != "struct":
            raise InvalidInput(
                "A batch of readings holds something else", "Send readings and pictures in uploads of their own."
            )
        if content.ByteSize() > MAX_READING_BYTES:
            raise InvalidInput("A reading is larger than 4 MB", "Send large values as a file.")
        requested, received = _time_ns(content.metadata.time_requested), _time_ns(content.metadata.time_received)
        rows.append((requested or received or now_ns, received or requested or now_ns, struct_to_dict(content.struct)))
    encoded = json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()
    payload = MemoryPayload(encoded)
    digest = sha256_of(payload)
    newest = max(rows, key=lambda row: row[0])
    latest = json.dumps(newest[2], separators=(",", ":"))
    summary = ReadingsSummary(len(rows), min(row[0] for row in rows), newest[0], latest)
    key = key or derived_key("tabular", *_source(metadata, place), digest)
    return Upload(_readings_info(metadata, place, key, digest, payload.size, (summary, newest[1]), now_ns), payload)


def _readings_info(
    metadata: UploadMetadata,
    place: Place,
    key: bytes,
    digest: bytes,
    size: int,
    said: tuple[ReadingsSummary, int],
    now_ns: int,
) -> RecordInfo:
    summary, received_ns = said
    return RecordInfo(
        place=place,
        idempotency_key=key,
        digest=digest,
        size=size,
        component_type=metadata.component_type,
        component_name=metadata.component_name,
        method=metadata.method_name,
        kind=sniff.READING,
        captured_ns=summary.last_ns,
        received_ns=received_ns,
        synced_ns=now_ns,
        tags=clean_tags(metadata.tags),
        method_parameters=_parameters(metadata),
        readings=summary,
    )


def _source(metadata: UploadMetadata, place: Place) -> tuple[str, ...]:
    owner = place.part_id or place.organization_id
    return owner, metadata.component_type, metadata.component_name, metadata.method_name


def as_upload_metadata(capture: DataCaptureMetadata, tags: Sequence[str]) -> UploadMetadata:
    return UploadMetadata(
        component_type=capture.component_type,
        component_name=capture.component_name,
        method_name=capture.method_name,
        type=capture.type,
        method_parameters=capture.method_parameters,
        file_extension=capture.file_extension,
        tags=[*capture.tags, *tags],
        mime_type=capture.mime_type,
    )


def _boxes(sensor: SensorMetadata) -> tuple[Box, ...]:
    return tuple(
        Box(
            box.label,
            _unit(box.x_min_normalized),
            _unit(box.y_min_normalized),
            _unit(box.x_max_normalized),
            _unit(box.y_max_normalized),
            box.confidence if box.HasField("confidence") else None,
        )
        for box in sensor.annotations.bboxes
    )


def _unit(edge: float) -> float:
    return min(max(edge, 0.0), 1.0)


def _classifications(sensor: SensorMetadata) -> tuple[Classification, ...]:
    return tuple(
        Classification(one.label, one.confidence if one.HasField("confidence") else None)
        for one in sensor.annotations.classifications
    )


def _parameters(metadata: UploadMetadata) -> dict[str, Any]:
    """Each value is a `Value` packed in an `Any`; others are kept by name only."""
    found: dict[str, Any] = {}
    for name, packed in metadata.method_parameters.items():
        value = Value()
        found[name] = plain(value) if packed.Unpack(value) else None
    return found


def _time_ns(stamp: Timestamp) -> int:
    """0 for a time that is none: the index counts nanoseconds in 64 bits, which end in 2262."""
    time_ns = stamp.seconds * 1_000_000_000 + stamp.nanos
    return time_ns if abs(time_ns) < _END_OF_TIME_NS else 0


def _dotted(extension: str) -> str:
    return extension if not extension or extension.startswith(".") else "." + extension
