"""A line that loses 30 % of the packets and delays the others by half a second: slow, and nothing is lost or doubled."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_line import BadLine, being_at
from fault_chaos import Witness, doubled, unmatched
from fault_loop import Loop, assert_nothing_lost_or_doubled, settle, wait_for

SECONDS = float(os.environ.get("GLEANER_BAD_LINE_S", "3"))
# From here on something has to arrive over such a line. Its TCP waits minutes for an unlucky packet.
JUDGED_FROM_S = 120.0
LOSS, DELAY_S = 0.3, 0.25


@pytest.mark.slow
@pytest.mark.timeout(180 + 2 * SECONDS)
def test_thirty_percent_lost_packets_and_half_a_second_lose_and_double_nothing(
    tmp_path: Path, free_ports: Callable[[int], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    web, grpc, machine = free_ports(3)
    with BadLine(random.Random()) as line, being_at(line.far):
        at = line.far.command, line.near.command
        loop = Loop(tmp_path, (web, grpc, machine), host=line.far.address, app_at=at[0], machine_at=at[1])
        loop.app.start()
        try:
            loop.log_in()
            loop.set_up()
            loop.machine.start()
            wait_for(loop.items, 60, lambda: "no first picture: " + loop.machine.log.read_text()[-2000:])
            with Witness(loop.capture_dir) as witness:
                lost, before = line.lost, loop.items()
                line.set(LOSS, DELAY_S)
                threading.Event().wait(SECONDS)
                through = loop.items() - before
                line.set(0.0, 0.0)
            assert line.lost > lost
            if SECONDS >= JUDGED_FROM_S:
                with capsys.disabled():
                    print(f"\nbad line: {SECONDS:.0f} s, {through} pictures got through, {line.lost} packets lost")
                assert through > 0
            settle(loop)
            assert_nothing_lost_or_doubled(loop, at_least=int(SECONDS))
            pictures, readings = loop.picture_times(), loop.reading_times()
            assert not unmatched(witness.pictures, pictures) + unmatched(witness.readings, readings)
            assert not doubled(pictures) + doubled(readings)
        finally:
            loop.machine.stop()
            loop.app.stop()
