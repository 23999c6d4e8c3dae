"""The machine's wall clock is set while it captures and sends: by an hour each way, to 1970, and back over midnight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fault_chaos import Witness, doubled, unmatched
from fault_loop import Loop, assert_nothing_lost_or_doubled, settle, wait_for
from stepped_clock import SteppedClock

HOUR_S = 3600.0


@pytest.fixture
def clocks(tmp_path: Path) -> Iterator[tuple[SteppedClock, SteppedClock]]:
    """The machine's and the app's."""
    made = []
    for name in ("machine-clock", "app-clock"):
        (tmp_path / name).mkdir()
        made.append(SteppedClock(tmp_path / name))
    yield made[0], made[1]
    for clock in made:
        clock.close()


@pytest.fixture
def stepped_loop(
    tmp_path: Path, free_ports: Callable[[int], list[int]], clocks: tuple[SteppedClock, SteppedClock]
) -> Iterator[Loop]:
    web, grpc, machine = free_ports(3)
    loop = Loop(tmp_path, (web, grpc, machine))
    loop.machine.environment, loop.app.environment = (clock.environment for clock in clocks)
    loop.app.start()
    try:
        loop.log_in()
        loop.set_up()
        loop.machine.start()
        wait_for(loop.items, 60, lambda: "no first picture: " + loop.machine.log.read_text()[-2000:])
        yield loop
    finally:
        loop.machine.stop()
        loop.app.stop()


def captured(loop: Loop) -> int:
    return int(loop.ledger()["Readings"]["captured"])


def goes_on(loop: Loop, readings: int = 15) -> None:
    """Capture and sync both: so many more readings are with the app."""
    known = captured(loop)
    wait_for(
        lambda: loop.ledger()["Readings"]["synced"] >= known + readings,
        30,
        lambda: f"nothing goes on: {loop.ledger()}\n{loop.machine.log.read_text()[-2000:]}",
    )


def seconds_to_midnight(now_s: float) -> float:
    now = datetime.fromtimestamp(now_s)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()


@pytest.mark.slow
def test_a_clock_that_is_set_forth_and_back_loses_and_doubles_nothing(
    stepped_loop: Loop, clocks: tuple[SteppedClock, SteppedClock]
) -> None:
    loop, (clock, app_clock) = stepped_loop, clocks
    with Witness(loop.capture_dir) as witness:
        for ahead_s in (HOUR_S, -HOUR_S, 0.0, -clock.now_s() + 10.0, 0.0):
            clock.set_ahead(ahead_s)
            goes_on(loop)
        to_midnight_s = seconds_to_midnight(clock.now_s())
        clock.set_ahead(to_midnight_s - 0.3)
        wait_for(lambda: seconds_to_midnight(clock.now_s()) > HOUR_S, 10, lambda: "midnight does not come")
        goes_on(loop)
        clock.set_ahead(to_midnight_s - 1.0)  # into yesterday, over names that are taken, and over midnight again
        goes_on(loop)
        clock.set_ahead(0.0)
        for ahead_s in (HOUR_S, -HOUR_S, 0.0):
            app_clock.set_ahead(ahead_s)
            goes_on(loop)
    settle(loop)
    assert_nothing_lost_or_doubled(loop, at_least=50)
    pictures, readings = loop.picture_times(), loop.reading_times()
    assert not unmatched(witness.pictures, pictures) + unmatched(witness.readings, readings)
    assert not doubled(pictures) + doubled(readings)
    assert not (loop.capture_dir / "failed").exists()
    assert min(readings) < 60 * 1e6, "nothing from 1970"
    assert {round(at / 1e6 / HOUR_S - clock.now_s() / HOUR_S) for at in readings} >= {-1, 0, 1}
    assert "Traceback" not in loop.machine.log.read_text() + loop.app.log.read_text()
