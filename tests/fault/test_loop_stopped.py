"""Processes that stand still for a while (SIGSTOP, a suspended computer) and go on as if nothing had been."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from fault_chaos import Witness, doubled, unmatched
from fault_loop import CAPTURE, Loop, assert_nothing_lost_or_doubled, settle, wait_for

STOPPED_S = float(os.environ.get("GLEANER_STOPPED_S", "1.5"))
# What was under way when the machine was stopped may end after that, with the time when it began.
UNDER_WAY_S = 0.2


def stand_still(pids: list[int]) -> tuple[float, float]:
    """(when they stopped, when they went on), seconds since the epoch."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    stopped_at = time.time()
    threading.Event().wait(STOPPED_S)
    went_on_at = time.time()
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    return stopped_at, went_on_at


def pids_of(loop: Loop) -> dict[str, int]:
    assert loop.machine.process is not None
    assert loop.app.process is not None
    sync = loop.machine.sync_pid
    assert sync is not None
    return {"machine": loop.machine.process.pid, "sync": sync, "app": loop.app.process.pid}


def most_in_a_second(times: list[float], since: float) -> int:
    """Of the captures that began within a second after `since`."""
    return sum(since <= moment < since + 1.0 for moment in times)


@pytest.mark.slow
@pytest.mark.timeout(180 + 5 * STOPPED_S)
def test_what_stood_still_goes_on_without_a_burst_and_loses_and_doubles_nothing(loop: Loop) -> None:
    with Witness(loop.capture_dir) as witness:
        pids = pids_of(loop)
        stops = {name: stand_still([pids[name]]) for name in ("sync", "app", "machine")}
        stops["machine and sync"] = stand_still([pids["machine"], pids["sync"]])
        wait_for(lambda: loop.captured_since(stops["machine and sync"][1] + 1.0) >= 5, 60, lambda: str(loop.ledger()))
        assert pids_of(loop) == pids, "somebody was started again"
    settle(loop)
    assert_nothing_lost_or_doubled(loop, at_least=10)
    found = {"GetImages": loop.picture_times(), "Readings": loop.reading_times()}
    assert not unmatched(witness.pictures, found["GetImages"]) + unmatched(witness.readings, found["Readings"])
    for _, method, hz in CAPTURE:
        assert not doubled(found[method])
        moments = [microseconds / 1e6 for microseconds in found[method]]
        for who, (stopped_at, went_on_at) in stops.items():
            assert most_in_a_second(moments, went_on_at) <= hz + 2, f"{method} makes up for the time when {who} stood"
            if "machine" in who:
                assert not [m for m in moments if stopped_at + UNDER_WAY_S < m < went_on_at - 0.01]
            else:  # neither a slow line nor an app that hangs is felt by capture
                during = [m for m in moments if stopped_at < m < went_on_at]
                assert len(during) >= 0.3 * hz * (went_on_at - stopped_at), f"{method} felt that {who} stood still"
