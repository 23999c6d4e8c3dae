"""Every error that a disk can give: what was captured is stored or counted as dropped with its reason, files stay valid,
capture goes on by itself, and nothing stays open."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.channel import Channel, Record
from gleaner.machine.capture.disk import DiskGuard, DiskSpace
from gleaner.machine.capture.files import Files
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.writer import Writer, WriterOptions
from gleaner.wire.capture_file import encode_header, read_capture
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary

READINGS, PICTURES = "rdk_component_sensor/imu/Readings", "rdk_component_camera/cam/ReadImage"
HEADER = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))
PICTURE_HEADER = encode_header(DataCaptureMetadata(component_name="cam", type=DataType.DATA_TYPE_BINARY_SENSOR))
LOG = logging.getLogger("test.disk_errors")
ENCODER = ReadingEncoder()


def reading(number: int) -> Record:
    body = ENCODER.encode(10**18 + number, 10**18 + number, {"readings": {"n": number, "v": [0.5] * 20}})
    return Record(HEADER, (body,), len(body))


def picture(number: int, size: int = 3000) -> Record:
    return Record(PICTURE_HEADER, encode_binary(1, 2, number.to_bytes(4, "big") + bytes(size)), size)


def open_files() -> set[str]:
    """What this process has open; links that vanish meanwhile are not."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return found


@dataclass
class Capture:
    """A writer on `root`; its ledger lives elsewhere, so that only capture meets the disk's errors."""

    root: Path
    writer: Writer
    store: LedgerStore
    readings: Channel
    pictures: Channel
    submitted: dict[str, int] = field(default_factory=lambda: {READINGS: 0, PICTURES: 0})

    def submit(self, count: int) -> None:
        """Readings and pictures; returns when they are settled."""
        for _ in range(count):
            self.writer.submit(self.readings, reading(self.submitted[READINGS]))
            self.writer.submit(self.pictures, picture(self.submitted[PICTURES]))
            self.submitted[READINGS] += 1
            self.submitted[PICTURES] += 1
        self.writer.finish().result(30)

    def dropped(self) -> dict[str, dict[str, int]]:
        return {d: dict(c.dropped) for d, c in self.writer.counts().items()}

    def reasons(self) -> set[str]:
        return {reason for reasons in self.dropped().values() for reason in reasons}


@contextlib.contextmanager
def capturing(root: Path, state: Path, files: Files | None = None, durability_s: float = 1.0) -> Iterator[Capture]:
    """Ends with the books balanced: every record is in a valid file or counted as dropped, and nothing stays open."""
    store = LedgerStore(state, durable=False)
    guard = DiskGuard(root, lambda _: DiskSpace(10**12, 10**12))
    writer = Writer(root, store, guard, LOG, WriterOptions(durability_s, files=files or Files()))
    channels = [
        writer.open_channel(READINGS, is_binary=False, rotate_bytes=10_000, queue_limit=10_000),
        writer.open_channel(PICTURES, is_binary=True, rotate_bytes=1, queue_limit=10_000),
    ]
    capture = Capture(root, writer, store, *channels)
    writer.start()
    try:
        yield capture
    finally:
        writer.stop()
    try:
        check_books(capture)
        assert not [path for path in open_files() if path.startswith(str(root)) and ".gleaner" not in path]
    finally:
        store.close()


def check_books(capture: Capture) -> None:
    found = records_in(capture.root)
    dropped = capture.dropped()
    stored = capture.writer.stored()
    for directory, submitted in capture.submitted.items():
        assert len(set(found[directory])) == len(found[directory])
        assert len(found[directory]) == stored[directory].records
        assert len(found[directory]) + sum(dropped.get(directory, {}).values()) == submitted


def records_in(root: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {READINGS: [], PICTURES: []}
    for directory, numbers in found.items():
        for path in [*(root / directory).glob("*.capture"), *(root / directory).glob("*.prog")]:
            content = read_capture(path.read_bytes())
            assert content.layout.damaged_bytes == 0, f"{path} holds half a record"
            for data in content.records:
                if directory == PICTURES:
                    numbers.append(int.from_bytes(data.binary[:4], "big"))
                else:
                    numbers.append(int(data.struct.fields["readings"].struct_value.fields["n"].number_value))
    return found


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- real disks ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


def test_a_disk_without_space_drops_and_capture_goes_on_when_there_is_some(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=512k") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(300_000))
        with capturing(disk, tmp_path) as capture:
            capture.submit(60)
            assert capture.reasons() == {"disk_full"}
            assert "free some space" in capture.writer.error_of(PICTURES)
            before = capture.dropped()
            ballast.unlink()
            capture.submit(10)
            assert capture.dropped() == before
            assert capture.writer.error_of(PICTURES) == ""


def test_a_disk_without_inodes_is_told_from_one_without_space(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=8m,nr_inodes=30") as disk, capturing(disk, tmp_path) as capture:
        capture.submit(40)
        assert capture.reasons() == {"no_inodes"}
        assert "inodes" in capture.writer.error_of(PICTURES)
        for path in list((disk / PICTURES).glob("*.capture"))[:15]:
            path.unlink()
            capture.submitted[PICTURES] -= 1
            capture.pictures.lost.records += 1  # as sync would take it off
        before = capture.dropped()
        capture.submit(5)
        assert capture.dropped() == before


def test_a_disk_that_becomes_read_only_drops_until_it_is_writable(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=8m") as disk, capturing(disk, tmp_path) as capture:
        capture.submit(5)
        remount(disk, "ro")
        capture.submit(5)
        assert capture.dropped() == {READINGS: {"read_only": 5}, PICTURES: {"read_only": 5}}
        assert "read-only" in capture.writer.error_of(READINGS)
        remount(disk, "rw")
        capture.submit(5)
        assert capture.writer.error_of(READINGS) == ""
        assert sum(sum(reasons.values()) for reasons in capture.dropped().values()) == 10


def test_too_many_open_files_drop_until_there_are_fewer(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with capturing(tmp_path / "capture", tmp_path) as capture:
        capture.submit(3)
        highest = max(int(link.name) for link in Path("/proc/self/fd").iterdir())
        hoard = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    hoard.append(os.open("/dev/null", os.O_RDONLY))
            capture.submit(3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in hoard:
                os.close(fd)
        assert capture.dropped() == {READINGS: {"too_many_files": 3}, PICTURES: {"too_many_files": 3}}
        capture.submit(3)
        assert capture.writer.error_of(PICTURES) == ""


def test_a_limit_of_file_size_only_makes_more_files(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = tmp_path / "state"
    with capturing(tmp_path / "capture", state) as capture:
        capture.readings.sink.rotate_bytes = 10**7
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        try:
            capture.submit(2000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert capture.dropped() == {}
        assert len(list((capture.root / READINGS).glob("*.capture"))) > 2


# --- a disk that fails as it is told ---------------------------------------------------------------------------------


class FailingFiles(Files):
    """The real disk; while `error` is set, the operations in `failing` give it. A failing write writes half."""

    def __init__(self) -> None:
        self.failing: tuple[str, ...] = ()
        self.error = 0
        self.failures = 0

    def _maybe(self, operation: str) -> None:
        if self.error and operation in self.failing:
            self.failures += 1
            raise OSError(self.error, os.strerror(self.error))

    def create(self, path: str) -> int:
        self._maybe("open")
        return super().create(path)

    def write(self, fd: int, buffers: Sequence[bytes]) -> None:
        if self.error and "write" in self.failing:
            content = b"".join(buffers)
            os.write(fd, content[: len(content) // 2])
        self._maybe("write")
        super().write(fd, buffers)

    def truncate(self, fd: int, size: int) -> None:
        self._maybe("truncate")
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        self._maybe("fsync")
        super().sync(fd)

    def rename(self, source: str, target: str) -> None:
        self._maybe("rename")
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self._maybe("unlink")
        super().unlink(path)

    def reopen(self, path: str) -> int:
        self._maybe("reopen")
        return super().reopen(path)

    def sync_folder(self, path: str) -> None:
        self._maybe("folder fsync")
        super().sync_folder(path)


REASONS = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "quota",
    errno.EROFS: "read_only",
    errno.EIO: "io_error",
    errno.EMFILE: "too_many_files",
    errno.EACCES: "no_permission",
    errno.ENODEV: "write_failed",
}


@pytest.mark.parametrize("durability_s", [0.0, 0.1], ids=["each", "window"])
@pytest.mark.parametrize("operation", ["open", "write", "write truncate", "open unlink", "write unlink"])
@pytest.mark.parametrize("code", REASONS, ids=lambda code: errno.errorcode[code])
def test_an_error_while_writing_is_counted_by_its_reason_and_costs_nothing_else(
    tmp_path: Path, code: int, operation: str, durability_s: float
) -> None:
    files = FailingFiles()
    state = tmp_path / ".gleaner"
    with capturing(tmp_path, tmp_path, files, durability_s) as capture:
        capture.submit(4)
        for n in range(3):  # an open file of readings meets the error, too
            capture.writer.submit(capture.readings, reading(4 + n))
        capture.submitted[READINGS] += 3
        files.failing = tuple(operation.split())
        files.error = code
        capture.submit(4)
        assert files.failures
        assert capture.reasons() <= {REASONS[code]}
        assert capture.dropped()[PICTURES] == {REASONS[code]: 4}
        files.error = 0
        for stray in (tmp_path / READINGS).glob("*.prog"):  # could not be removed: recovery does at the next start
            if operation.endswith("unlink"):
                stray.unlink()
        for stray in (tmp_path / PICTURES).glob("*.prog"):
            if operation.endswith("unlink"):
                stray.unlink()
        capture.submit(4)
        assert capture.writer.error_of(PICTURES) == capture.writer.error_of(READINGS) == ""
        until(lambda: not list(tmp_path.rglob("*.prog")))
    assert state.exists()


@pytest.mark.parametrize("durability_s", [0.0, 0.1], ids=["each", "window"])
@pytest.mark.parametrize("operation", ["fsync", "rename", "reopen", "folder fsync", "fsync open", "fsync rename"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_an_error_while_completing_loses_nothing_once_the_disk_works_again(
    tmp_path: Path, code: int, operation: str, durability_s: float
) -> None:
    files = FailingFiles()
    with capturing(tmp_path, tmp_path, files, durability_s) as capture:
        capture.submit(4)
        for n in range(3):
            capture.writer.submit(capture.readings, reading(4 + n))
        capture.submitted[READINGS] += 3
        files.failing, files.error = tuple(operation.split()), code
        if "open" in files.failing:
            files.failing = ("fsync",)  # `open` fails only for the copies of a repair, later
        capture.submit(4)
        assert files.failures
        assert capture.writer.error_of(PICTURES) or operation == "reopen"
        files.error = 0
        # The repairs come with the next rounds, some at a time.
        until(lambda: not list(tmp_path.rglob("*.prog")))
        capture.submit(4)
        until(lambda: capture.writer.error_of(PICTURES) == capture.writer.error_of(READINGS) == "")
        until(lambda: capture.writer.stored()[READINGS].records == capture.submitted[READINGS])
        assert capture.dropped() == {}


def test_a_file_that_could_not_be_synced_is_written_anew_and_not_trusted(tmp_path: Path) -> None:
    """The kernel calls the pages of a failed fsync clean: the next fsync of the same file would prove nothing."""
    files = FailingFiles()
    with capturing(tmp_path, tmp_path, files) as capture:
        files.failing, files.error = ("fsync",), errno.EIO
        capture.writer.submit(capture.readings, reading(0))
        capture.submitted[READINGS] += 1
        capture.writer.finish().result(10)
        (waiting,) = (tmp_path / READINGS).iterdir()
        inode = waiting.stat().st_ino
        files.error = 0
        until(lambda: not list(tmp_path.rglob("*.prog")))
        (complete,) = (tmp_path / READINGS).iterdir()
        assert complete.stat().st_ino != inode


def test_records_that_a_failing_disk_swallowed_are_counted(tmp_path: Path) -> None:
    files = FailingFiles()
    with capturing(tmp_path, tmp_path, files) as capture:
        files.failing, files.error = ("fsync",), errno.EIO
        for n in range(10):
            capture.writer.submit(capture.readings, reading(n))
        capture.submitted[READINGS] += 10
        capture.writer.finish().result(10)
        (waiting,) = (tmp_path / READINGS).iterdir()
        whole = waiting.read_bytes()
        waiting.write_bytes(whole[: -len(whole) // 3])
        files.error = 0
        until(lambda: not list(tmp_path.rglob("*.prog")))
        until(lambda: bool(capture.dropped()))
        assert capture.reasons() == {"io_error"}


# --- other people's hands --------------------------------------------------------------------------------------------


def test_a_file_renamed_inside_its_folder_is_still_completed(tmp_path: Path) -> None:
    with capturing(tmp_path, tmp_path, durability_s=60) as capture:
        for suffix in (".capture", ".bak"):
            capture.writer.submit(capture.readings, reading(capture.submitted[READINGS]))
            capture.submitted[READINGS] += 1
            until(lambda: bool(list((tmp_path / READINGS).glob("*.prog"))))
            (path,) = (tmp_path / READINGS).glob("*.prog")
            until(lambda path=path: capture.writer.stored()[READINGS].records == capture.submitted[READINGS])
            path.rename(path.with_name("renamed" + suffix))
            capture.writer.finish().result(10)
        assert capture.dropped() == {}
        assert len(list((tmp_path / READINGS).glob("*.capture"))) == 2


def test_a_file_taken_away_is_counted_and_capture_goes_on_in_a_new_one(tmp_path: Path) -> None:
    root = tmp_path / "capture"
    with capturing(root, tmp_path, durability_s=0.1) as capture:
        for act in (lambda path: path.unlink(), lambda path: path.rename(tmp_path / "elsewhere")):
            capture.writer.submit(capture.readings, reading(capture.submitted[READINGS]))
            capture.submitted[READINGS] += 1
            until(lambda: bool(list((root / READINGS).glob("*.prog"))))
            (path,) = (root / READINGS).glob("*.prog")
            before = capture.dropped().get(READINGS, {}).get("removed", 0)
            act(path)
            until(lambda before=before: capture.dropped().get(READINGS, {}).get("removed", 0) == before + 1)
            capture.submit(3)
        assert capture.dropped() == {READINGS: {"removed": 2}}


def test_a_whole_folder_that_is_removed_is_made_again(tmp_path: Path) -> None:
    root = tmp_path / "capture"
    with capturing(root, tmp_path, durability_s=0.1) as capture:
        capture.submit(2)
        root.rename(tmp_path / "moved")
        capture.submitted[READINGS] = capture.submitted[PICTURES] = 0
        for channel in (capture.readings, capture.pictures):
            channel.lost.records += 2
        capture.submit(3)
        assert len(records_in(root)[READINGS]) == 3


def test_the_clock_may_jump_and_names_stay_unique(tmp_path: Path) -> None:
    hour = 3_600 * 10**9
    now = 1_790_000_000 * 10**9
    jumps = [0, 1000, -500, -hour, hour, 3 * hour, -now, now, 0, 0, 24 * hour, -30 * 10**9]
    times = iter([max(0, now := now + jump) for jump in jumps for _ in range(20)])
    last = [now]

    def wall_ns() -> int:
        last[0] = next(times, last[0])
        return last[0]

    store = LedgerStore(tmp_path, durable=False)
    guard = DiskGuard(tmp_path, lambda _: DiskSpace(10**12, 10**12))
    writer = Writer(tmp_path, store, guard, LOG, WriterOptions(wall_ns=wall_ns))
    channel = writer.open_channel(READINGS, is_binary=False, rotate_bytes=10**6, queue_limit=1000)
    writer.start()
    try:
        for n in range(200):
            writer.submit(channel, reading(n))
            if n % 7 == 0:
                writer.finish(channel).result(10)
    finally:
        writer.stop()
        store.close()
    assert sorted(records_in(tmp_path)[READINGS]) == list(range(200))
    assert not list(tmp_path.rglob("*.prog"))


def test_a_file_of_readings_ends_with_its_hour(tmp_path: Path) -> None:
    hour = 3_600 * 10**9
    now = [1_790_000_000 * 10**9 // hour * hour - 5]
    store = LedgerStore(tmp_path, durable=False)
    guard = DiskGuard(tmp_path, lambda _: DiskSpace(10**12, 10**12))
    writer = Writer(tmp_path, store, guard, LOG, WriterOptions(wall_ns=lambda: now[0]))
    channel = writer.open_channel(READINGS, is_binary=False, rotate_bytes=10**6, queue_limit=1000)
    writer.start()
    try:
        writer.submit(channel, reading(0))
        until(lambda: writer.stored()[READINGS].records == 1)
        now[0] += 10
        writer.submit(channel, reading(1))
        until(lambda: writer.stored()[READINGS].records == 2)
        by_hour = {hour: w.records for (_, hour), w in writer.stored_by_hour().items()}
        assert by_hour == {now[0] // hour - 1: 1, now[0] // hour: 1}
    finally:
        writer.stop()
        store.close()
    assert len(list((tmp_path / READINGS).glob("*.capture"))) == 2


def test_what_is_written_reaches_the_disk_without_being_asked(tmp_path: Path) -> None:
    class Watched(Files):
        synced: list[int] = []  # noqa: RUF012 (one list for the one instance)

        def sync(self, fd: int) -> None:
            super().sync(fd)
            self.synced.append(os.fstat(fd).st_size)

    files = Watched()
    with capturing(tmp_path, tmp_path, files, durability_s=0.2) as capture:
        for n in range(3):
            capture.writer.submit(capture.readings, reading(n))
            capture.submitted[READINGS] += 1
            until(lambda n=n: capture.writer.stored()[READINGS].records == n + 1)
            size = capture.writer.stored()[READINGS].size_bytes
            until(lambda size=size: size in files.synced)
        assert len(list((tmp_path / READINGS).glob("*.prog"))) == 1
