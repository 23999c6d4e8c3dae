"""An app that is away for a while: everything captured meanwhile arrives once, with its original times."""

from __future__ import annotations

import os
import threading
import time

import pytest
from fault_loop import Loop, assert_nothing_lost_or_doubled, settle, wait_for

OFFLINE_S = float(os.environ.get("GLEANER_OFFLINE_S", "8"))


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
