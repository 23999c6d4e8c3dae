from __future__ import annotations

import pytest
from grpclib import GRPCError
from machine_fakes import until

from gleaner.machine.names import ResourceKey
from gleaner.machine.rpc.sessions import Sessions

BASE = ResourceKey("rdk:component:base", "rover")
ARM = ResourceKey("rdk:component:arm", "arm")


class Stops:
    def __init__(self, failure: Exception | None = None) -> None:
        self.keys: list[ResourceKey] = []
        self._failure = failure

    async def __call__(self, key: ResourceKey) -> None:
        self.keys.append(key)
        if self._failure is not None:
            raise self._failure


async def test_what_a_silent_client_moved_is_stopped() -> None:
    stops = Stops()
    sessions = Sessions(stops)
    sessions.window_s = 0.01
    session = sessions.start("", "me", "peer")
    sessions.moved(session.id, BASE)
    await until(lambda: stops.keys)
    assert stops.keys == [BASE]
    with pytest.raises(GRPCError, match="SESSION_EXPIRED"):
        sessions.heartbeat(session.id, "me")
    await sessions.close()


async def test_only_the_last_mover_counts() -> None:
    stops = Stops()
    sessions = Sessions(stops)
    first = sessions.start("", "one", "peer")
    second = sessions.start("", "two", "peer")
    sessions.moved(first.id, BASE)
    sessions.moved(first.id, ARM)
    sessions.moved(second.id, BASE)  # the second client took the base over
    sessions.moved("", ARM)  # and someone without a session the arm
    first.deadline = 0.0
    sessions.window_s = 60.0
    sessions.start("", "wake", "peer")
    await until(lambda: first not in sessions.active())
    assert stops.keys == []
    await sessions.close()


async def test_heartbeats_keep_a_session() -> None:
    sessions = Sessions(Stops())
    session = sessions.start("", "me", "peer")
    session.deadline = 0.0
    sessions.heartbeat(session.id, "me")
    assert session.deadline > 0.0
    assert sessions.start(session.id, "me", "peer") is session
    assert sessions.start("unknown", "me", "peer") is not session
    await sessions.close()


async def test_a_session_belongs_to_who_started_it() -> None:
    sessions = Sessions(Stops())
    session = sessions.start("", "me", "peer")
    for check in (sessions.heartbeat, sessions.check):
        with pytest.raises(GRPCError, match="SESSION_EXPIRED"):
            check(session.id, "someone else")
    assert sessions.start(session.id, "someone else", "peer") is not session
    await sessions.close()


async def test_a_resource_that_does_not_stop_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    stops = Stops(RuntimeError("jammed"))
    sessions = Sessions(stops)
    sessions.window_s = 0.01
    sessions.moved(sessions.start("", "me", "peer").id, BASE)
    await until(lambda: "did not stop" in caplog.text)
    assert "rdk:component:base/rover did not stop after its session expired: jammed" in caplog.text
    await sessions.close()
