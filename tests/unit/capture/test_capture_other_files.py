"""Files of `additional_sync_paths` in the ledger: found = synced + waiting + dropped, in files, at every moment."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from test_capture_manager import Build, CountingSensor, Machine, StillCamera, build, component, until

from gleaner.machine.capture.ledger import Change, Counts, Fate, Leaving, LedgerStore
from gleaner.machine.capture.ledger_rows import files_row
from gleaner.machine.capture.manager import DataManager
from gleaner.machine.capture.other_files import look, other_roots
from gleaner.machine.capture.outside import read_ledger
from gleaner.wire.sync_frames import Entry, Result, Status
from stand_in_app import StandInApp, running_app

__all__ = ["build"]  # a fixture


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr("gleaner.machine.capture.manager.FILES_LOOK_S", 0.01)
    machine = Machine(tmp_path / "machine")
    machine.resources = {"imu": CountingSensor("imu"), "cam": StillCamera("cam")}
    return machine


@pytest.fixture
async def app() -> AsyncIterator[StandInApp]:
    async with running_app() as app:
        yield app


def fill(folder: Path, count: int, prefix: str = "f", size: int = 10) -> None:
    for number in range(count):
        path = folder / f"day{number % 3}" / f"{prefix}{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{prefix}{number}".encode().ljust(size, b"."))
        os.utime(path, (1, 1))


def row(manager: DataManager, folder: Path) -> dict[str, Any]:
    rows = [one for one in manager.ledger()["collectors"] if one["component"] == str(folder)]
    assert all(r["captured"] == r["synced"] + r["waiting"] + sum(r["dropped"].values()) for r in rows)
    return rows[0] if rows else {"captured": 0, "synced": 0, "waiting": 0, "dropped": {}}


def amounts(manager: DataManager, folder: Path) -> tuple[int, int, int, dict[str, int]]:
    found = row(manager, folder)
    return found["captured"], found["synced"], found["waiting"], found["dropped"]


async def test_what_is_found_is_synced_waits_or_was_refused(
    machine: Machine, build: Build, app: StandInApp, tmp_path: Path
) -> None:
    logs, other = tmp_path / "logs", tmp_path / "other"
    fill(logs, 30)
    fill(other, 4, "o")
    (logs / "empty").touch()

    def judge(entry: Entry) -> Result | None:
        return Result(entry.id, Status.REJECTED, "poison") if entry.name in ("f3.bin", "f7.bin") else None

    app.judge = judge
    machine.configure(component("imu", "sensor"), app=app)
    paths = [str(logs), str(other), str(logs / "day1")]  # the last one is part of the first
    manager = await build(
        sync_disabled=True, sync_interval_mins=0.001, file_last_modified_millis=1, additional_sync_paths=paths
    )
    await until(lambda: amounts(manager, logs) == (30, 0, 30, {}) and amounts(manager, other) == (4, 0, 4, {}))
    assert manager.ledger()["backlog_files"] == 34
    assert row(manager, logs)["method"] == "files"
    with pytest.raises(Exception, match="2 files were not sent"):
        await manager.sync()
    assert amounts(manager, logs) == (30, 28, 0, {"rejected": 2})
    assert amounts(manager, other) == (4, 4, 0, {})
    fill(logs, 5, "new")
    await until(lambda: amounts(manager, logs) == (35, 28, 5, {"rejected": 2}))
    (logs / "day0" / "new0.bin").unlink()  # the user's own file, not a capture: nothing was lost
    await until(lambda: amounts(manager, logs) == (34, 28, 4, {"rejected": 2}))
    await manager.close()
    outside = {
        r["component"]: (r["captured"], r["synced"]) for r in read_ledger(machine.home / "capture")["collectors"]
    }
    assert outside[str(logs)] == (30, 28)
    again = await build(
        sync_disabled=True, sync_interval_mins=0.001, file_last_modified_millis=1, additional_sync_paths=paths
    )
    await until(lambda: amounts(again, logs) == (34, 28, 4, {"rejected": 2}))


async def test_while_sync_runs_nothing_is_shown_twice_at_the_end(
    machine: Machine, build: Build, app: StandInApp, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    fill(logs, 600)
    fill(logs, 1, "big", 3_000_000)
    machine.configure(component("imu", "sensor"), app=app)
    manager = await build(sync_interval_mins=0.001, file_last_modified_millis=1, additional_sync_paths=[str(logs)])
    for number in range(5):
        fill(logs, 20, f"n{number}-")
        await until(lambda number=number: row(manager, logs)["synced"] >= 100 * (number + 1))
    await until(lambda: amounts(manager, logs) == (701, 701, 0, {}))
    assert len(app.files) == 701


async def test_a_folder_that_is_removed_from_the_configuration_keeps_its_row(
    machine: Machine, build: Build, app: StandInApp, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    fill(logs, 3)
    machine.configure(component("imu", "sensor"), app=app)
    manager = await build(sync_interval_mins=0.001, file_last_modified_millis=1, additional_sync_paths=[str(logs)])
    await until(lambda: amounts(manager, logs) == (3, 3, 0, {}))
    await manager.close()
    fill(logs, 2, "left")
    manager = await build(sync_interval_mins=0.001)
    assert amounts(manager, logs) == (3, 3, 0, {})


def test_a_file_that_is_counted_and_still_lies_there_is_counted_once(tmp_path: Path) -> None:
    """A kill between the count and the removal."""
    logs, root = tmp_path / "logs", tmp_path / "capture"
    fill(logs, 3)
    store = LedgerStore(root, durable=False)
    file = logs / "day0" / "f0.bin"
    status = file.stat()
    leaving = Leaving(str(file), "", status.st_ino, status.st_size, status.st_mtime_ns)
    change = Change(files_row(str(logs)), Fate.SYNCED, "", 1, 1, status.st_size)
    store.record((), [(leaving, change)])
    found = look(store, [str(logs)]).stored(store.counts())
    assert found[files_row(str(logs))].files == 3
    assert store.counts()[files_row(str(logs))].synced.files == 1
    store.close()


def test_what_left_since_the_look_was_found(tmp_path: Path) -> None:
    store = LedgerStore(tmp_path / "capture", durable=False)
    other = look(store, [str(tmp_path / "nothing")])
    store.close()
    name = files_row(str(tmp_path / "nothing"))
    counts = Counts()
    counts.synced.records = counts.synced.files = 5
    assert other.stored({name: counts})[name].records == 5
    assert other.problems == {}


def test_a_folder_that_cannot_be_read_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("x")
    store = LedgerStore(tmp_path / "capture", durable=False)
    with caplog.at_level(logging.WARNING):
        other = look(store, [str(tmp_path / "file")])
    store.close()
    assert "cannot be read" in other.problems[files_row(str(tmp_path / "file"))]


def test_folders_inside_others_are_one(tmp_path: Path) -> None:
    capture = tmp_path / "capture"
    paths = [str(capture / "x"), str(tmp_path / "a" / "b"), str(tmp_path / "a"), str(tmp_path / "a")]
    assert other_roots(capture, paths) == [str(tmp_path / "a")]
