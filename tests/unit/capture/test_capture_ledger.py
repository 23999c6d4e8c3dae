from __future__ import annotations

import logging
from pathlib import Path

import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.channel import Record
from gleaner.machine.capture.ledger import Change, DropReason, Fate, Leaving, LedgerStore
from gleaner.machine.capture.ledger_rows import iso
from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.capture.storage import CaptureStorage, CollectorView
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import ReadingEncoder

LOG = logging.getLogger("test.ledger")
READINGS = "rdk_component_sensor/imu/Readings"
HEADER = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))


def body(number: int) -> bytes:
    return ReadingEncoder().encode(10**18, 10**18, {"readings": {"n": number}})


def put_file(root: Path, name: str, records: int) -> Path:
    path = root / READINGS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HEADER + b"".join(encode_record(body(n)) for n in range(records)))
    return path


def leaving(path: Path, target: str = "") -> Leaving:
    status = path.stat()
    return Leaving(str(path), target, status.st_ino, status.st_size, status.st_mtime_ns)


def open_storage(root: Path) -> CaptureStorage:
    storage = CaptureStorage(root, LOG)
    storage.open()
    storage.count_backlog()
    return storage


def only_row(ledger: dict[str, object]) -> dict[str, object]:
    [row] = ledger["collectors"]  # type: ignore[misc]
    return dict(row)


def test_the_sum_holds_through_every_fate(tmp_path: Path) -> None:
    put_file(tmp_path, "old.capture", 4)
    storage = open_storage(tmp_path)
    channel = storage.writer.open_channel(READINGS, is_binary=False, rotate_bytes=10**6, queue_limit=100)
    for n in range(10):
        storage.writer.submit(channel, Record(HEADER, (body(n),), 1))
    storage.writer.finish().result(10)
    store = LedgerStore(tmp_path, durable=True)
    store.record([Change(READINGS, Fate.SYNCED, "", 5, 1, 100), Change(READINGS, Fate.DROPPED, "queue_full", 3)])
    store.record([Change(READINGS, Fate.SET_ASIDE, DropReason.REJECTED, 2, 1, 50)])
    store.close()
    row = only_row(storage.ledger({READINGS: CollectorView(2.0, "slow")}, ""))
    assert row == {
        "component": "imu",
        "method": "Readings",
        "captured": 17,
        "stored": 14,
        "waiting": 7,
        "synced": 5,
        "dropped": {"queue_full": 3, "rejected": 2},
        "frequency_hz": 2.0,
        "last_error": "slow",
        "skipped": 0,
        "vetoed": 0,
        "late_ms": None,
    }
    storage.close()


def test_the_ledger_goes_on_where_the_last_run_ended(tmp_path: Path) -> None:
    first = open_storage(tmp_path)
    channel = first.writer.open_channel(READINGS, is_binary=False, rotate_bytes=10**6, queue_limit=100)
    for n in range(6):
        first.writer.submit(channel, Record(HEADER, (body(n),), 1))
    first.close()
    again = open_storage(tmp_path)
    assert only_row(again.ledger({}, ""))["captured"] == 6
    again.close()
    assert only_row(read_ledger(tmp_path))["waiting"] == 6


@pytest.mark.parametrize("died", ["before the removal", "after the removal"])
def test_a_kill_around_the_removal_counts_a_file_once(tmp_path: Path, died: str) -> None:
    path = put_file(tmp_path, "a.capture", 4)
    store = LedgerStore(tmp_path, durable=True)
    store.record([Change(READINGS, Fate.SYNCED, "", 4, 1, path.stat().st_size)], [(leaving(path), None)])
    store.close()
    if died == "after the removal":
        path.unlink()
    row = only_row(read_ledger(tmp_path))
    assert (row["captured"], row["synced"], row["waiting"]) == (4, 4, 0)
    assert path.exists() == (died == "before the removal")  # reading changes nothing
    open_storage(tmp_path).close()
    assert not path.exists()
    assert only_row(read_ledger(tmp_path)) == row


def test_a_kill_before_the_move_to_failed_is_finished(tmp_path: Path) -> None:
    path = put_file(tmp_path, "a.capture", 4)
    target = tmp_path / "failed" / "a.capture"
    target.parent.mkdir()
    store = LedgerStore(tmp_path, durable=True)
    store.record([Change(READINGS, Fate.SET_ASIDE, "rejected", 4, 1, 1)], [(leaving(path, str(target)), None)])
    store.close()
    open_storage(tmp_path).close()
    assert target.exists()
    assert only_row(read_ledger(tmp_path))["dropped"] == {"rejected": 4}


def test_a_folder_that_was_never_used_has_an_empty_ledger(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "none")["collectors"] == []
    assert not (tmp_path / "none").exists()


def test_a_new_file_of_an_old_name_is_not_removed(tmp_path: Path) -> None:
    path = put_file(tmp_path, "a.capture", 4)
    store = LedgerStore(tmp_path, durable=True)
    store.record([], [(leaving(path), None)])
    path.unlink()
    put_file(tmp_path, "a.capture", 7)
    store.finish_leaving()
    assert path.exists()
    assert store.leaving() == []
    store.close()


def test_an_unfinished_file_counts_as_waiting(tmp_path: Path) -> None:
    put_file(tmp_path, "a.prog", 3)
    ledger = read_ledger(tmp_path)
    assert only_row(ledger)["waiting"] == 3
    assert ledger["backlog_files"] == 1


def test_backlog_and_oldest_follow_what_is_sent(tmp_path: Path) -> None:
    path = put_file(tmp_path, "a.capture", 4)
    storage = open_storage(tmp_path)
    before = storage.ledger({}, "offline")
    assert before["oldest_unsent"] == iso(path.stat().st_mtime_ns)
    assert (before["backlog_files"], before["backlog_bytes"]) == (1, path.stat().st_size)
    assert before["sync_error"] == "offline"
    store = LedgerStore(tmp_path, durable=True)
    store.record([Change(READINGS, Fate.SYNCED, "", 4, 1, path.stat().st_size)], [(leaving(path), None)])
    store.close()
    storage.note_pass(1)
    after = storage.ledger({}, "")
    assert (after["backlog_files"], after["backlog_bytes"], after["oldest_unsent"]) == (0, 0, None)
    storage.close()


def test_times_are_utc_with_microseconds() -> None:
    assert iso(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123457Z"
    assert iso(None) is None


def test_a_damaged_ledger_begins_anew_and_capture_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put_file(tmp_path, "a.capture", 4)
    storage = open_storage(tmp_path)
    storage.close()
    database = tmp_path / ".gleaner" / "ledger.db"
    for each in database.parent.glob("ledger.db*"):
        each.write_bytes(b"rotten" * 1000)
    again = open_storage(tmp_path)
    assert only_row(again.ledger({}, ""))["waiting"] == 4
    again.close()
    assert (tmp_path / ".gleaner" / "ledger.db.damaged").exists()
    assert "begins anew" in caplog.text
