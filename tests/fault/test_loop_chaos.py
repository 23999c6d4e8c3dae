"""Capture, sync and app are killed at random while the line between them is cut at random: nothing is lost or doubled.

Counted by three who do not know of each other: the machine's ledger, the app's items, and a witness who has read capture
files while they waited. `GLEANER_FAULT_KILLS` says how many kills, `GLEANER_FAULT_SEED` repeats an order.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fault_chaos import Chaos, Witness, doubled, unmatched
from fault_loop import Loop, assert_nothing_lost_or_doubled, settle, wait_for

from cutting_proxy import CuttingProxy

KILLS = int(os.environ.get("GLEANER_FAULT_KILLS", "12"))
SEED = int(os.environ.get("GLEANER_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)


@pytest.fixture
def cut_loop(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[tuple[Loop, list[CuttingProxy]]]:
    web, grpc, machine = free_ports(3)
    loop = Loop(tmp_path, (web, grpc, machine))
    with ExitStack() as stack:
        proxies = [stack.enter_context(CuttingProxy(port)) for port in (web, grpc)]
        loop.proxies = (proxies[0].port, proxies[1].port)
        stack.callback(loop.app.stop)
        stack.callback(loop.machine.stop)
        loop.app.start()
        loop.log_in()
        loop.set_up()
        loop.machine.start()
        yield loop, proxies


@pytest.mark.slow
@pytest.mark.timeout(240 + 6 * KILLS)
def test_kills_and_cuts_at_random_lose_and_double_nothing(
    cut_loop: tuple[Loop, list[CuttingProxy]], capsys: pytest.CaptureFixture[str]
) -> None:
    loop, proxies = cut_loop
    wait_for(lambda: loop.items() > 0, 60, lambda: "no first picture: " + loop.machine.log.read_text()[-2000:])
    chaos = Chaos(loop, proxies, random.Random(SEED))
    began_s = time.monotonic()
    with capsys.disabled():
        print(f"\nchaos: seed {SEED} (GLEANER_FAULT_SEED={SEED} repeats the order)", flush=True)
    with Witness(loop.capture_dir) as witness:
        chaos.run(KILLS)
    settle(loop)
    pictures, readings = loop.picture_times(), loop.reading_times()
    lost = unmatched(witness.pictures, pictures) + unmatched(witness.readings, readings)
    twice = doubled(pictures) + doubled(readings)
    with capsys.disabled():
        print(
            f"chaos: {chaos.killed.total()} SIGKILLs {dict(chaos.killed)}, {chaos.cuts.total()} cuts { {str(cut): n for cut, n in chaos.cuts.items()} } in "
            f"{time.monotonic() - began_s:.0f} s: {len(pictures)} pictures, {len(readings)} readings; witnessed "
            f"{len(witness.pictures)} and {len(witness.readings)}; {len(lost)} lost, {twice} doubled (seed {SEED})"
        )
    assert chaos.killed.total() >= KILLS
    assert not lost
    assert not twice
    assert_nothing_lost_or_doubled(loop, at_least=KILLS)
    assert witness.pictures, "nobody was there to see whether something is lost"
