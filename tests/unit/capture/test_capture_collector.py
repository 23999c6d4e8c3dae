from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError, Status
from viam.errors import NoCaptureToStoreError

from gleaner.machine.capture import collector as collector_module
from gleaner.machine.capture.collector import Collector, CollectorSettings, combined_tags
from gleaner.machine.capture.disk import DiskGuard, DiskSpace
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.methods import Call, Captured, Method
from gleaner.machine.capture.scheduler import Scheduler
from gleaner.machine.capture.writer import Writer
from gleaner.wire.capture_file import read_capture

LOG = logging.getLogger("test.collector")


class Driver:
    """Answers as the test says: a value, an exception to raise, or an event to wait for."""

    def __init__(self, answer: Any = 1) -> None:
        self.answer = answer
        self.calls = 0
        self.called = asyncio.Event()

    async def read(self, _call: Call) -> Captured:
        self.calls += 1
        self.called.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, asyncio.Event):
            await self.answer.wait()
        return {"readings": {"n": self.calls}}


async def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (nobody else knows when a driver was called often enough)
            await asyncio.sleep(0.005)


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    store = LedgerStore(tmp_path, durable=False)
    writer = Writer(tmp_path, store, DiskGuard(tmp_path, lambda _: DiskSpace(10**12, 10**12)), LOG)
    writer.start()
    yield writer
    await asyncio.to_thread(writer.stop)
    store.close()


Start = Callable[..., Awaitable[Collector]]


@pytest.fixture
async def scheduler() -> AsyncIterator[Scheduler]:
    scheduler = Scheduler()
    scheduler.start()
    yield scheduler
    await asyncio.to_thread(scheduler.stop)


@pytest.fixture
async def start(writer: Writer, scheduler: Scheduler) -> AsyncIterator[Start]:
    started: list[Collector] = []

    async def start(driver: Driver, name: str = "imu", hz: float = 200, **options: Any) -> Collector:
        settings = CollectorSettings("rdk:component:sensor", name, "Readings", hz, **options)
        collector = Collector(settings, driver, Method(driver.read), writer, scheduler, LOG)
        collector.start()
        started.append(collector)
        return collector

    yield start
    for collector in started:
        await collector.stop()


async def test_readings_end_up_in_complete_files_with_both_times(start: Start, tmp_path: Path) -> None:
    driver = Driver()
    collector = await start(driver, tags=("night",), params={"depth": 3})
    await until(lambda: driver.calls >= 5)
    await collector.stop()
    files = sorted(tmp_path.rglob("*.capture"))
    captured = read_capture(files[0].read_bytes())
    assert len(captured.records) >= 4
    times = [r.metadata.time_requested.ToNanoseconds() for r in captured.records]
    assert times == sorted(times)
    assert all(r.metadata.HasField("time_received") for r in captured.records)
    metadata = captured.metadata
    assert (metadata.component_type, metadata.component_name) == ("rdk:component:sensor", "imu")
    assert list(metadata.tags) == ["night"]
    assert "depth" in metadata.method_parameters
    assert metadata.file_extension == ".dat"


async def test_a_blocked_driver_disturbs_no_other(start: Start) -> None:
    stuck, free = Driver(asyncio.Event()), Driver()
    await start(stuck, "stuck")
    await start(free, "free")
    await until(lambda: free.calls >= 20)
    assert stuck.calls == 1


async def test_a_driver_that_never_answers_is_shown(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "STUCK_AFTER_S", 0.0)
    driver = Driver(asyncio.Event())
    collector = await start(driver)
    await until(lambda: "has not answered" in collector.last_error)
    driver.answer.set()
    await until(lambda: driver.calls > 1)
    driver.answer = 1
    await until(lambda: collector.error == "" and driver.calls > 5)


async def test_an_error_is_logged_once_and_so_is_the_recovery(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    driver = Driver(RuntimeError("unplugged"))
    with caplog.at_level(logging.INFO, "test.collector"):
        collector = await start(driver)
        await until(lambda: driver.calls >= 10)
        assert collector.last_error == "RuntimeError: unplugged"
        driver.answer = 1
        await until(lambda: collector.last_error == "")
    messages = [r.getMessage() for r in caplog.records]
    assert messages == [
        "cannot capture Readings of imu: RuntimeError: unplugged",
        "Readings of imu is captured again",
    ]


@pytest.mark.parametrize(
    "veto",
    [
        NoCaptureToStoreError(),
        GRPCError(Status.FAILED_PRECONDITION, "rpc error: no capture from filter module"),
    ],
)
async def test_a_veto_stores_nothing_and_is_no_error(start: Start, tmp_path: Path, veto: Exception) -> None:
    driver = Driver(veto)
    collector = await start(driver)
    await until(lambda: driver.calls >= 5)
    assert collector.last_error == ""
    await collector.stop()
    assert not list(tmp_path.rglob("*.capture"))


async def test_a_reading_that_cannot_be_stored_is_an_error_of_the_driver(start: Start) -> None:
    driver = Driver()

    async def odd(_call: Call) -> Captured:
        driver.calls += 1
        return {"readings": {"x": object()}}

    driver.read = odd  # type: ignore[method-assign]
    collector = await start(driver)
    await until(lambda: "TypeError" in collector.last_error)


async def test_the_first_capture_comes_after_one_interval(start: Start) -> None:
    driver = Driver()
    began_s = asyncio.get_running_loop().time()
    await start(driver, hz=10)
    await driver.called.wait()
    assert asyncio.get_running_loop().time() - began_s >= 0.099


async def test_a_slow_driver_skips_ticks_and_never_bunches(start: Start) -> None:
    calls_s: list[float] = []
    loop = asyncio.get_running_loop()
    driver = Driver()

    async def slow(_call: Call) -> Captured:
        calls_s.append(loop.time())
        await asyncio.sleep(0.035)
        return {"readings": {}}

    driver.read = slow  # type: ignore[method-assign]
    collector = await start(driver, hz=50)
    await until(lambda: len(calls_s) >= 6)
    gaps = [b - a for a, b in pairwise(calls_s)]
    assert min(gaps) >= 0.035
    assert collector.skipped_ticks >= 4


async def test_stopping_does_not_wait_for_a_driver_that_ignores_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_module, "STOP_TIMEOUT_S", 0.05)
    driver = Driver()
    release = asyncio.Event()

    async def stubborn(_call: Call) -> Captured:
        driver.called.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return {"readings": {}}

    driver.read = stubborn  # type: ignore[method-assign]
    collector = await start(driver)
    await driver.called.wait()
    async with asyncio.timeout(5):
        await collector.stop()
    release.set()


def test_tags_of_service_and_method_are_combined() -> None:
    assert combined_tags(["a", "b"], ["b", "c"]) == ("a", "b", "c")
