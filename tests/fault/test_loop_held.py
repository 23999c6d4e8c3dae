"""`sync_disabled` on a real machine with a real app: nothing goes by itself, not even when the app comes back."""

from __future__ import annotations

import pytest
from fault_loop import Loop, answers, assert_nothing_lost_or_doubled, settle, wait_for


def state(loop: Loop) -> str:
    """Of sync, as the machine's page shows it."""
    status = loop.client.get(f"/parts/{loop.part_id}/status")
    online = status["online_state"] == "online" and status["capture"] is not None
    return str(status["capture"].get("sync_state")) if online else "offline"


def waiting(loop: Loop) -> int:
    return int(loop.ledger()["GetImages"]["waiting"])


@pytest.mark.slow
def test_disabled_sync_stays_so_when_the_app_comes_back_and_the_pages_button_sends(loop: Loop) -> None:
    def log() -> str:
        return loop.machine.log.read_text()[-2000:]

    loop.configure(capture_disabled=False, sync_disabled=True)
    wait_for(lambda: state(loop) == "disabled", 60, log)
    before = waiting(loop)
    wait_for(lambda: waiting(loop) > before + 5, 30, log)  # what was on its way is through
    held = loop.items()
    loop.app.kill()
    loop.app.start()
    wait_for(lambda: answers(loop) and state(loop) == "disabled", 60, log)
    before = waiting(loop)
    wait_for(lambda: waiting(loop) > before + 20, 30, log)
    assert loop.items() == held
    loop.client.post(f"/parts/{loop.part_id}/sync", {})
    wait_for(lambda: loop.items() >= held + 20, 60, log)
    settle(loop)
    assert_nothing_lost_or_doubled(loop, at_least=held + 20)
