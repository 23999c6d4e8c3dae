"""This machine's session with a remote: if this machine falls silent, the remote stops what was moved for it."""

from __future__ import annotations

import asyncio
from typing import Any

from grpclib import GRPCError, Status
from viam.proto.robot import SendSessionHeartbeatRequest, StartSessionRequest

from gleaner.machine.foreign.resource import ProcessSilent, call_process

_CALL_S = 5.0
#: Source: Viam's documented rate of heartbeats within the window that the remote sets.
_BEATS_IN_WINDOW = 5
_LEAST_PAUSE_S = 0.01


class RemoteSession:
    """Begins with the first call that moves something; `close` ends its heartbeats."""

    def __init__(self, owner: str, robot: Any) -> None:
        self._owner = owner
        self._robot = robot
        self._id = ""
        self._is_supported = True
        self._starting = asyncio.Lock()
        self._beats: asyncio.Task[None] | None = None

    async def id(self) -> str:
        """Empty for a machine that has no sessions. Raises GRPCError, ProcessSilent."""
        async with self._starting:
            if not self._id and self._is_supported:
                await self._start()
        return self._id

    def close(self) -> None:
        if self._beats is not None:
            self._beats.cancel()

    async def _start(self) -> None:
        try:
            answer = await call_process(self._owner, self._robot.StartSession, StartSessionRequest(), _CALL_S)
        except GRPCError as error:
            if error.status is not Status.UNIMPLEMENTED:
                raise
            self._is_supported = False
            return
        self._id = answer.id
        pause_s = max(_LEAST_PAUSE_S, answer.heartbeat_window.ToNanoseconds() / 1e9 / _BEATS_IN_WINDOW)
        self._beats = asyncio.create_task(self._beat(pause_s), name=f"session with {self._owner}")

    async def _beat(self, pause_s: float) -> None:
        """Until the remote forgets the session, which the next call then begins anew."""
        request = SendSessionHeartbeatRequest(id=self._id)
        while True:
            await asyncio.sleep(pause_s)
            try:
                await call_process(self._owner, self._robot.SendSessionHeartbeat, request, _CALL_S)
            except (GRPCError, ProcessSilent):
                self._id = ""
                return
