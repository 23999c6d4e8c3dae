"""Thinning with real files, a real ledger and the real writer; on a small disk of its own where one can be mounted."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.capture.disk import DiskSpace
from gleaner.machine.capture.ledger import Change, Counts, DropReason, Fate, Leaving, LedgerStore
from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.capture.storage import CaptureStorage
from gleaner.machine.capture.thinner import DiskState, ThinningOptions
from gleaner.machine.capture.writer import Record, WriterOptions
from gleaner.wire.capture_file import encode_header
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary

LOG = logging.getLogger("test.thinner")
CAMERA = "rdk_component_camera/cam/ReadImage"
READINGS = "rdk_component_sensor/imu/Readings"
ROOMY, ALMOST_FULL = DiskSpace(10**9, 10**9), DiskSpace(20_000_000, 790_000)


def header(*tags: str, kind: int = DataType.DATA_TYPE_BINARY_SENSOR) -> bytes:
    return encode_header(DataCaptureMetadata(component_name="cam", type=kind, tags=tags))  # type: ignore[arg-type]


class Rig:
    """A capture storage whose thinning looks only when it is told to."""

    def __init__(self, root: Path, keyring: Keyring | None = None) -> None:
        self.root = root
        self._space = ROOMY
        options = ThinningOptions(space=lambda _: self._space, look_s=3600)
        self.storage = CaptureStorage(root, LOG, WriterOptions(keyring=keyring or Keyring()), options)
        self.storage.open()
        self.storage.count_backlog()

    def look(self, space: DiskSpace) -> int:
        self._space = space
        assert self.storage._thinner is not None
        return self.storage._thinner.look()

    def pictures(self, count: int, *tags: str, size: int = 10_000, directory: str = CAMERA) -> None:
        channel = self.storage.writer.open_channel(directory, is_binary=True, rotate_bytes=1, queue_limit=10_000)
        for number in range(count):
            parts = encode_binary(number + 1, number + 1, os.urandom(size), b"")
            assert self.storage.writer.submit(channel, Record(header(*tags), parts, size))
        self.storage.writer.finish().result(30)

    def readings(self, files: int, per_file: int) -> None:
        channel = self.storage.writer.open_channel(READINGS, is_binary=False, rotate_bytes=10**9, queue_limit=10_000)
        encoder = ReadingEncoder()
        for _ in range(files):
            for number in range(per_file):
                body = encoder.encode(1, 2, {"readings": {"n": number}})
                head = header(kind=DataType.DATA_TYPE_TABULAR_SENSOR)
                assert self.storage.writer.submit(channel, Record(head, (body,), len(body)))
            self.storage.writer.finish(channel).result(30)

    def rows(self) -> dict[str, dict[str, object]]:
        return {row["component"]: row for row in self.storage.ledger({}, "")["collectors"]}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(keyring: Keyring | None = None) -> Rig:
        made.append(Rig(tmp_path, keyring))
        return made[-1]

    yield make
    for one in made:
        one.storage.close()


def files(root: Path, directory: str = CAMERA) -> list[Path]:
    return sorted((root / directory).glob("*.capture"))


def test_a_full_disk_costs_old_untagged_files_and_every_one_is_counted(rig: Callable[..., Rig], tmp_path: Path) -> None:
    one = rig()
    one.pictures(40)
    one.pictures(10, "keep", directory="rdk_component_camera/door/ReadImage")
    one.readings(5, 20)
    newest = files(tmp_path)[-1]
    gone = one.look(ALMOST_FULL)
    assert gone >= 30
    assert newest.exists()
    rows = one.rows()
    assert len(files(tmp_path, "rdk_component_camera/door/ReadImage")) == 10
    for row in rows.values():
        assert row["captured"] == row["synced"] + row["waiting"] + sum(row["dropped"].values())  # type: ignore[operator,attr-defined]
    assert rows["cam"]["captured"] == 40
    assert rows["cam"]["waiting"] == len(files(tmp_path))
    assert rows["imu"]["captured"] == 100
    assert one.storage.ledger({}, "")["disk"]["state"] in ("thinning", "full")


@pytest.mark.parametrize("keyed", [False, True])
def test_tagged_pictures_of_one_camera_stay_longer(rig: Callable[..., Rig], tmp_path: Path, keyed: bool) -> None:
    one = rig(Keyring((os.urandom(32),)) if keyed else None)
    for number in range(30):
        one.pictures(1, *(("rare",) if number % 10 == 0 else ()))
    tagged = [path for number, path in enumerate(files(tmp_path)) if number % 10 == 0]
    assert one.look(DiskSpace(12_500_000, 480_000)) >= 20
    assert all(path.exists() for path in tagged)
    assert len(files(tmp_path)) < 12


def test_tagged_pictures_stay_however_finely_they_lie_among_others(rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Their headers are not all read to choose; each is, before its file goes."""
    one = rig()
    for number in range(200):
        one.pictures(1, *(("rare",) if number % 10 == 5 else ()))
    tagged = [path for number, path in enumerate(files(tmp_path)) if number % 10 == 5]
    assert one.look(DiskSpace(50_000_000, 1_200_000)) >= 140
    assert all(path.exists() for path in tagged)
    assert one.rows()["cam"]["waiting"] == len(files(tmp_path)) < 60


def test_a_disk_that_runs_out_of_files_is_thinned_where_most_of_them_are(
    rig: Callable[..., Rig], tmp_path: Path
) -> None:
    one = rig()
    one.pictures(60, size=500)
    one.pictures(10, size=200_000, directory="rdk_component_camera/door/ReadImage")
    gone = one.look(DiskSpace(10**9, 9 * 10**8, files=1000, free_files=25))
    assert gone == 35
    assert len(files(tmp_path)) == 25
    assert len(files(tmp_path, "rdk_component_camera/door/ReadImage")) == 10
    assert one.look(DiskSpace(10**9, 9 * 10**8, files=1000, free_files=60)) == 0
    assert one.storage.ledger({}, "")["disk"]["state"] == "ok"


def test_what_the_app_had_already_is_counted_as_synced(rig: Callable[..., Rig], tmp_path: Path) -> None:
    one = rig()
    one.pictures(20)
    seen = {path: path.stat() for path in files(tmp_path)}
    one.look(ALMOST_FULL)
    lost = next(path for path in seen if not path.exists())
    status = seen[lost]
    before = one.rows()["cam"]["dropped"]["thinned"]  # type: ignore[index]
    sync = LedgerStore(tmp_path, durable=True)
    file = Leaving(str(lost), "", status.st_ino, status.st_size, status.st_mtime_ns)
    change = Change(CAMERA, Fate.SYNCED, "", 1, 1, status.st_size)
    sync.reclaim([(file, change)])
    sync.reclaim([(file, change)])  # said twice
    sync.close()
    row = one.rows()["cam"]
    assert row["synced"] == 1
    assert row["dropped"]["thinned"] == before - 1  # type: ignore[index]
    assert row["captured"] == 20


def test_who_notes_a_file_first_has_counted_it(tmp_path: Path) -> None:
    store = LedgerStore(tmp_path, durable=False)
    file = Leaving(str(tmp_path / "x.capture"), "", 1, 100, 5)
    synced, thinned = (
        Change(CAMERA, Fate.SYNCED, "", 1, 1, 100),
        Change(CAMERA, Fate.SET_ASIDE, DropReason.THINNED, 1, 1, 100),
    )
    store.record([], [(file, synced)])
    store.record([], [(file, thinned)], thinned=True)
    store.record([], [(file, synced)])
    counts = store.counts()[CAMERA]
    assert (counts.synced.records, counts.dropped) == (1, {})
    other = Leaving(file.path, "", 2, 100, 6)  # another file of the same name
    store.record([], [(other, thinned)], thinned=True)
    assert store.counts()[CAMERA].dropped == {"thinned": 1}
    store.record([], [(other, synced)])
    assert store.counts()[CAMERA] == Counts(
        type(counts.synced)(2, 2, 200), type(counts.synced)(0, 0, 0), {"thinned": 0}
    )
    store.close()


def test_a_kill_between_counting_and_removing_is_finished_at_the_next_start(
    rig: Callable[..., Rig], tmp_path: Path
) -> None:
    first = rig()
    first.pictures(5)
    path = files(tmp_path)[0]
    status = path.stat()
    file = Leaving(str(path), "", status.st_ino, status.st_size, status.st_mtime_ns)
    store = LedgerStore(tmp_path, durable=False)
    store.record([], [(file, Change(CAMERA, Fate.SET_ASIDE, DropReason.THINNED, 1, 1, status.st_size))], thinned=True)
    store.close()
    first.storage.close()
    [row] = read_ledger(tmp_path)["collectors"]
    assert (row["captured"], row["waiting"]) == (5, 4)
    row = rig().rows()["cam"]
    assert not path.exists()
    assert (row["captured"], row["waiting"], row["dropped"]) == (5, 4, {"thinned": 1})


@pytest.fixture
def eager(small_disk: Path) -> Iterator[CaptureStorage]:
    """A storage on the small disk whose thinning looks all the time."""
    storage = CaptureStorage(small_disk / "capture", LOG, thinning=ThinningOptions(look_s=0.02))
    storage.open()
    storage.count_backlog()
    yield storage
    storage.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here (it takes root)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.01)


def test_on_a_real_small_disk_capture_never_stops_and_takes_only_its_part(
    small_disk: Path, eager: CaptureStorage
) -> None:
    storage = eager
    channel = storage.writer.open_channel(CAMERA, is_binary=True, rotate_bytes=1, queue_limit=10)
    sent = 0
    while sent < 600:  # 60 MB through a disk of 24
        parts = encode_binary(sent + 1, sent + 1, os.urandom(100_000), b"")
        sent += storage.writer.submit(channel, Record(header(), parts, 100_000))
        time.sleep(0.002)
    storage.writer.finish().result(30)
    until(lambda: storage.ledger({}, "")["disk"]["state"] == DiskState.OK)
    storage.close()  # thinning goes on until now: what is counted and what lies there agree only when it rests
    [row] = read_ledger(small_disk / "capture")["collectors"]
    assert row["captured"] == row["waiting"] + sum(row["dropped"].values())
    assert row["dropped"]["thinned"] > 300
    assert row["waiting"] == len(files(small_disk / "capture")) > 50
    assert row["dropped"].get("disk_full", 0) < 30  # it wrote faster than thinning looks, now and then


def test_a_disk_that_others_fill_keeps_the_newest_and_goes_on_when_there_is_room(
    small_disk: Path, eager: CaptureStorage
) -> None:
    storage = eager
    channel = storage.writer.open_channel(CAMERA, is_binary=True, rotate_bytes=1, queue_limit=1000)

    def picture() -> None:
        storage.writer.submit(channel, Record(header(), encode_binary(1, 1, os.urandom(50_000), b""), 50_000))
        storage.writer.finish().result(30)

    for _ in range(20):
        picture()
    foreign = small_disk / "foreign"

    def fill() -> bool:
        with contextlib.suppress(OSError), foreign.open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        return bool(storage.ledger({}, "")["disk"]["state"] == DiskState.FULL)

    until(fill)
    picture()
    assert files(small_disk / "capture")  # the newest
    foreign.unlink()
    until(lambda: storage.ledger({}, "")["disk"]["state"] == DiskState.OK)
    stored = storage.ledger({}, "")["collectors"][0]["stored"]

    def goes_on() -> bool:
        picture()
        return bool(storage.ledger({}, "")["collectors"][0]["stored"] > stored)

    until(goes_on)
    [row] = storage.ledger({}, "")["collectors"]
    assert row["captured"] == row["waiting"] + sum(row["dropped"].values())
