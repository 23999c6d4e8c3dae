"""A machine that was updated, or set back: what another version or another writer left open, found beside the count."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType, SensorData

from gleaner.machine.capture.at_rest import FileSealer, find_frames
from gleaner.machine.capture.channel import Record
from gleaner.machine.capture.errors import CaptureFromNewer
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.storage import CaptureStorage
from gleaner.machine.sync.local_files import LocalFiles
from gleaner.machine.sync.outgoing import Amounts
from gleaner.machine.sync.scan import Shelf
from gleaner.machine.sync.settings import SyncSettings
from gleaner.wire.capture_file import ENCRYPTED_FAMILY, CaptureFileError, encode_header, encode_record
from gleaner.wire.sensor_data import ReadingEncoder

LOG = logging.getLogger("test.formats")
READINGS = "rdk_component_sensor/s/Readings"
METADATA = DataCaptureMetadata(component_name="s", method_name="Readings", type=DataType.DATA_TYPE_TABULAR_SENSOR)
HEADER = encode_header(METADATA)
BODY = ReadingEncoder().encode(10**18, 10**18, {"readings": {"n": 1}})
NEWER = ENCRYPTED_FAMILY + b"2" + os.urandom(300)


def put(root: Path, name: str, content: bytes) -> Path:
    path = root / READINGS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[CaptureStorage]:
    storage = CaptureStorage(tmp_path, LOG)
    yield storage
    storage.close()


def waiting(storage: CaptureStorage) -> int:
    [row] = storage.ledger({}, "")["collectors"]
    assert row["captured"] == row["waiting"]
    return int(row["waiting"])


def as_viams_writer(message: SensorData) -> bytes:
    """Length and message, without a checksum."""
    body = message.SerializeToString()
    assert len(body) < 128
    return bytes([len(body)]) + body


def test_what_an_older_version_or_viams_server_left_open_is_completed_beside_the_count(
    tmp_path: Path, storage: CaptureStorage
) -> None:
    put(tmp_path, "2026-11-20T10_00_00.000001Z.prog", HEADER + 2 * encode_record(BODY) + encode_record(BODY)[:-2])
    message = SensorData.FromString(BODY)
    plain_header = METADATA.SerializeToString()
    viams = bytes([len(plain_header)]) + plain_header + 4 * as_viams_writer(message) + as_viams_writer(message)[:5]
    put(tmp_path, "2026-11-20T10_00_00.000002Z.prog", viams)
    storage.open()
    assert len(list(tmp_path.rglob("*.prog"))) == 2, "capture does not wait for it"
    storage.count_backlog()
    assert not list(tmp_path.rglob("*.prog"))
    assert waiting(storage) == 6


def test_a_file_that_this_run_writes_is_not_taken_for_one_that_was_left_open(
    tmp_path: Path, storage: CaptureStorage
) -> None:
    left = put(tmp_path, "2026-11-20T10_00_00.000001Z.prog", HEADER + encode_record(BODY))
    storage.open()
    channel = storage.writer.open_channel(READINGS, is_binary=False, rotate_bytes=10**6, queue_limit=100)
    storage.writer.submit(channel, Record(HEADER, (BODY,), 1))
    pause = storage.writer.finish()  # its file is complete; the next one stays open
    pause.result(30)
    storage.writer.submit(channel, Record(HEADER, (BODY,), 1))
    storage.count_backlog()
    assert not left.exists()
    storage.writer.finish().result(30)
    assert waiting(storage) == 3
    assert len(list(tmp_path.rglob("*.capture"))) == 3


@pytest.mark.parametrize("suffix", ["prog", "capture"])
def test_a_file_of_a_newer_version_waits(
    tmp_path: Path, storage: CaptureStorage, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(tmp_path, f"2026-11-20T10_00_00.000001Z.{suffix}", NEWER)
    storage.open()
    storage.count_backlog()
    store = LedgerStore(tmp_path, durable=False)
    files = LocalFiles(SyncSettings(str(tmp_path), "part", "secret", "http://127.0.0.1:1"), store, LOG)
    for _ in range(2):
        outgoing, big = files.next_batch(_deque(files), Amounts(), set())
        assert (outgoing, big) == (None, [])
    store.close()
    assert path.read_bytes() == NEWER
    assert not (tmp_path / "failed").exists()
    assert sum("newer version" in line for line in caplog.messages) == 1


def _deque(files: LocalFiles) -> deque[Shelf]:

    return deque(files.shelves())


def test_a_damaged_digit_is_damage_and_no_newer_version() -> None:
    beginning = FileSealer(os.urandom(32)).beginning
    with pytest.raises(CaptureFileError, match="damaged"):
        find_frames(ENCRYPTED_FAMILY + b"3" + beginning[8:])
    with pytest.raises(CaptureFromNewer, match="format 2"):
        find_frames(NEWER)
