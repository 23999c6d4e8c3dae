"""How fast the device stores what it captures: our encoder and writer beside viam-sdk's dict_to_struct + protobuf.

Run: `python bench/capture_write.py [--seconds 2]`. All figures of one run come from one machine at one time; the last line
is JSON. "encode" is CPU only; "store" writes records to a file in a temporary folder, fsync once a second, as on a device.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from viam.proto.app.datasync import DataCaptureMetadata, DataType, SensorData, SensorMetadata
from viam.utils import dict_to_struct

from gleaner.machine.capture.disk import DiskGuard, DiskSpace
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.writer import Record, Writer
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary, varint

PICTURE_BYTES = 60_000
TIMES = (1_790_000_000_123_456_789, 1_790_000_000_123_999_999)
HEADER = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))
PICTURE_HEADER = encode_header(DataCaptureMetadata(component_name="cam", type=DataType.DATA_TYPE_BINARY_SENSOR))


def reading(number: int) -> dict[str, Any]:
    """What an inertial sensor with a battery says: 400 bytes on the wire."""
    return {
        "readings": {
            "acceleration": {"x": number * 0.01, "y": -0.3, "z": 9.81},
            "angular_velocity": {"x": 0.1, "y": number * 0.02, "z": 0.0},
            "orientation": [0.0, 0.1, 0.2, float(number)],
            "battery": {"volts": 12.1, "percent": 87, "charging": False},
            "state": "driving",
        }
    }


def timestamp(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // 10**9, nanos=time_ns % 10**9)


def with_viam_sdk(value: dict[str, Any]) -> bytes:
    metadata = SensorMetadata(time_requested=timestamp(TIMES[0]), time_received=timestamp(TIMES[1]))
    body = SensorData(metadata=metadata, struct=dict_to_struct(value)).SerializeToString()
    return varint(len(body)) + body


def rate(work: Callable[[int], int], seconds: float) -> tuple[float, float]:
    """Calls per second and MB per second; `work` returns the bytes of one call."""
    count = size = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        for _ in range(50):
            size += work(count)
            count += 1
    return count / elapsed, size / elapsed / 1e6


def encode_rates(seconds: float) -> dict[str, tuple[float, float]]:
    encoder = ReadingEncoder()
    return {
        "encode": rate(lambda n: len(encode_record(encoder.encode(*TIMES, reading(n)))), seconds),
        "encode_viam_sdk": rate(lambda n: len(with_viam_sdk(reading(n))), seconds),
    }


def store_rates(folder: Path, seconds: float) -> dict[str, tuple[float, float]]:
    store = LedgerStore(folder, durable=False)
    writer = Writer(folder, store, DiskGuard(folder, lambda _: DiskSpace(10**12, 10**12)), logging.getLogger("bench"))
    writer.start()
    try:
        return {
            "store_readings": _through_writer(writer, seconds, is_binary=False),
            "store_readings_viam_sdk": _plain_file(folder / "viam.capture", seconds),
            "store_pictures": _through_writer(writer, seconds, is_binary=True),
        }
    finally:
        writer.stop()
        store.close()


def _through_writer(writer: Writer, seconds: float, *, is_binary: bool) -> tuple[float, float]:
    """From the collector's hand to a file, all of it: queue, thread, framing, checksum, rotation, fsync, rename."""
    name = "rdk_component_camera/cam/ReadImage" if is_binary else "rdk_component_sensor/imu/Readings"
    channel = writer.open_channel(name, is_binary=is_binary, rotate_bytes=262_144, queue_limit=500)
    encoder, payload = ReadingEncoder(), os.urandom(PICTURE_BYTES)
    began, number = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        if is_binary:
            record = Record(PICTURE_HEADER, encode_binary(*TIMES, payload), PICTURE_BYTES)
        else:
            body = encoder.encode(*TIMES, reading(number))
            record = Record(HEADER, (body,), len(body))
        while channel.pending >= channel.queue_limit:
            time.sleep(0.0005)
        writer.submit(channel, record)
        number += 1
    writer.finish().result(60)
    elapsed = time.perf_counter() - began
    stored = writer.stored()[name]
    return stored.records / elapsed, stored.size_bytes / elapsed / 1e6


def _plain_file(path: Path, seconds: float) -> tuple[float, float]:
    """viam-sdk's encoding with the least that storing takes: one write per record, fsync once a second."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    next_sync = time.perf_counter() + 1

    def work(number: int) -> int:
        nonlocal next_sync
        written = os.write(fd, with_viam_sdk(reading(number)))
        if time.perf_counter() >= next_sync:
            os.fdatasync(fd)
            next_sync += 1
        return written

    try:
        return rate(work, seconds)
    finally:
        os.close(fd)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="capture-bench-") as folder:
        rates = encode_rates(seconds) | store_rates(Path(folder), seconds)
    figures: dict[str, float] = {}
    for name, (per_s, mb_per_s) in rates.items():
        print(f"{name:26} {per_s:10,.0f} records/s {mb_per_s:8.1f} MB/s")
        figures[f"{name}_per_s"] = round(per_s)
        figures[f"{name}_mb_per_s"] = round(mb_per_s, 1)
    figures["encode_times_viam_sdk"] = round(rates["encode"][0] / rates["encode_viam_sdk"][0], 1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
