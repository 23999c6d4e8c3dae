"""The backlog of earlier runs is counted while this run captures and sync works, and the ledger is exact once it ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.backlog import wait_until_counted
from gleaner.machine.capture.channel import Record
from gleaner.machine.capture.directory import count_records
from gleaner.machine.capture.ledger import Change, Fate, Leaving, LedgerStore, leave
from gleaner.machine.capture.storage import CaptureStorage
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import ReadingEncoder

LOG = logging.getLogger("test")
READINGS = "rdk_component_sensor/s/Readings"
OLD_FILES = 40
HEADER = encode_header(DataCaptureMetadata(component_name="s", type=DataType.DATA_TYPE_TABULAR_SENSOR))
BODY = ReadingEncoder().encode(10**18, 10**18, {"readings": {"n": 1}})


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[CaptureStorage]:
    for number in range(OLD_FILES):
        path = tmp_path / READINGS / f"{number:03d}.capture"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(HEADER + 3 * encode_record(BODY))
    storage = CaptureStorage(tmp_path, LOG)
    storage.open()
    yield storage
    storage.close()


def capture(storage: CaptureStorage, records: int) -> None:
    channel = storage.writer.open_channel(READINGS, is_binary=False, rotate_bytes=1, queue_limit=1000)
    for _ in range(records):
        assert storage.writer.submit(channel, Record(HEADER, (BODY,), 1))
    storage.writer.finish().result(30)


def row(storage: CaptureStorage) -> tuple[int, int, int]:
    [only] = storage.ledger({}, "")["collectors"]
    return only["captured"], only["waiting"], only["synced"]


def remove_all(root: Path, store: LedgerStore) -> int:
    """As sync lets go of files: only once they may leave."""
    wait_until_counted(root)
    gone = 0
    for path in sorted((root / READINGS).glob("*.capture")):
        status = path.stat()
        file = Leaving(str(path), "", status.st_ino, status.st_size, status.st_mtime_ns)
        records = count_records(path)
        store.record([], [(file, Change(READINGS, Fate.SYNCED, "", records, 1, status.st_size))], [])
        leave(file)
        gone += records
    return gone


def test_capture_begins_before_the_count_and_nothing_is_counted_twice(storage: CaptureStorage) -> None:
    assert storage.ledger({}, "")["counting"]
    capture(storage, 5)
    assert row(storage) == (5, 5, 0)
    storage.count_backlog()
    assert not storage.ledger({}, "")["counting"]
    assert row(storage) == (3 * OLD_FILES + 5, 3 * OLD_FILES + 5, 0)
    capture(storage, 5)
    assert row(storage)[0] == 3 * OLD_FILES + 10


def test_files_leave_only_after_the_count_and_the_ledger_is_exact(tmp_path: Path, storage: CaptureStorage) -> None:
    store = LedgerStore(tmp_path, durable=True)
    removed: list[int] = []
    remover = threading.Thread(target=lambda: removed.append(remove_all(tmp_path, store)))
    remover.start()
    writing = threading.Thread(target=lambda: capture(storage, 50))
    writing.start()
    storage.count_backlog()
    writing.join()
    remover.join()
    store.close()
    captured = 3 * OLD_FILES + 50
    assert row(storage) == (captured, captured - removed[0], removed[0])


def test_a_storage_closed_before_its_count_lets_sync_go_on(tmp_path: Path, storage: CaptureStorage) -> None:
    storage.close()
    wait_until_counted(tmp_path)
    storage.count_backlog()


def test_a_second_start_after_no_count_counts_everything(tmp_path: Path, storage: CaptureStorage) -> None:
    capture(storage, 5)
    storage.close()
    again = CaptureStorage(tmp_path, LOG)
    again.open()
    again.count_backlog()
    assert row(again) == (3 * OLD_FILES + 5, 3 * OLD_FILES + 5, 0)
    again.close()
