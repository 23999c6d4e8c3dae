"""Captures as weeks without a network leave them, for `footprint.py`: several collectors, some tagged, some of readings."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.directory import collector_path, file_stem
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary

SPAN_NS = 21 * 86_400 * 10**9
PICTURE = b"\xff\xd8\xff" + os.urandom(400)


@dataclass(frozen=True)
class Kind:
    """One collector, and which share of the files is its."""

    api: str
    component: str
    method: str
    share: float
    records: int = 0
    """Readings in a file; 0: one picture each."""
    tags: tuple[str, ...] = ()

    @property
    def directory(self) -> str:
        return collector_path(self.api, self.component, self.method)

    @property
    def header(self) -> bytes:
        binary, tabular = DataType.DATA_TYPE_BINARY_SENSOR, DataType.DATA_TYPE_TABULAR_SENSOR
        return encode_header(
            DataCaptureMetadata(
                component_type=self.api,
                component_name=self.component,
                method_name=self.method,
                type=tabular if self.records else binary,
                mime_type="" if self.records else "image/jpeg",
                file_extension=".dat" if self.records else ".jpeg",
                tags=self.tags,
            )
        )


KINDS = (
    Kind("rdk:component:camera", "old-front", "GetImages", 0.45),
    Kind("rdk:component:camera", "old-night", "GetImages", 0.10, tags=("night",)),
    Kind("rdk:component:sensor", "old-climate", "Readings", 0.25, records=3),
    Kind("rdk:component:arm", "old-arm", "JointPositions", 0.15, records=8),
    Kind("rdk:component:power_sensor", "old-battery", "Readings", 0.05, records=5, tags=("night",)),
)


@dataclass
class Made:
    files: int = 0
    pictures: int = 0
    readings: int = 0
    size_bytes: int = 0


def make_backlog(root: Path, count: int) -> Made:
    """So many files of 300 to 900 bytes, each with content of its own; the newest is minutes old."""
    made = Made()
    for kind in KINDS:
        folder = root / kind.directory
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in _files(kind, max(1, round(count * kind.share))):
            handle = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(handle, content)
            os.close(handle)
            made.files += 1
            made.size_bytes += len(content)
            made.pictures += not kind.records
            made.readings += kind.records
    return made


def _files(kind: Kind, count: int) -> Iterator[tuple[str, bytes]]:
    header, encoder = kind.header, ReadingEncoder()
    step_ns = SPAN_NS // count
    began_ns = (time.time_ns() - 300 * 10**9 - SPAN_NS) // 1000 * 1000
    for number in range(count):
        at_ns = began_ns + number * step_ns // 1000 * 1000
        if kind.records:
            bodies = [
                encoder.encode(at_ns + i, at_ns + i + 1, {"readings": {"celsius": 20 + number / 1000, "number": i}})
                for i in range(kind.records)
            ]
        else:
            bodies = [b"".join(encode_binary(at_ns, at_ns + 1, PICTURE + number.to_bytes(4, "big")))]
        yield f"{file_stem(at_ns)}.capture", header + b"".join(map(encode_record, bodies))
