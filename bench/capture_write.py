"""How fast the device stores what it captures, plain and encrypted, beside viam-sdk, MCAP and SQLite.

Run: `python bench/capture_write.py [--seconds 1] [--rounds 3]`. All figures of one run come from one machine, the sides
taking turns; the last line is JSON. Readings go the whole way: encoded, submitted, framed with their checksum, written,
rotated, synced within the second, and finished. Pictures are measured to the page cache, in a burst that fits into it, and
then for good: every file synced and renamed. `records_per_s` and `picture_mb_per_s` are per second of processor time of
the whole process, all its threads and the kernel's part included ("per core"): what it costs the robot, whoever else
computes. The figures by the clock are beside them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from viam.proto.app.datasync import DataCaptureMetadata, DataType, SensorData, SensorMetadata
from viam.utils import dict_to_struct

from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.capture.channel import Record
from gleaner.machine.capture.disk import DiskGuard, DiskSpace
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.writer import Writer, WriterOptions
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary, varint

PICTURE_BYTES = 100_000
PICTURES_IN_BURST = 1500
TIMES = (1_790_000_000_923_456_789, 1_790_000_000_923_999_999)
HEADER = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))
PICTURE_HEADER = encode_header(DataCaptureMetadata(component_name="cam", type=DataType.DATA_TYPE_BINARY_SENSOR))
PLAIN, ENCRYPTED = Keyring(), Keyring((bytes(range(32)),))
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Rate:
    """Per second on the clock, and per second of processor time."""

    records: int
    size_bytes: int
    wall_s: float
    cpu_s: float

    @property
    def per_core(self) -> float:
        return self.records / self.cpu_s

    @property
    def mb_per_s(self) -> float:
        return self.size_bytes / self.wall_s / 1e6


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


def measure(work: Callable[[int], int], finish: Callable[[], object], seconds: float) -> Rate:
    """`work` returns the bytes of one record; `finish` puts all of them on the disk."""
    count = size = 0
    began, cpu_began = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        for _ in range(50):
            size += work(count)
            count += 1
    finish()
    return Rate(count, size, time.perf_counter() - began, time.process_time() - cpu_began)


# --- readings --------------------------------------------------------------------------------------------------------


def encode_only(_folder: Path, seconds: float) -> Rate:
    encoder = ReadingEncoder()
    return measure(lambda n: len(encode_record(encoder.encode(*TIMES, reading(n)))), lambda: None, seconds)


def encode_viam_sdk(_folder: Path, seconds: float) -> Rate:
    return measure(lambda n: len(with_viam_sdk(reading(n))), lambda: None, seconds)


def open_writer(folder: Path, keyring: Keyring, durability_s: float) -> tuple[Writer, LedgerStore]:
    store = LedgerStore(folder, durable=False)
    guard = DiskGuard(folder, lambda _: DiskSpace(10**12, 10**12))
    writer = Writer(folder, store, guard, logging.getLogger("bench"), WriterOptions(durability_s, keyring))
    writer.start()
    return writer, store


def store_readings(folder: Path, seconds: float, keyring: Keyring = PLAIN) -> Rate:
    """From the collector's hand to complete files on the disk, all of it."""
    writer, store = open_writer(folder, keyring, 1.0)
    channel = writer.open_channel(
        "rdk_component_sensor/imu/Readings", is_binary=False, rotate_bytes=262_144, queue_limit=5000
    )
    encoder = ReadingEncoder()

    def work(number: int) -> int:
        body = encoder.encode(*TIMES, reading(number))
        while channel.pending >= channel.queue_limit:
            time.sleep(0.0005)
        writer.submit(channel, Record(HEADER, (body,), len(body)))
        return len(body)

    try:
        rate = measure(work, lambda: writer.finish().result(60), seconds)
        assert writer.stored()[channel.sink.directory].records == rate.records
        return rate
    finally:
        writer.stop()
        store.close()


def store_readings_encrypted(folder: Path, seconds: float) -> Rate:
    return store_readings(folder, seconds, ENCRYPTED)


class SyncedEverySecond:
    """The least that storing takes: one write per record, fsync once a second."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._next = time.perf_counter() + 1

    def write(self, data: bytes) -> int:
        written = os.write(self.fd, data)
        if time.perf_counter() >= self._next:
            os.fdatasync(self.fd)
            self._next += 1
        return written

    def finish(self) -> None:
        os.fdatasync(self.fd)
        os.close(self.fd)


def store_viam_sdk(folder: Path, seconds: float) -> Rate:
    file = SyncedEverySecond(folder / "viam.capture")
    return measure(lambda n: file.write(with_viam_sdk(reading(n))), file.finish, seconds)


def store_mcap(folder: Path, seconds: float) -> Rate:
    """MCAP's own writer as it comes (chunks of 1 MB with a CRC each), uncompressed, messages in JSON."""
    file = (folder / "peer.mcap").open("wb")
    writer = McapWriter(file, compression=CompressionType.NONE)
    writer.start()
    schema = writer.register_schema("Readings", "jsonschema", b'{"type":"object"}')
    channel = writer.register_channel("imu", "json", schema)

    def work(number: int) -> int:
        data = json.dumps(reading(number)).encode()
        writer.add_message(channel, TIMES[1], data, TIMES[0], number)
        return len(data)

    def finish() -> None:
        writer.finish()
        file.flush()
        os.fdatasync(file.fileno())
        file.close()

    return measure(work, finish, seconds)


def store_sqlite(folder: Path, seconds: float) -> Rate:
    """One row per reading, JSON, write-ahead log, a commit each second."""
    database = sqlite3.connect(folder / "peer.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE readings (requested INTEGER, received INTEGER, value TEXT)")
    database.execute("BEGIN")
    next_commit = [time.perf_counter() + 1]

    def work(number: int) -> int:
        text = json.dumps(reading(number))
        database.execute("INSERT INTO readings VALUES (?,?,?)", (*TIMES, text))
        if time.perf_counter() >= next_commit[0]:
            database.execute("COMMIT")
            database.execute("BEGIN")
            next_commit[0] += 1
        return len(text)

    def finish() -> None:
        database.execute("COMMIT")
        database.close()

    return measure(work, finish, seconds)


# --- pictures --------------------------------------------------------------------------------------------------------


def burst(folder: Path, keyring: Keyring, *, synced: bool) -> Rate:
    """A burst of pictures to the page cache, or until all are on the disk under their final names."""
    writer, store = open_writer(folder, keyring, 1.0 if synced else 600.0)
    channel = writer.open_channel(
        "rdk_component_camera/cam/ReadImage", is_binary=True, rotate_bytes=1, queue_limit=PICTURES_IN_BURST
    )
    payload = os.urandom(PICTURE_BYTES)
    count = PICTURES_IN_BURST // (5 if synced else 1)
    began, cpu_began = time.perf_counter(), time.process_time()
    try:
        for _ in range(count):
            record = Record(PICTURE_HEADER, encode_binary(*TIMES, payload), PICTURE_BYTES)
            while not writer.submit(channel, record):
                time.sleep(0.001)
        if synced:
            writer.finish().result(120)
        while writer.stored()[channel.sink.directory].records < count:
            time.sleep(0.0005)
        return Rate(count, count * PICTURE_BYTES, time.perf_counter() - began, time.process_time() - cpu_began)
    finally:
        writer.stop(120)
        store.close()


def bare_burst(folder: Path) -> Rate:
    """What the file system alone takes for it: a new file for each picture and one write, no checksum, no metadata."""
    payload = os.urandom(PICTURE_BYTES)
    began, cpu_began = time.perf_counter(), time.process_time()
    for number in range(PICTURES_IN_BURST):
        fd = os.open(folder / f"{number}.jpeg", os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(fd, payload)
        os.close(fd)
    size = PICTURES_IN_BURST * PICTURE_BYTES
    return Rate(PICTURES_IN_BURST, size, time.perf_counter() - began, time.process_time() - cpu_began)


PICTURES: dict[str, Callable[[Path], Rate]] = {
    "pictures_bare": bare_burst,
    "pictures": lambda folder: burst(folder, PLAIN, synced=False),
    "pictures_encrypted": lambda folder: burst(folder, ENCRYPTED, synced=False),
    "pictures_synced": lambda folder: burst(folder, PLAIN, synced=True),
}
READINGS: dict[str, Callable[[Path, float], Rate]] = {
    "encode": encode_only,
    "encode_viam_sdk": encode_viam_sdk,
    "store_readings": store_readings,
    "store_readings_encrypted": store_readings_encrypted,
    "store_readings_viam_sdk": store_viam_sdk,
    "store_readings_mcap": store_mcap,
    "store_readings_sqlite": store_sqlite,
}


def run(seconds: float, rounds: int, folder: Path, memory: Path | None) -> dict[str, list[Rate]]:
    """Each round in new folders, which stay until the end: ext4 is slow to create files where some were just deleted."""
    rates: dict[str, list[Rate]] = {}
    for number in range(rounds):
        for name, measured in READINGS.items():
            place = folder / f"{name}-{number}"
            place.mkdir()
            rates.setdefault(name, []).append(measured(place, seconds))
        for name, measured_burst in PICTURES.items():
            for where, parent in (("", folder), ("_in_memory", memory)):
                if parent is None or (where and "synced" in name):
                    continue
                place = parent / f"{name}-{number}"
                place.mkdir()
                rates.setdefault(name + where, []).append(measured_burst(place))
    return rates


def figures_of(rates: dict[str, list[Rate]]) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    in_memory = "pictures_in_memory" in rates
    for name, each in rates.items():
        per_core = statistics.median(rate.per_core for rate in each)
        mb_per_s = statistics.median(rate.mb_per_s for rate in each)
        per_s = statistics.median(rate.records / rate.wall_s for rate in each)
        print(f"{name:30} {per_core:10,.0f} records/s of a core {per_s:10,.0f}/s {mb_per_s:8.1f} MB/s")
        figures[f"{name}_per_s"] = round(per_s)
        figures[f"{name}_mb_per_s"] = round(mb_per_s, 1)

    def ratio(first: str, second: str) -> float:
        """Of rounds side by side."""
        pairs = zip(rates[first], rates[second], strict=True)
        return round(statistics.median(a.per_core / b.per_core for a, b in pairs), 2)

    def slower(name: str, where: str = "") -> float:
        pairs = zip(rates[name + where], rates[f"{name}_encrypted{where}"], strict=True)
        return round(statistics.median(a.cpu_s / a.records / (b.cpu_s / b.records) for a, b in pairs), 3)

    figures |= {
        "records_per_s": round(statistics.median(rate.per_core for rate in rates["store_readings"])),
        "picture_mb_per_s": round(statistics.median(r.per_core * PICTURE_BYTES / 1e6 for r in rates["pictures"]), 1),
        "x_viam_sdk": ratio("store_readings", "store_readings_viam_sdk"),
        "x_mcap": ratio("store_readings", "store_readings_mcap"),
        "x_sqlite": ratio("store_readings", "store_readings_sqlite"),
        "encrypted_x": slower("store_readings"),
        # On a file system the second burst pays for the first one's dirty pages: in memory they are alike.
        "encrypted_pictures_x": slower("pictures", "_in_memory" if in_memory else ""),
        "x_bare_files": ratio("pictures", "pictures_bare"),
        "x_bare_files_in_memory": ratio("pictures_in_memory", "pictures_bare_in_memory") if in_memory else None,
        "encode_times_viam_sdk": ratio("encode", "encode_viam_sdk"),
    }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure of each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="capture-bench-") as folder,
        tempfile.TemporaryDirectory(prefix="capture-bench-", dir=MEMORY if MEMORY.is_dir() else None) as memory,
    ):
        in_memory = Path(memory) if MEMORY.is_dir() else None
        rates = run(options.seconds, options.rounds, Path(folder), in_memory)
        print(json.dumps(figures_of(rates)))


if __name__ == "__main__":
    main()
