"""Capture, sync and app run for as long as they are told (`GLEANER_SOAK_HOURS`): memory and open files stay flat.

By default some seconds, which only show that the soak works; from ten minutes on, growth fails it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_loop import Loop, assert_nothing_lost_or_doubled, settle, wait_for
from fault_soak import Track, sample

SECONDS = float(os.environ.get("GLEANER_SOAK_HOURS") or 0) * 3600 or 2.0
JUDGED_FROM_S = 600.0
MOST_SAMPLES = 2000


@pytest.mark.slow
@pytest.mark.timeout(300 + 1.5 * SECONDS)
def test_memory_and_open_files_stay_flat(
    tmp_path: Path, free_ports: Callable[[int], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    web, grpc, machine = free_ports(3)
    loop = Loop(tmp_path, (web, grpc, machine))
    tracks = [Track(name) for name in ("machine", "sync", "app")]
    try:
        loop.app.start()
        loop.log_in()
        loop.set_up()
        loop.machine.start()
        wait_for(loop.items, 60, lambda: "no first picture: " + loop.machine.log.read_text()[-2000:])
        pause, until_s = threading.Event(), time.monotonic() + SECONDS
        while time.monotonic() < until_s:
            sample(loop, tracks)
            pause.wait(max(0.5, SECONDS / MOST_SAMPLES))
        settle(loop)
        with capsys.disabled():
            print(
                f"\nsoak: {SECONDS / 3600:.2f} h, {loop.items()} pictures; " + "; ".join(str(each) for each in tracks)
            )
        assert_nothing_lost_or_doubled(loop, at_least=5)
    finally:
        loop.machine.stop()
        loop.app.stop()
    if SECONDS >= JUDGED_FROM_S:
        assert all(track.is_flat() for track in tracks), [str(track) for track in tracks]
