from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from viam.components.sensor import Sensor

from gleaner.machine.capture import collector as collector_module
from gleaner.machine.capture.collector import Collector, CollectorSettings
from gleaner.machine.capture.disk import DiskGuard, DiskSpace
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.methods import find_method
from gleaner.machine.capture.schedule import CLOSEST_SHARE, Lateness
from gleaner.machine.capture.scheduler import Scheduler
from gleaner.machine.capture.writer import Writer
from gleaner.wire.capture_file import read_capture

LOG = logging.getLogger("test.scheduler")
PATIENCE_S = 20.0


class Ticks:
    """Notes when it was due and when it was called; `work` is what it does then."""

    def __init__(self, work: Callable[[], None] = lambda: None) -> None:
        self.due_s: list[float] = []
        self.began_s: list[float] = []
        self.skipped = 0
        self.was_hung = threading.Event()
        self._work = work

    def due(self, at_s: float) -> None:
        self.due_s.append(at_s)
        self.began_s.append(time.monotonic())
        self._work()

    def skip(self, ticks: int) -> None:
        self.skipped += ticks

    def hung(self) -> None:
        self.was_hung.set()
        self._work = lambda: None

    def watch(self, now_s: float) -> None:
        pass


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.002)


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler()
    scheduler.start()
    yield scheduler
    scheduler.stop()


def test_ticks_stay_on_one_grid_and_never_bunch(scheduler: Scheduler) -> None:
    ticks = Ticks()
    scheduler.add(ticks, 0.005)
    wait_until(lambda: len(ticks.due_s) >= 60)
    scheduler.remove(ticks)
    first = ticks.due_s[0]
    steps = [(due - first) / 0.005 for due in ticks.due_s]
    assert steps == pytest.approx([round(step) for step in steps], abs=1e-3)
    assert all(began >= due for began, due in zip(ticks.began_s, ticks.due_s, strict=True))
    assert min(b - a for a, b in pairwise(ticks.began_s)) >= 0.005 * CLOSEST_SHARE * 0.99
    assert round(steps[-1]) + 1 == len(steps) + ticks.skipped


def test_a_call_that_hangs_costs_the_others_moments_and_itself_its_place(scheduler: Scheduler) -> None:
    release = threading.Event()
    stuck, free = Ticks(lambda: release.wait(PATIENCE_S) and None), Ticks()
    scheduler.add(stuck, 0.01)
    scheduler.add(free, 0.01)
    assert stuck.was_hung.wait(PATIENCE_S)
    seen = len(free.due_s)
    wait_until(lambda: len(free.due_s) >= seen + 20)
    assert free.skipped >= 5  # while the clock hung; they are not made up for
    release.set()


def test_a_clock_that_stood_still_makes_up_for_nothing() -> None:
    now = [100.0]
    scheduler, ticks = Scheduler(lambda: now[0]), Ticks()
    scheduler.start()
    scheduler.add(ticks, 1.0)
    now[0] = 3700.6  # the machine was stopped for an hour
    scheduler.add(Ticks(), 1e6)  # makes it look at its clock
    wait_until(lambda: len(ticks.due_s) == 1)
    now[0] += 2.0
    scheduler.add(Ticks(), 1e6)
    wait_until(lambda: len(ticks.due_s) == 2)
    assert ticks.skipped >= 3598
    scheduler.stop()


def test_nothing_is_called_after_it_was_removed(scheduler: Scheduler) -> None:
    ticks = Ticks()
    scheduler.add(ticks, 0.001)
    wait_until(lambda: len(ticks.due_s) > 5)
    scheduler.remove(ticks)
    seen, other = len(ticks.due_s), Ticks()
    scheduler.add(other, 0.001)
    wait_until(lambda: len(other.due_s) > 20)
    assert len(ticks.due_s) == seen


def test_hundreds_of_collectors_all_get_their_turn(scheduler: Scheduler) -> None:
    everyone = [Ticks() for _ in range(200)]
    for ticks in everyone:
        scheduler.add(ticks, 0.05)
    wait_until(lambda: all(len(ticks.due_s) >= 3 for ticks in everyone))


def test_lateness_tells_the_usual_and_the_worst() -> None:
    lateness = Lateness()
    assert lateness.percentiles_ms() is None
    for number in range(101):
        lateness.note(number / 1000)
    assert lateness.percentiles_ms() == {"p50": 50.0, "p99": 99.0}


# --- with a collector ------------------------------------------------------------------------------------------------


class InstantSensor(Sensor):
    def __init__(self, name: str, read: Callable[[], float] = lambda: 1.0) -> None:
        super().__init__(name)
        self.read = read
        self.threads: set[str] = set()
        self.calls = 0

    async def get_readings(self, **_: Any) -> Mapping[str, Any]:
        raise AssertionError("an instant sensor is not asked on the event loop")

    def readings_now(self, *, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        assert extra["fromDataManagement"] is True
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        return {"value": self.read()}


class BlockingSensor(Sensor):
    """User's code as one meets it: `async def`, and it blocks."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(name)
        self.seconds = seconds

    async def get_readings(self, **_: Any) -> Mapping[str, Any]:
        time.sleep(self.seconds)  # noqa: ASYNC251 (this is the point)
        return {}


Start = Callable[..., Awaitable[Collector]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    store, clock = LedgerStore(tmp_path, durable=False), Scheduler()
    writer = Writer(tmp_path, store, DiskGuard(tmp_path, lambda _: DiskSpace(10**12, 10**12)), LOG)
    writer.start()
    clock.start()
    started: list[Collector] = []

    async def start(sensor: Sensor, hz: float) -> Collector:
        settings = CollectorSettings("rdk:component:sensor", sensor.name, "Readings", hz)
        method = find_method("rdk:component:sensor", "Readings")
        collector = Collector(settings, sensor, method, writer, clock, LOG)
        collector.start()
        started.append(collector)
        return collector

    yield start
    for collector in started:
        await collector.stop()
    await asyncio.to_thread(clock.stop)
    await asyncio.to_thread(writer.stop)
    store.close()


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


async def test_an_instant_sensor_is_read_off_the_event_loop_and_stored(start: Start, tmp_path: Path) -> None:
    sensor = InstantSensor("imu")
    collector = await start(sensor, 500)
    await until(lambda: sensor.calls >= 100)
    await collector.stop()
    assert sensor.threads == {"capture-clock"}
    [file] = tmp_path.rglob("*.capture")
    assert len(read_capture(file.read_bytes()).records) == sensor.calls
    assert (collector.lateness.percentiles_ms() or {})["p50"] >= 0


async def test_an_instant_sensor_that_blocks_goes_on_in_a_thread_of_its_own(start: Start) -> None:
    release = threading.Event()
    stuck = InstantSensor("stuck", lambda: float(release.wait(PATIENCE_S)))
    free = InstantSensor("free")
    collector = await start(stuck, 100)
    await start(free, 100)
    await until(lambda: free.calls >= 50 and collector.skipped_ticks >= 10)
    assert stuck.calls == 1
    release.set()
    await until(lambda: stuck.calls >= 5)
    assert any(name.startswith("capture-stuck") for name in stuck.threads)


async def test_a_read_that_returns_just_as_it_is_given_up_is_asked_again(start: Start) -> None:
    release = threading.Event()

    def read() -> float:
        assert release.wait(PATIENCE_S)
        return 1.0

    sensor = InstantSensor("slow", read)
    collector = await start(sensor, 100)
    give_up = collector.hung

    def hung() -> None:
        # The watch thread has decided; before it gets here, the read ends.
        release.set()
        wait_until(lambda: collector._asking_since_s is None)
        give_up()

    collector.hung = hung  # type: ignore[method-assign]
    await until(lambda: sensor.calls >= 5)


async def test_an_instant_sensor_that_raises_is_asked_again_each_time(start: Start) -> None:
    def fail() -> float:
        raise OSError("bus error")

    sensor = InstantSensor("imu", fail)
    collector = await start(sensor, 200)
    await until(lambda: sensor.calls >= 10)
    assert collector.last_error == "OSError: bus error"
    sensor.read = lambda: 2.0
    await until(lambda: collector.last_error == "")


async def test_a_driver_that_blocks_the_event_loop_is_named(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_module, "BLOCKING_AFTER_S", 0.1)
    with caplog.at_level(logging.ERROR, "test.scheduler"):
        free = InstantSensor("free")
        await start(free, 200)
        await start(BlockingSensor("lidar", 0.6), 5)
        before = free.calls
        await until(lambda: bool(caplog.records))
    message = caplog.records[0].getMessage()
    assert "the driver of lidar blocks the whole machine in" in message
    assert "test_capture_scheduler.py:" in message
    assert free.calls > before + 20  # which never noticed


async def test_unchanged_collectors_go_on_while_others_come_and_go(start: Start) -> None:
    steady = InstantSensor("steady")
    collector = await start(steady, 100)
    for number in range(10):
        other = await start(InstantSensor(f"other{number}"), 100)
        await other.stop()
    calls = steady.calls
    await until(lambda: steady.calls >= calls + 20)
    late = collector.lateness.percentiles_ms()
    assert late is not None
