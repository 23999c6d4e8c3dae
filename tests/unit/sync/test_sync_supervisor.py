"""The real sync process, started, killed and orphaned."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.sync.settings import SyncSettings
from gleaner.machine.sync.supervisor import SyncFailed, SyncSupervisor
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import encode_binary
from stand_in_app import PART, SECRET, StandInApp

LOG = logging.getLogger("test.supervisor")
PICTURES = "rdk_component_camera/cam/ReadImage"
BINARY = encode_header(DataCaptureMetadata(component_name="cam", type=DataType.DATA_TYPE_BINARY_SENSOR))


async def until(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (the condition is on the disk or in another process)
            await asyncio.sleep(0.01)


def put_pictures(root: Path, count: int, size: int = 1000, first: int = 0) -> None:
    folder = root / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(first, first + count):
        content = BINARY + encode_record(b"".join(encode_binary(1, 2, n.to_bytes(4, "big") + bytes(size))))
        (folder / f"{n:06d}.tmp").write_bytes(content)
        (folder / f"{n:06d}.tmp").rename(folder / f"{n:06d}.capture")


def left(root: Path) -> int:
    return sum(1 for _ in (root / PICTURES).glob("*.capture"))


def settings_for(root: Path, app: StandInApp) -> SyncSettings:
    return SyncSettings(str(root), PART, SECRET, app.address)


@asynccontextmanager
async def supervised(root: Path, app: StandInApp) -> AsyncIterator[SyncSupervisor]:
    supervisor = SyncSupervisor(settings_for(root, app), LOG, lambda _started, _sent: None)
    supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()


async def test_the_process_sends_answers_and_ends_with_its_supervisor(tmp_path: Path, app: StandInApp) -> None:
    put_pictures(tmp_path, 30)
    async with supervised(tmp_path, app) as supervisor:
        await until(lambda: supervisor.connected)
        await supervisor.sync()
        assert left(tmp_path) == 0
        put_pictures(tmp_path, 5, first=100)
        supervisor.request_pass()
        await until(lambda: left(tmp_path) == 0)
        pid = supervisor.pid
        assert pid is not None
        assert SECRET not in " ".join(psutil.Process(pid).cmdline())
    assert not psutil.pid_exists(pid)
    assert len(app.files) == 35


async def test_a_process_that_dies_is_started_again(
    tmp_path: Path, app: StandInApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gleaner.machine.sync.backoff.FIRST_S", 0.02)
    async with supervised(tmp_path, app) as supervisor:
        await until(lambda: supervisor.connected)
        first = supervisor.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.pid not in (None, first))
        put_pictures(tmp_path, 3)
        await until(lambda: supervisor.connected)
        await supervisor.sync()
        assert left(tmp_path) == 0


async def test_a_request_to_a_dead_process_fails_with_words(
    tmp_path: Path, app: StandInApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gleaner.machine.sync.supervisor.START_PATIENCE_S", 0.05)
    supervisor = SyncSupervisor(settings_for(tmp_path, app), LOG, lambda _started, _sent: None)
    with pytest.raises(SyncFailed, match="not running"):
        await supervisor.sync()


async def test_the_process_ends_when_its_machine_is_killed(tmp_path: Path, app: StandInApp) -> None:
    """The machine is a process here that starts sync with a pipe and is then killed without a chance to clean up."""
    settings = json.dumps(settings_for(tmp_path, app).to_json())
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'gleaner.machine.sync.process'], stdin=subprocess.PIPE)\n"
        "p.stdin.write(sys.argv[1].encode() + b'\\n'); p.stdin.flush(); print(p.pid, flush=True); time.sleep(100)"
    )
    machine = await asyncio.create_subprocess_exec(sys.executable, "-c", code, settings, stdout=asyncio.subprocess.PIPE)
    assert machine.stdout is not None
    pid = int(await machine.stdout.readline())
    await until(lambda: app.connections == 1)
    machine.kill()
    await machine.communicate()
    await until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
async def test_kills_at_random_moments_lose_and_repeat_nothing(
    tmp_path: Path, app: StandInApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between commit and answer, between answer and removal, during the scan: wherever the kill hits."""
    monkeypatch.setattr("gleaner.machine.sync.backoff.FIRST_S", 0.01)
    monkeypatch.setattr("gleaner.machine.sync.backoff.LONGEST_S", 0.02)
    total = 3000
    put_pictures(tmp_path, total, size=3000)
    async with supervised(tmp_path, app) as supervisor:
        for step in (0, 50, 100, 150, 30, 80, 130, 10, 60, 110):
            goal = len(app.files) + step
            await until(lambda g=goal: len(app.files) > g or left(tmp_path) == 0)
            if (pid := supervisor.pid) is not None:
                os.kill(pid, signal.SIGKILL)
                await until(lambda p=pid: supervisor.pid not in (None, p))
        await until(lambda: left(tmp_path) == 0)
    assert len(app.files) == total
    assert len({content for _, content in app.files.values()}) == total
    [row] = read_ledger(tmp_path)["collectors"]
    assert (row["captured"], row["synced"], row["waiting"], row["dropped"]) == (total, total, 0, {})


def test_a_process_that_dies_before_it_is_told_anything_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """uvloop refuses to write to the pipe of a process that is gone: that ended sync for good, without a word."""
    uvloop = pytest.importorskip("uvloop")
    monkeypatch.setattr("gleaner.machine.sync.supervisor.sys.executable", "/bin/true")
    monkeypatch.setattr("gleaner.machine.sync.backoff.FIRST_S", 0.001)
    monkeypatch.setattr("gleaner.machine.sync.supervisor.LONGEST_RESTART_S", 0.002)

    def restarts() -> int:
        return sum("it is started again" in record.getMessage() for record in caplog.records)

    async def supervise() -> None:
        settings = SyncSettings(str(tmp_path), "p", "s", "http://127.0.0.1:1")
        supervisor = SyncSupervisor(settings, logging.getLogger("test.restarts"), lambda _started_ns, _sent: None)
        supervisor.start()
        try:
            await until(lambda: restarts() >= 60)
        finally:
            await supervisor.stop()

    with caplog.at_level(logging.ERROR, "test.restarts"), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(supervise())
