"""The life of a frame source: fresh pictures, shared pictures, loss, recovery, and a stop that comes back."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest
from camera_pictures import until
from grpclib import Status

from gleaner.machine.models.frames import DeviceLost, DriverSource, Feed, OnDemandSource, SourceState
from gleaner.machine.models.pictures import CameraProblem, Picture

LOG = logging.getLogger("test.source")


def shot(number: int) -> Picture:
    return Picture(b"%d" % number, "image/jpeg", 4, 3, number)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def on_demand():
    made: list[int] = []
    clock = Clock()

    def make() -> Picture:
        made.append(len(made))
        return shot(len(made))

    source = OnDemandSource("cam", make, frame_rate=10, clock=clock)
    source.start()
    yield source, made, clock
    source.stop()


async def test_nothing_is_made_until_somebody_asks(on_demand):
    source, made, _ = on_demand
    assert made == []
    await source.read(5)
    assert len(made) == 1


async def test_a_picture_is_shared_for_one_frame_period(on_demand):
    source, made, clock = on_demand
    pictures = await asyncio.gather(*(source.read(5) for _ in range(20)))
    assert len(made) == 1
    assert len({id(p) for p in pictures}) == 1
    clock.now_s += 0.099
    assert await source.read(5) is pictures[0]
    clock.now_s += 0.002
    assert (await source.read(5)).captured_at_ns == 2


async def test_two_event_loops_may_read_one_source(on_demand):
    source, _, _ = on_demand
    here = await source.read(5)
    there = await asyncio.to_thread(lambda: asyncio.run(source.read(5)))
    assert here is there


async def test_a_closed_source_says_so(on_demand):
    source, _, _ = on_demand
    source.stop()
    source.stop()
    assert source.state is SourceState.STOPPED
    with pytest.raises(CameraProblem, match="closed"):
        await source.read(1)


async def test_a_fault_is_a_visible_state_and_passes():
    healthy = threading.Event()

    def make() -> Picture:
        if not healthy.is_set():
            raise CameraProblem("camera cam: lens cap on")
        return shot(1)

    source = OnDemandSource("cam", make, 10)
    source.start()
    try:
        with pytest.raises(CameraProblem, match="lens cap"):
            await source.read(5)
        assert (source.state, source.error) == (SourceState.LOST, "camera cam: lens cap on")
        healthy.set()
        await source.read(5)
        assert (source.state, source.error) == (SourceState.RUNNING, "")
    finally:
        source.stop()


async def test_a_slow_picture_times_out_with_a_name():
    release = threading.Event()

    def make() -> Picture:
        release.wait(20)
        return shot(1)

    source = OnDemandSource("slowcam", make, 10)
    source.start()
    try:
        with pytest.raises(CameraProblem, match="slowcam") as caught:
            await source.read(0.05)
        assert caught.value.grpc_code is Status.DEADLINE_EXCEEDED
    finally:
        release.set()
        source.stop()


class Puppet:
    """A driver the test steers."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.lost = threading.Event()
        self.opened = 0
        self.number = 0
        self.encoded: list[int] = []

    def run(self, feed: Feed) -> None:
        self.opened += 1
        while not feed.stopping.is_set():
            if self.lost.is_set():
                self.lost.clear()
                raise DeviceLost("camera cam: unplugged")
            if self.go.acquire(timeout=0.01):
                self.number += 1
                feed.publish(self._make(self.number))

    def _make(self, number: int):
        def make() -> Picture:
            self.encoded.append(number)
            return shot(number)

        return make


@pytest.fixture
def driven():
    puppet = Puppet()
    source = DriverSource("cam", puppet.run, LOG, max_age_s=30, retry_s=0.01)
    source.start()
    yield source, puppet
    source.stop()


async def test_a_reader_waits_for_the_first_picture(driven):
    source, puppet = driven
    reading = asyncio.create_task(source.read(10))
    puppet.go.release()
    assert (await reading).captured_at_ns == 1
    assert source.state is SourceState.RUNNING


async def test_the_newest_picture_is_given_and_only_that_is_encoded(driven):
    source, puppet = driven
    puppet.go.release(5)
    await until(lambda: source.frames == 5)
    both = await asyncio.gather(source.read(5), source.read(5))
    assert [p.captured_at_ns for p in both] == [5, 5]
    assert puppet.encoded == [5]


async def test_an_old_picture_is_not_given():
    puppet = Puppet()
    source = DriverSource("cam", puppet.run, LOG, max_age_s=0.0, retry_s=0.01)
    source.start()
    try:
        puppet.go.release()
        await until(lambda: source.frames == 1)
        reading = asyncio.create_task(source.read(10))
        await until(lambda: bool(source._waiting))
        puppet.go.release()
        assert (await reading).captured_at_ns == 2
    finally:
        source.stop()


async def test_a_lost_device_is_reopened_and_logged_once_each_way(driven, caplog):
    source, puppet = driven
    caplog.set_level(logging.INFO)
    puppet.go.release()
    await source.read(10)
    puppet.lost.set()
    await until(lambda: source.state is SourceState.LOST)
    assert source.error == "camera cam: unplugged"
    await until(lambda: puppet.opened == 2)
    puppet.go.release()
    await until(lambda: source.state is SourceState.RUNNING)
    assert source.error == ""
    messages = [r.message for r in caplog.records if r.name == LOG.name]
    assert len([m for m in messages if "unplugged" in m]) == 1
    assert len([m for m in messages if "is back" in m]) == 1


async def test_a_device_that_stays_away_is_logged_once_and_named_to_readers(caplog):
    def absent(_feed: Feed) -> None:
        raise DeviceLost("camera cam: no such device")

    source = DriverSource("cam", absent, LOG, max_age_s=1, retry_s=0.01)
    source.start()
    try:
        await until(lambda: source.state is SourceState.LOST)
        with pytest.raises(CameraProblem, match="no such device"):
            await source.read(0.1)
        assert len([r for r in caplog.records if "no such device" in r.message]) == 1
    finally:
        source.stop()


async def test_an_unknown_driver_fault_is_survived():
    calls: list[int] = []

    def odd(feed: Feed) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("what")
        feed.publish(lambda: shot(9))
        feed.stopping.wait(20)

    source = DriverSource("cam", odd, LOG, max_age_s=30, retry_s=0.01)
    source.start()
    try:
        await until(lambda: source.frames == 1)
        assert (await source.read(10)).captured_at_ns == 9
    finally:
        source.stop()


async def test_stopping_ends_the_thread_and_frees_waiting_readers(driven):
    source, _ = driven
    reading = asyncio.create_task(source.read(30))
    await until(lambda: bool(source._waiting))
    await asyncio.to_thread(source.stop)
    with pytest.raises(CameraProblem, match="closed"):
        await reading
    assert not [t for t in threading.enumerate() if t.name == "camera-cam"]
    source.stop()


async def test_a_driver_that_hangs_does_not_hang_the_stop(caplog):
    release = threading.Event()

    def deaf(_feed: Feed) -> None:
        release.wait(20)

    source = DriverSource("cam", deaf, LOG, max_age_s=1, join_s=0.05)
    source.start()
    started = time.monotonic()
    source.stop()
    assert time.monotonic() - started < 10
    assert "did not end" in caplog.text
    release.set()


def test_a_feed_is_wanted_for_a_while_after_a_question():
    feed = Feed(lambda _make: None, idle_after_s=0.0)
    assert not feed.is_wanted()
    feed = Feed(lambda _make: None, idle_after_s=60.0)
    assert feed.is_wanted()
    feed.stop()
    feed.wait_until_wanted()
