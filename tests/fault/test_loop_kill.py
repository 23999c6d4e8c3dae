"""The promise of the whole loop: machine and app are killed at random while capturing, and nothing is lost or doubled.

Counted from two independent ledgers: the machine's own (captured = synced + waiting + dropped) against what the app holds.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_loop import Loop, answers, assert_nothing_lost_or_doubled, is_settled, wait_for

ROUNDS = int(os.environ.get("GLEANER_FAULT_ROUNDS", "10"))
OFFLINE_S = float(os.environ.get("GLEANER_OFFLINE_S", "8"))


@pytest.fixture
def loop(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Loop]:
    web, grpc, machine = free_ports(3)
    made = Loop(tmp_path, (web, grpc, machine))
    made.app.start()
    try:
        made.log_in()
        made.set_up()
        made.machine.start()
        yield made
    finally:
        made.machine.stop()
        made.app.stop()


def settle(loop: Loop) -> None:
    """Switches capture off and waits until everything captured was acknowledged."""
    wait_for(lambda: answers(loop), 30, lambda: "the app did not come back: " + loop.app.log.read_text()[-2000:])
    loop.configure(capture_disabled=True)
    wait_for(
        lambda: is_settled(loop),
        90,
        lambda: f"not everything was sent: {loop.ledger()}\n" + loop.machine.log.read_text()[-2000:],
    )
    loop.machine.stop()


@pytest.mark.slow
@pytest.mark.timeout(180 + 12 * ROUNDS)
def test_killing_machine_and_app_at_random_loses_and_doubles_nothing(loop: Loop) -> None:
    chance = random.Random(20261122)
    wait_for(lambda: loop.items() > 0, 30, lambda: "no first picture: " + loop.machine.log.read_text()[-2000:])
    pause = threading.Event()
    for _ in range(ROUNDS):
        victims = chance.choice([[loop.machine], [loop.app], [loop.machine, loop.app]])
        pause.wait(chance.uniform(0.3, 2.5))
        for victim in victims:
            victim.kill()
        pause.wait(chance.uniform(0.0, 0.5))
        for victim in victims:
            victim.start()
    settle(loop)
    assert_nothing_lost_or_doubled(loop, at_least=ROUNDS)


@pytest.mark.slow
@pytest.mark.timeout(180 + OFFLINE_S)
def test_what_was_captured_while_the_app_was_away_arrives_once_with_its_original_times(loop: Loop) -> None:
    wait_for(lambda: loop.items() > 0, 30, lambda: "no first picture: " + loop.machine.log.read_text()[-2000:])
    loop.app.stop()
    stopped_at = time.time()
    threading.Event().wait(OFFLINE_S)
    started_at = time.time()
    loop.app.start()
    settle(loop)
    assert_nothing_lost_or_doubled(loop, at_least=int(OFFLINE_S * 4))

    moments = loop.captured_at()
    assert len(set(moments)) == len(moments), "two pictures carry the same time"
    away = [moment for moment in moments if stopped_at < moment < started_at]
    # The machine may have been slow, but it never paused: pictures from all over the time without an app are there.
    assert len(away) >= OFFLINE_S
    assert min(away) < stopped_at + OFFLINE_S / 2 < max(away)
