"""Other people's hands on capture files, clocks that jump, and what happens by itself."""

from __future__ import annotations

import os
from pathlib import Path

from disk_world import LOG, PICTURES, READINGS, capturing, reading, records_in, until

from gleaner.machine.capture.disk import DiskGuard, DiskSpace
from gleaner.machine.capture.files import Files
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.writer import Writer, WriterOptions


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
