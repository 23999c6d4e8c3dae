"""The backlog of earlier runs is counted while capture and sync work, holds up nobody, and the ledger is exact after it."""

from __future__ import annotations

import logging
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.backlog import wait_until_counted, wait_until_noted
from gleaner.machine.capture.channel import Record
from gleaner.machine.capture.directory import count_records
from gleaner.machine.capture.ledger import Change, Fate, Leaving, LedgerStore, LeftEarly, leave
from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.capture.storage import CaptureStorage
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import ReadingEncoder

LOG = logging.getLogger("test")
READINGS = "rdk_component_sensor/s/Readings"
OLD_FILES = 40
HEADER = encode_header(DataCaptureMetadata(component_name="s", type=DataType.DATA_TYPE_TABULAR_SENSOR))
BODY = ReadingEncoder().encode(10**18, 10**18, {"readings": {"n": 1}})


def put_old(root: Path, count: int) -> None:
    for number in range(count):
        path = root / READINGS / f"2026-11-{1 + number % 20:02d}T10_00_00.{number:06d}Z.capture"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(HEADER + 3 * encode_record(BODY))


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[CaptureStorage]:
    put_old(tmp_path, OLD_FILES)
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


def departure(path: Path) -> tuple[Leaving, Change]:
    status = path.stat()
    file = Leaving(str(path), "", status.st_ino, status.st_size, status.st_mtime_ns)
    return file, Change(READINGS, Fate.SYNCED, "", count_records(path), 1, status.st_size)


def remove(root: Path, store: LedgerStore, paths: list[Path]) -> int:
    """As sync lets go of files; returns their records."""
    wait_until_noted(root, store)
    gone = 0
    for path in paths:
        file, change = departure(path)
        store.record([], [(file, change)], [])
        leave(file)
        gone += change.records
    return gone


def complete(root: Path) -> list[Path]:
    return sorted((root / READINGS).glob("*.capture"))


def test_capture_begins_before_the_count_and_nothing_is_counted_twice(storage: CaptureStorage) -> None:
    assert storage.ledger({}, "")["counting"]
    capture(storage, 5)
    assert row(storage) == (5, 5, 0)
    storage.count_backlog()
    assert not storage.ledger({}, "")["counting"]
    assert row(storage) == (3 * OLD_FILES + 5, 3 * OLD_FILES + 5, 0)
    capture(storage, 5)
    assert row(storage)[0] == 3 * OLD_FILES + 10


def test_files_leave_before_the_count_has_come_to_them(tmp_path: Path, storage: CaptureStorage) -> None:
    store = LedgerStore(tmp_path, durable=True)
    capture(storage, 5)
    removed = remove(tmp_path, store, [*complete(tmp_path)[:15], complete(tmp_path)[-1]])
    assert removed == 15 * 3 + 1, "files of this run and of earlier ones leave alike"
    storage.count_backlog()
    captured = 3 * OLD_FILES + 5
    assert row(storage) == (captured, captured - removed, removed)
    assert not store.is_counting()
    assert not list(store.left_early(READINGS))
    removed += remove(tmp_path, store, complete(tmp_path))
    store.close()
    assert row(storage) == (captured, 0, captured) == (removed, 0, removed)
    hours = storage.hours(24 * 90)
    assert all(hour["captured"] == hour["synced"] + hour["waiting"] for hour in hours)


def test_the_ledger_is_exact_whenever_files_leave(tmp_path: Path) -> None:
    chance = random.Random(5)
    for turn in range(8):
        root = tmp_path / str(turn)
        put_old(root, 120)
        here = CaptureStorage(root, LOG)
        here.open()
        store = LedgerStore(root, durable=False)
        old = complete(root)
        chance.shuffle(old)
        removed: list[int] = []
        remover = threading.Thread(target=lambda: removed.append(remove(root, store, old[:80])))  # noqa: B023
        writing = threading.Thread(target=lambda: capture(here, 20))  # noqa: B023
        remover.start()
        writing.start()
        here.count_backlog()
        writing.join()
        remover.join()
        store.close()
        captured = 3 * 120 + 20
        assert row(here) == (captured, captured - removed[0], removed[0])
        here.close()


def test_what_left_without_a_note_is_counted_once(tmp_path: Path, storage: CaptureStorage) -> None:
    """A disk without any room: thinning goes first, and tells the count itself."""
    assert storage._counting is not None
    gone, still_there = complete(tmp_path)[:2]
    for path in (gone, still_there):
        storage._counting.count.note_left([LeftEarly.of(*departure(path))])
    gone.unlink()
    storage.count_backlog()
    assert row(storage)[0] == 3 * OLD_FILES


def test_without_notes_files_wait_for_the_count(tmp_path: Path, storage: CaptureStorage) -> None:
    store = LedgerStore(tmp_path, durable=False)
    store.end_count()  # as on a disk that had no room for the note
    waited = threading.Thread(target=wait_until_noted, args=(tmp_path, store))
    waited.start()
    assert waited.is_alive()
    storage.count_backlog()
    waited.join(30)
    assert not waited.is_alive()
    store.close()


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


VICTIM = """
import logging, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import gleaner.machine.capture.backlog as backlog
from test_capture_backlog import capture, complete, remove
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.storage import CaptureStorage
backlog.WORK_S, backlog.REST_S = 0.0, 0.005
root = Path(sys.argv[1])
storage = CaptureStorage(root, logging.getLogger())
storage.open()
store = LedgerStore(root, durable=True)
capture(storage, 7)
print("gone", remove(root, store, complete(root)[:30]), flush=True)
class Told(set):
    def __contains__(self, path):
        print("counting", flush=True)
        return super().__contains__(path)
storage._counting.count.created = storage.writer.root.created = Told(storage.writer.root.created)
storage.count_backlog()
"""


def test_a_machine_killed_in_the_middle_of_its_count_begins_it_anew(tmp_path: Path) -> None:
    put_old(tmp_path, 300)
    command = [sys.executable, "-c", VICTIM, str(tmp_path), str(Path(__file__).parent)]
    gone = 0
    for counted_until in (1, 150):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            gone += int(victim.stdout.readline().split()[1])
            for _ in range(counted_until):
                assert victim.stdout.readline() == b"counting\n"
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
    again = CaptureStorage(tmp_path, LOG)
    again.open()
    again.count_backlog()
    captured = 3 * 300 + 2 * 7
    assert row(again) == (captured, captured - gone, gone)
    again.close()
    [outside] = read_ledger(tmp_path)["collectors"]
    assert (outside["captured"], outside["synced"]) == (captured, gone)
