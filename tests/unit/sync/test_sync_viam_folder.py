"""A folder that viam-server has written is taken over as it is, and what we write its readers read."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Struct
from sync_support import captures, ledger_row, put, put_pictures, put_readings, syncing, until
from viam.proto.app.datasync import DataCaptureMetadata, DataType, SensorData

from gleaner.machine.capture.directory import CaptureDirectory
from gleaner.wire.capture_file import read_capture
from gleaner.wire.sensor_data import varint
from stand_in_app import StandInApp

pytestmark = pytest.mark.usefixtures("said", "hurry")
SENSOR, CAMERA = "rdk_component_sensor/imu/Readings", "rdk_component_camera/cam/ReadImage"


def framed(message: DataCaptureMetadata | SensorData) -> bytes:
    """Viam's framing, without our checksum."""
    body = message.SerializeToString()
    return varint(len(body)) + body


def header(kind: int, method: str) -> bytes:
    return framed(
        DataCaptureMetadata(component_name="x", method_name=method, type=DataType.ValueType(kind), tags=["viam"])
    )


def record(number: int, picture: bytes = b"") -> bytes:
    made = SensorData(binary=picture) if picture else SensorData(struct=Struct())
    if not picture:
        made.struct.update({"readings": {"n": number}})
    made.metadata.time_requested.seconds = made.metadata.time_received.seconds = 1_700_000_000 + number
    return framed(made)


def read_as_viam_does(data: bytes) -> tuple[DataCaptureMetadata, list[SensorData]]:
    """Length, message, length, message …, whatever fields they have; a cut tail ends it."""
    messages, at = [], 0
    while at < len(data):
        size = shift = 0
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if at + size > len(data):
            break
        messages.append(data[at : at + size])
        at += size
    return DataCaptureMetadata.FromString(messages[0]), [SensorData.FromString(each) for each in messages[1:]]


async def test_a_folder_of_viam_server_is_adopted_unfinished_files_included(tmp_path: Path, app: StandInApp) -> None:
    readings = header(2, "Readings")
    put(tmp_path / SENSOR / "a.capture", readings + record(1) + record(2))
    put(tmp_path / SENSOR / "b.prog", readings + record(3) + record(4) + record(5)[:-3])  # cut by a crash
    put(tmp_path / SENSOR / "c.prog", readings)
    put(tmp_path / CAMERA / "d.capture", header(1, "ReadImage") + record(6, b"\xff\xd8picture"))
    put(tmp_path / "failed" / SENSOR / "e.capture", readings + record(7))
    put(tmp_path / "sequences" / "f.progseq", b"{}")
    with CaptureDirectory(tmp_path, logging.getLogger("test")):
        assert not list(tmp_path.rglob("*.prog"))
        async with syncing(tmp_path, app):
            await until(lambda: not captures(tmp_path))
    sent = {entry.name: read_capture(content) for entry, content in app.files.values()}
    assert {name: len(content.records) for name, content in sent.items()} == {
        "a.capture": 2,
        "b.capture": 2,
        "d.capture": 1,
    }
    assert sent["d.capture"].records[0].binary == b"\xff\xd8picture"
    assert ledger_row(tmp_path, "Readings")["synced"] == 4
    assert ledger_row(tmp_path, "ReadImage")["synced"] == 1
    assert (tmp_path / "failed" / SENSOR / "e.capture").exists()


def test_our_files_are_read_by_viams_rules(tmp_path: Path) -> None:
    path = put_readings(tmp_path, "a.capture", 3)
    [picture] = put_pictures(tmp_path, 1, size=500)
    metadata, records = read_as_viam_does(path.read_bytes())
    assert metadata.component_name == "imu"
    assert [r.struct.fields["readings"].struct_value.fields["n"].number_value for r in records] == [0, 1, 2]
    metadata, [record_of_picture] = read_as_viam_does(picture.read_bytes())
    assert metadata.type == DataType.DATA_TYPE_BINARY_SENSOR
    assert len(record_of_picture.binary) == 500


async def test_one_core_is_enough(tmp_path: Path, app: StandInApp) -> None:
    """Viam's default of cores / 2 threads is none on such a computer."""
    put_pictures(tmp_path, 50)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        async with syncing(tmp_path, app):
            await until(lambda: not captures(tmp_path))
    finally:
        os.sched_setaffinity(0, before)
    assert len(app.files) == 50


async def test_a_stop_in_the_middle_of_a_big_file_goes_on_there(tmp_path: Path, app: StandInApp) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "capture"
    root.mkdir()
    big = put(outside / "film.mp4", os.urandom(12_000_000))
    async with syncing(root, app, additional_sync_paths=(str(outside),)):
        await until(lambda: any(len(held) > 1_000_000 for held in app.partial.values()))
    assert big.exists()
    assert not app.files
    async with syncing(root, app, additional_sync_paths=(str(outside),)):
        await until(lambda: not big.exists())
    assert app.piece_bytes < 12_000_000 + 3_000_000, "it was sent from its beginning again"
    assert len(app.files) == 1
