"""MCAP for Foxglove: `/component/method`, pictures as foxglove.CompressedImage, readings as JSON. log_time = time_requested."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from mcap.writer import Writer

from gleaner import __version__
from gleaner.machine.offline.export import Report
from gleaner.machine.offline.output import safe_name, to_json
from gleaner.machine.offline.reading import Opened, Record
from gleaner.machine.offline.to_folder import described

_IMAGES = {"image/jpeg": "jpeg", "image/png": "png", "image/webp": "webp"}
_TIME = {
    "type": "object",
    "title": "time",
    "properties": {"sec": {"type": "integer", "minimum": 0}, "nsec": {"type": "integer", "minimum": 0}},
}
_BYTES = {"type": "string", "contentEncoding": "base64"}
# Foxglove's public schema; what we add beside its fields is ignored there and lets the export be read back whole.
IMAGE_SCHEMA = "foxglove.CompressedImage"
_IMAGE = {
    "title": IMAGE_SCHEMA,
    "type": "object",
    "properties": {
        "timestamp": _TIME,
        "frame_id": {"type": "string"},
        "data": _BYTES,
        "format": {"type": "string"},
    },
}
_BINARY = {"title": "gleaner.Binary", "type": "object", "properties": {"data": _BYTES, "mime_type": {"type": "string"}}}
_TYPES = {bool: "boolean", float: "number", str: "string", type(None): "null"}


class McapSink:
    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._writer = Writer(self._file)
        self._writer.start(profile="", library=f"gleaner {__version__}")
        self._channels: dict[tuple[str, str, bool], int] = {}
        self._sequence: dict[int, int] = {}

    def add(self, file: Opened, record: Record) -> None:
        image = _IMAGES.get(file.mime_type, "")
        topic = f"/{safe_name(file.component)}/{safe_name(file.method)}"
        key = (topic, file.api, bool(image)) if file.is_binary else (topic, file.api, False)
        if key not in self._channels:
            self._channels[key] = self._channel(topic, file, record, image)
        channel = self._channels[key]
        sequence = self._sequence.get(channel, 0)
        self._sequence[channel] = sequence + 1
        self._writer.add_message(
            channel_id=channel,
            log_time=record.requested_ns,
            publish_time=record.received_ns,
            sequence=sequence,
            data=to_json(_message(file, record, image)).encode(),
        )

    def _channel(self, topic: str, file: Opened, record: Record, image: str) -> int:
        if image:
            name, schema = IMAGE_SCHEMA, _IMAGE
        elif file.is_binary:
            name, schema = "gleaner.Binary", _BINARY
        else:
            name = f"gleaner.{safe_name(file.component)}.{safe_name(file.method)}"
            schema = {"title": name, "type": "object", "properties": {"data": _schema(record.data)}}
        schema_id = self._writer.register_schema(name=name, encoding="jsonschema", data=json.dumps(schema).encode())
        metadata = {"api": file.api, "component": file.component, "method": file.method}
        return self._writer.register_channel(
            topic=topic, message_encoding="json", schema_id=schema_id, metadata=metadata
        )

    def close(self, report: Report) -> None:
        counts = {"files": str(report.files), "records": str(report.records), "damaged": json.dumps(report.damaged)}
        self._writer.add_metadata("gleaner export", counts)
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.close()

    def abandon(self) -> None:
        self._file.close()


def _message(file: Opened, record: Record, image: str) -> dict[str, Any]:
    said = described(file, record)
    if not isinstance(record.data, bytes):
        return {**said, "data": record.data}
    said["data"] = base64.b64encode(record.data).decode()
    if image:
        seconds, nanos = divmod(record.requested_ns, 1_000_000_000)
        said |= {"timestamp": {"sec": seconds, "nsec": nanos}, "frame_id": file.component, "format": image}
    return said


def _schema(value: Any) -> dict[str, Any]:
    """What the first reading looks like: Foxglove offers its numbers for plots. Later ones may have more."""
    if isinstance(value, dict):
        return {"type": "object", "properties": {key: _schema(item) for key, item in value.items()}}
    if isinstance(value, list):
        return {"type": "array", "items": _schema(value[0]) if value else {}}
    return {"type": _TYPES.get(type(value), "string")}
