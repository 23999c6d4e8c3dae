"""Every error that a disk can give: what was captured is stored or counted as dropped with its reason, files stay valid,
capture goes on by itself, and nothing stays open."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_world import PICTURES, READINGS, FailingFiles, capturing, reading, until

from gleaner.machine.capture import writer as writer_module
from gleaner.machine.capture.files import Files

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


def test_a_disk_that_does_not_keep_up_is_said_once_and_holds_up_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()

    class SlowFiles(Files):
        def sync(self, fd: int) -> None:
            answers.wait(30)
            super().sync(fd)

    monkeypatch.setattr(writer_module, "SLOW_DISK_S", 0.05)
    with caplog.at_level(logging.INFO), capturing(tmp_path, tmp_path, SlowFiles(), 0.05) as capture:
        try:
            for n in range(200):
                capture.writer.submit(capture.readings, reading(n))
                capture.submitted[READINGS] += 1
            # All of it is written while the first fsync still hangs.
            until(lambda: capture.writer.stored()[READINGS].records == 200)
            until(lambda: "does not keep up" in caplog.text)
        finally:
            answers.set()
        until(lambda: "keeps up again" in caplog.text)
        capture.submit(1)
        assert caplog.text.count("does not keep up") == 1
