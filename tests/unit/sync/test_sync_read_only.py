"""The files may not be removed once the app has them: nothing is sent as new, counted twice or lost, and sync goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sync_support import LOG, PICTURES, READINGS, captures, ledger_row, put_pictures, put_readings, until

from gleaner.machine.sync.settings import SyncSettings
from gleaner.machine.sync.supervisor import SyncSupervisor
from stand_in_app import PART, SECRET, StandInApp

pytestmark = pytest.mark.usefixtures("hurry")


@contextlib.contextmanager
def unchangeable(folder: Path) -> Iterator[None]:
    """Nobody can remove anything in it, root included."""
    if os.geteuid():
        lock, free = ["chmod", "500"], ["chmod", "700"]
    else:
        lock, free = ["chattr", "+i"], ["chattr", "-i"]
    done = subprocess.run([*lock, str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this file system knows no such thing: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run([*free, str(folder)], check=True)


async def test_files_that_cannot_be_removed_stay_and_are_counted_once(tmp_path: Path, app: StandInApp) -> None:
    put_pictures(tmp_path, 20)
    settings = SyncSettings(str(tmp_path), PART, SECRET, app.address)
    supervisor = SyncSupervisor(settings, LOG, lambda _started, _sent: None)
    with unchangeable(tmp_path / PICTURES):
        supervisor.start()
        try:
            await until(lambda: len(app.files) == 20)
            put_readings(tmp_path, "others.capture", 3)
            supervisor.request_pass()
            await until(lambda: not list((tmp_path / READINGS).iterdir()))
            assert len(captures(tmp_path)) == 20
        finally:
            await supervisor.stop()
    supervisor = SyncSupervisor(settings, LOG, lambda _started, _sent: None)
    supervisor.start()
    try:
        await until(lambda: not captures(tmp_path))
    finally:
        await supervisor.stop()
    assert len(app.files) == 21
    assert ledger_row(tmp_path, "ReadImage")["synced"] == 20
    assert ledger_row(tmp_path, "Readings")["synced"] == 3
    assert not (tmp_path / "failed").exists()
