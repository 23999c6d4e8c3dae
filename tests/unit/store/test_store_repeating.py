"""Background work: again and again, giving way but not for ever, and ended in the middle when it is told to."""

from __future__ import annotations

import threading

import pytest

from gleaner.app.repeating import GivingWay, Repeating


def test_work_gives_way_only_so_long() -> None:
    now, busy = [0.0], [True]
    turn = GivingWay(lambda: busy[0], 60.0, lambda: now[0])
    assert turn.should_wait()
    now[0] = 61.0
    assert not turn.should_wait()
    turn.done()
    assert turn.should_wait()
    busy[0] = False
    assert not turn.should_wait()


def test_work_that_fails_is_said_and_done_again(caplog: pytest.LogCaptureFixture) -> None:
    times, twice = [0], threading.Event()

    def work() -> None:
        times[0] += 1
        if times[0] == 2:
            twice.set()
        raise OSError("no room")

    repeating = Repeating("again", work, 0.001, at_start=True, what="Tidying")
    repeating.start()
    repeating.start()
    try:
        assert twice.wait(30)
    finally:
        repeating.stop()
        repeating.stop()
    assert "Tidying failed" in caplog.text
    assert not [thread for thread in threading.enumerate() if thread.name == "again"]


def test_work_is_told_to_end_in_its_middle() -> None:
    begun = threading.Event()

    def work() -> None:
        begun.set()
        while not repeating.is_stopping:
            begun.wait(0.001)

    repeating = Repeating("long", work, 3600, at_start=True, what="Tidying")
    repeating.start()
    assert begun.wait(30)
    repeating.stop()
