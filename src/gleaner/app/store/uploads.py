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
from dataclasses import replace
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
from gleaner.wire.capture_file import CaptureFileError, read_binary, read_capture, sealed_header
from gleaner.wire.sensor_data import MAX_READING_BYTES

AS_SENT = b"\0"
"""How a batch begins that holds a capture file's sealed records as they are; any other batch is JSON."""

_END_OF_TIME_NS = 2**63
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
) -> Upload:
    """`StreamingDataCaptureUpload`: one binary capture whose bytes came in pieces. `digest` is their SHA-256, if known."""
    if payload.size == 0:
        raise InvalidInput("The capture is empty", "Send the picture's bytes.")
    digest = digest or sha256_of(payload)
    requested, received = _time_ns(sensor.time_requested), _time_ns(sensor.time_received)
    annotations = sensor.annotations.SerializeToString(deterministic=True)
    key = idempotency_key or derived_key("binary", *_source(metadata, place), requested, received, annotations, digest)
    declared = metadata.mime_type or _OLD_MIME_TYPES.get(sensor.mime_type, "")
    return _item(metadata, payload, place, key, digest, declared, (requested, received, now_ns), sensor)


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
    times = (modified or created, 0, now_ns)
    return _item(metadata, payload, place, key, digest, metadata.mime_type, times, None, revive=revive)


def from_capture_file(data: bytes, place: Place, key: bytes, now_ns: int, tags: Sequence[str] = ()) -> Upload | None:
    """A `.capture` file as it lies on the machine's disk; None if it holds no readings. Raises InvalidInput."""
    try:
        if readings := _readings_as_sent(data, place, key, now_ns, tuple(tags)):
            return readings
        if binary := read_binary(data):
            header, sensor, content = binary
            metadata = _upload_metadata(header, tuple(tags))
            if metadata.type == DataType.DATA_TYPE_BINARY_SENSOR:
                described, payload = SensorMetadata.FromString(sensor), MemoryPayload(bytes(content))
                return from_stream(metadata, described, payload, place, now_ns, idempotency_key=key)
        capture = read_capture(data)
    except (CaptureFileError, DecodeError) as err:
        raise InvalidInput(f"Not a readable capture file: {err}", "It stays on the machine; look at it there.") from err
    if not capture.records:
        return None
    metadata = as_upload_metadata(capture.metadata, tags)
    if metadata.type == DataType.DATA_TYPE_TABULAR_SENSOR:
        return _readings(metadata, capture.records, place, now_ns, key)
    record = capture.records[0]
    return from_stream(metadata, record.metadata, MemoryPayload(record.binary), place, now_ns, idempotency_key=key)


def decode_readings(payload: bytes) -> list[tuple[int, int, dict[str, Any]]]:
    """(time requested ns, time received ns, data) of a stored batch, in the order they were captured."""
    if not payload.startswith(AS_SENT):
        return [(requested, received, data) for requested, received, data in json.loads(payload)]
    found = decoded(payload, len(AS_SENT))
    if found is None:
        raise ValueError("a stored batch of readings is none")
    run = found.run
    return list(zip(run.requested_ns.tolist(), run.received_ns.tolist(), found.documents(), strict=True))


def _item(
    metadata: UploadMetadata,
    payload: Payload,
    place: Place,
    key: bytes,
    digest: bytes,
    declared_mime: str,
    times_ns: tuple[int, int, int],
    sensor: SensorMetadata | None,
    *,
    revive: bool = False,
) -> Upload:
    """`times_ns` is (requested, received, now); what is missing falls back to the next one."""
    requested, received, now = times_ns
    path = PurePosixPath(metadata.file_name.replace("\\", "/")) if metadata.file_name else _NO_PATH
    extension = metadata.file_extension or path.suffix
    found = sniff.sniff(payload.head(sniff.HEAD_BYTES), mime_type=declared_mime, file_ext=extension)
    extension = _dotted(extension) or sniff.extension_of(found.mime_type)
    name = path.name
    if name and not name.lower().endswith(extension.lower()):
        name += extension  # the SDK sends stem and extension apart
    info = RecordInfo(
        place=place,
        idempotency_key=key,
        digest=digest,
        size=payload.size,
        component_type=metadata.component_type,
        component_name=metadata.component_name,
        method=metadata.method_name,
        mime_type=found.mime_type,
        kind=found.kind,
        file_name=name,
        file_ext=extension,
        captured_ns=requested or received or now,
        received_ns=received or requested or now,
        synced_ns=now,
        width=found.width,
        height=found.height,
        tags=clean_tags(metadata.tags),
        dataset_ids=tuple(dict.fromkeys(metadata.dataset_ids)),
        boxes=_boxes(sensor),
        classifications=_classifications(sensor),
        method_parameters=_parameters(metadata),
    )
    return Upload(info, payload, revive)


def _readings_as_sent(data: bytes, place: Place, key: bytes, now_ns: int, tags: tuple[str, ...]) -> Upload | None:
    """The readings of an undamaged file of ours, kept as they are: nothing is made of them but what the index must know."""
    header = sealed_header(data)
    if header is None:
        return None
    message, at = header
    metadata = _upload_metadata(message, tags)
    if metadata.type != DataType.DATA_TYPE_TABULAR_SENSOR:
        return None
    found = decoded(data, at)
    if found is None:
        return None
    payload = MemoryPayload(AS_SENT + memoryview(data)[at:])
    info = _readings_info(metadata, place, key, sha256_of(payload), payload.size, _summary(found), now_ns)
    return Upload(replace(info, mime_type=READINGS_AS_SENT), payload)


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


@lru_cache(maxsize=256)
def _upload_metadata(header: bytes, tags: tuple[str, ...]) -> UploadMetadata:
    """All files of a collector begin with the same header. Not to be changed by who gets it."""
    return as_upload_metadata(DataCaptureMetadata.FromString(header), tags)


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


def _boxes(sensor: SensorMetadata | None) -> tuple[Box, ...]:
    if sensor is None:
        return ()
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


def _classifications(sensor: SensorMetadata | None) -> tuple[Classification, ...]:
    if sensor is None:
        return ()
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
