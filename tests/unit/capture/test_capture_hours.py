from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.directory import UNKNOWN_HOUR, file_stem, hour_of
from gleaner.machine.capture.ledger import Change, Fate, Leaving, LedgerStore
from gleaner.machine.capture.storage import CaptureStorage
from gleaner.machine.capture.writer import Record, WriterOptions
from gleaner.wire.capture_file import encode_header
from gleaner.wire.sensor_data import ReadingEncoder

LOG = logging.getLogger("test.hours")
READINGS = "rdk_component_sensor/imu/Readings"
HEADER = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))
HOUR_NS = 3_600_000_000_000


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("2026-11-22T20_35_44.123456Z.capture", datetime(2026, 11, 22, 20, tzinfo=UTC)),
        ("2026-11-22T20_35_44.123456+02_00.capture", datetime(2026, 11, 22, 18, tzinfo=UTC)),
        ("2026-11-22T20_15_44.123456+05_30-1.capture", datetime(2026, 11, 22, 14, tzinfo=UTC)),
        ("2026-11-22T20_35_44.123456-03_00.prog", datetime(2026, 11, 22, 23, tzinfo=UTC)),
    ],
)
def test_a_file_belongs_to_the_utc_hour_in_its_name(name: str, moment: datetime) -> None:
    assert hour_of(name) == int(moment.timestamp()) // 3600


@pytest.mark.parametrize("name", ["", "notes.txt", "2026-13-45T99_99_44.123456Z.capture"])
def test_a_name_without_a_time_belongs_to_no_hour(name: str) -> None:
    assert hour_of(name) == UNKNOWN_HOUR


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_the_writers_own_names_tell_their_hour(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for hour in range(490_000, 490_030):
            assert hour_of(file_stem(hour * HOUR_NS + 59 * 60 * 10**9)) == hour
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


class Clock:
    def __init__(self) -> None:
        now = int(datetime.now(UTC).timestamp())
        self.ns = (now // 3600 - 2) * HOUR_NS + HOUR_NS // 2

    def __call__(self) -> int:
        self.ns += 1000
        return self.ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(tmp_path: Path, clock: Clock) -> Iterator[CaptureStorage]:
    storage = CaptureStorage(tmp_path, LOG, WriterOptions(wall_ns=clock))
    storage.open()
    storage.count_backlog()
    yield storage
    storage.close()


def write(storage: CaptureStorage, count: int) -> None:
    channel = storage.writer.open_channel(READINGS, is_binary=False, rotate_bytes=10**6, queue_limit=1000)
    encoder = ReadingEncoder()
    for number in range(count):
        body = encoder.encode(1, 2, {"readings": {"n": number}})
        assert storage.writer.submit(channel, Record(HEADER, (body,), len(body)))
    storage.writer.finish().result(30)


def sums(storage: CaptureStorage) -> list[tuple[int, int, int, dict[str, int]]]:
    return [(row["captured"], row["synced"], row["waiting"], row["dropped"]) for row in storage.hours(24)]


def sync(root: Path, path: Path, records: int) -> None:
    """As the sync process lets go of a file that the app has."""
    status = path.stat()
    change = Change(READINGS, Fate.SYNCED, "", records, 1, status.st_size, hour_of(path.name))
    store = LedgerStore(root, durable=True)
    store.record([], [(Leaving(str(path), "", status.st_ino, status.st_size, status.st_mtime_ns), change)])
    path.unlink()
    store.close()


def test_every_hour_adds_up_through_sync_drops_and_a_restart(
    storage: CaptureStorage, clock: Clock, tmp_path: Path
) -> None:
    write(storage, 5)
    first = next(tmp_path.rglob("*.capture"))
    clock.ns += HOUR_NS
    write(storage, 7)
    assert sums(storage) == [(5, 0, 5, {}), (7, 0, 7, {})]
    sync(tmp_path, first, 5)
    assert sums(storage) == [(5, 5, 0, {}), (7, 0, 7, {})]
    channel = storage.writer.open_channel(READINGS, is_binary=False, rotate_bytes=10**6, queue_limit=0)
    storage.writer.submit(channel, Record(HEADER, (b"",), 0))  # dropped at this very hour
    storage.writer.finish().result(30)
    expected = [(5, 5, 0, {}), (7, 0, 7, {}), (1, 0, 0, {"queue_full": 1})]
    assert sums(storage) == expected
    storage.close()
    again = CaptureStorage(tmp_path, LOG)
    again.open()
    again.count_backlog()
    assert sums(again) == expected
    [total] = again.ledger({}, "")["collectors"]
    assert total["captured"] == sum(captured for captured, *_ in expected)
    assert [row["hour"] for row in again.hours(1)] == [again.hours(24)[-1]["hour"]]
    again.close()


def test_hours_of_long_ago_are_forgotten_and_stay_in_the_totals(tmp_path: Path) -> None:
    store = LedgerStore(tmp_path, durable=False)
    store.record(
        [Change(READINGS, Fate.SYNCED, "", 3, 1, 10, 400_000), Change(READINGS, Fate.SYNCED, "", 4, 1, 10, 490_000)]
    )
    store.forget_hours(450_000)
    assert store.hours(0) == {(READINGS, 490_000): {("synced", ""): 4}}
    assert store.counts()[READINGS].synced.records == 7
    store.close()


def test_a_ledger_from_before_there_were_hours_goes_on(tmp_path: Path) -> None:
    import sqlite3

    (tmp_path / ".gleaner").mkdir()
    old = sqlite3.connect(tmp_path / ".gleaner" / "ledger.db")
    old.executescript(
        "CREATE TABLE counts (directory TEXT NOT NULL, fate TEXT NOT NULL, reason TEXT NOT NULL, records INTEGER NOT NULL,"
        " files INTEGER NOT NULL, size_bytes INTEGER NOT NULL, PRIMARY KEY (directory, fate, reason)) WITHOUT ROWID;"
        "CREATE TABLE leaving (path TEXT PRIMARY KEY, target TEXT NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL,"
        " modified_ns INTEGER NOT NULL) WITHOUT ROWID;"
        f"INSERT INTO counts VALUES ('{READINGS}', 'synced', '', 9, 1, 100);"
    )
    old.commit()
    old.close()
    store = LedgerStore(tmp_path, durable=False)
    store.record([Change(READINGS, Fate.SYNCED, "", 1, 1, 10, 490_000)], [(Leaving("/x", "", 1, 1, 1), None)])
    assert store.counts()[READINGS].synced.records == 10
    assert len(store.leaving()) == 1
    store.close()
    assert os.path.exists(tmp_path / ".gleaner" / "ledger.db")  # noqa: PTH110
