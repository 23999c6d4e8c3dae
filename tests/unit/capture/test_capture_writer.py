from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture import files as files_module
from gleaner.machine.capture.channel import Channel, Record
from gleaner.machine.capture.disk import RESERVE_BYTES, DiskGuard, DiskSpace, is_full
from gleaner.machine.capture.files import Files, Root
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.sink import Sink
from gleaner.machine.capture.writer import Writer
from gleaner.wire.capture_file import encode_header, read_capture
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary

LOG = logging.getLogger("test.writer")
READINGS = "rdk_component_sensor/imu/Readings"
PICTURES = "rdk_component_camera/cam/ReadImage"
HEADER = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))
PICTURE_HEADER = encode_header(DataCaptureMetadata(component_name="cam", type=DataType.DATA_TYPE_BINARY_SENSOR))


class Disk:
    """A disk whose free space the test decides."""

    def __init__(self) -> None:
        self.free_bytes = 10**12

    def __call__(self, _path: Path) -> DiskSpace:
        return DiskSpace(10**12, self.free_bytes)


def reading(number: int) -> Record:
    body = ReadingEncoder().encode(10**18 + number, 10**18 + number, {"readings": {"n": number}})
    return Record(HEADER, (body,), len(body))


def picture(payload: bytes) -> Record:
    return Record(PICTURE_HEADER, encode_binary(1, 2, payload), len(payload))


def numbers(root: Path) -> list[int]:
    found = []
    for path in sorted((root / READINGS).glob("*.capture")):
        for record in read_capture(path.read_bytes()).records:
            found.append(int(record.struct.fields["readings"].struct_value.fields["n"].number_value))
    return found


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LedgerStore]:
    store = LedgerStore(tmp_path, durable=False)
    yield store
    store.close()


@pytest.fixture
def writer(tmp_path: Path, store: LedgerStore, disk: Disk) -> Iterator[Writer]:
    writer = Writer(tmp_path, store, DiskGuard(tmp_path, disk), LOG)
    writer.start()
    yield writer
    writer.stop()


def readings_channel(writer: Writer, rotate_bytes: int = 10**6, queue_limit: int = 1000) -> Channel:
    return writer.open_channel(READINGS, is_binary=False, rotate_bytes=rotate_bytes, queue_limit=queue_limit)


def test_readings_go_on_in_one_file_until_it_is_finished(writer: Writer, tmp_path: Path) -> None:
    channel = readings_channel(writer)
    for n in range(50):
        assert writer.submit(channel, reading(n))
    writer.finish().result(10)
    assert numbers(tmp_path) == list(range(50))
    assert len(list((tmp_path / READINGS).iterdir())) == 1
    writer.submit(channel, reading(50))
    writer.finish(channel).result(10)
    assert len(list((tmp_path / READINGS).iterdir())) == 2


def test_a_file_past_its_size_is_completed_and_a_new_one_begun(writer: Writer, tmp_path: Path) -> None:
    channel = readings_channel(writer, rotate_bytes=300)
    for n in range(40):
        writer.submit(channel, reading(n))
    writer.finish().result(10)
    assert numbers(tmp_path) == list(range(40))
    sizes = [path.stat().st_size for path in (tmp_path / READINGS).iterdir()]
    assert len(sizes) > 3
    assert max(sizes) < 300 + 2 * len(HEADER) + 100
    stored = writer.stored()[READINGS]
    assert (stored.records, stored.files, stored.size_bytes) == (40, len(sizes), sum(sizes))


def test_each_picture_is_a_file_of_its_own(writer: Writer, tmp_path: Path) -> None:
    channel = writer.open_channel(PICTURES, is_binary=True, rotate_bytes=1, queue_limit=100)
    for n in range(20):
        writer.submit(channel, picture(b"picture %d" % n))
    writer.finish().result(10)
    files = sorted((tmp_path / PICTURES).glob("*.capture"))
    payloads = [read_capture(f.read_bytes()).records[0].binary for f in files]
    assert payloads == [b"picture %d" % n for n in range(20)]
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}
    assert (tmp_path / PICTURES).stat().st_mode & 0o777 == 0o700


def test_stopping_writes_what_is_queued(tmp_path: Path, store: LedgerStore, disk: Disk) -> None:
    writer = Writer(tmp_path, store, DiskGuard(tmp_path, disk), LOG)
    writer.start()
    channel = readings_channel(writer)
    for n in range(200):
        writer.submit(channel, reading(n))
    writer.stop()
    assert numbers(tmp_path) == list(range(200))
    assert not list(tmp_path.rglob("*.prog"))


def test_a_full_queue_drops_the_newest_and_counts_it(tmp_path: Path, store: LedgerStore, disk: Disk) -> None:
    writer = Writer(tmp_path, store, DiskGuard(tmp_path, disk), LOG)
    channel = readings_channel(writer, queue_limit=3)
    assert [writer.submit(channel, reading(n)) for n in range(5)] == [True, True, True, False, False]
    writer.start()
    writer.stop()
    assert numbers(tmp_path) == [0, 1, 2]
    assert store.counts()[READINGS].dropped == {"queue_full": 2}


def test_a_full_disk_drops_and_counts_then_goes_on_by_itself(tmp_path: Path, store: LedgerStore, disk: Disk) -> None:
    guard = DiskGuard(tmp_path, disk)
    writer = Writer(tmp_path, store, guard, LOG)
    channel = readings_channel(writer)
    disk.free_bytes = 10
    writer.start()
    try:
        for n in range(3):
            writer.submit(channel, reading(n))
        writer.finish().result(10)
        assert "full" in channel.error
        disk.free_bytes = 10**12
        guard.check()
        writer.submit(channel, reading(3))
        writer.finish().result(10)
        assert channel.error == ""
    finally:
        writer.stop()
    assert numbers(tmp_path) == [3]
    assert store.counts()[READINGS].dropped == {"disk_full": 3}


def test_the_disk_counts_as_full_until_there_is_clearly_room_again() -> None:
    below, above = RESERVE_BYTES - 1, RESERVE_BYTES + 1
    assert is_full(DiskSpace(10**12, below), was_full=False)
    assert not is_full(DiskSpace(10**12, above), was_full=False)
    assert is_full(DiskSpace(10**12, above), was_full=True)
    assert not is_full(DiskSpace(10**12, 2 * above), was_full=True)
    assert not is_full(DiskSpace(10**9, 3 * 10**7), was_full=False)  # of a small card, only a fiftieth


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "quota"), (errno.EIO, "io_error")]
)
def test_a_failed_write_costs_one_record_and_leaves_a_valid_file(
    code: int, reason: str, writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = readings_channel(writer)
    writer.submit(channel, reading(0))
    writer.finish(channel).result(10)
    writer.submit(channel, reading(1))
    writer.finish(writer.open_channel("x/y/z", is_binary=False, rotate_bytes=1, queue_limit=1)).result(10)

    def torn(fd: int, buffers: list[bytes]) -> int:
        os.write(fd, b"".join(buffers)[:7])
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(files_module.os, "writev", torn)
        writer.submit(channel, reading(2))
        writer.finish(writer.open_channel("x/y/z", is_binary=False, rotate_bytes=1, queue_limit=1)).result(10)
    assert channel.error
    writer.submit(channel, reading(3))
    writer.finish().result(10)
    assert channel.error == ""
    assert numbers(tmp_path) == [0, 1, 3]
    assert writer.counts()[READINGS].dropped == {reason: 1}
    assert writer.stored()[READINGS].records == 3


def test_a_capture_folder_that_is_removed_is_made_again(writer: Writer, tmp_path: Path) -> None:
    channel = readings_channel(writer)
    writer.submit(channel, reading(0))
    other = writer.open_channel("x/y/z", is_binary=False, rotate_bytes=1, queue_limit=1)
    writer.finish(other).result(10)
    for path in (tmp_path / READINGS).iterdir():
        path.unlink()
    (tmp_path / READINGS).rmdir()
    writer.finish(channel).result(10)
    writer.submit(channel, reading(1))
    writer.finish(channel).result(10)
    assert numbers(tmp_path) == [1]
    assert writer.counts()[READINGS].dropped == {"removed": 1}  # what was in the file is lost, and said to be
    assert writer.stored()[READINGS].records == 1


def test_two_files_of_one_microsecond_have_two_names(tmp_path: Path) -> None:
    sink = Sink(Root(tmp_path, Files()), READINGS, 10**6, lambda: 1714559405_123456789)
    for n in range(3):
        sink.append(HEADER, [reading(n).parts])
        file = sink.retire()
        assert file is not None
        os.close(file.fd)
        Path(file.path).rename(file.complete_path)
    assert len(list((tmp_path / READINGS).glob("*.capture"))) == 3
    assert numbers(tmp_path) == [0, 1, 2]
