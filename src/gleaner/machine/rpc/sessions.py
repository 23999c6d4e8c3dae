"""Sessions: a client that moves something and goes silent has what it moved stopped.

A session lives as long as heartbeats arrive within the window. When it expires, every resource that it was the last to
move through a safety-monitored method is stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

from grpclib import GRPCError, Status

from gleaner.machine.names import ResourceKey

_LOG = logging.getLogger(__name__)

#: Source: Viam's documented default and bounds of `network.sessions.heartbeat_window`.
DEFAULT_WINDOW_S = 2.0
MIN_WINDOW_S = 0.03
MAX_WINDOW_S = 60.0


@dataclass(eq=False)
class Session:
    id: str
    entity: str
    peer: str
    deadline: float


class Sessions:
    """`stop` is called with each resource of an expired session."""

    def __init__(self, stop: Callable[[ResourceKey], Awaitable[None]]) -> None:
        self.window_s = DEFAULT_WINDOW_S
        self._stop = stop
        self._sessions: dict[str, Session] = {}
        self._last_mover: dict[ResourceKey, str] = {}
        self._watch: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    def active(self) -> list[Session]:
        return list(self._sessions.values())

    def start(self, resume: str, entity: str, peer: str) -> Session:
        """The session to resume, or a new one when it is gone."""
        session = self._sessions.get(resume)
        if session is None or session.entity != entity:
            session = Session(str(uuid4()), entity, peer, 0.0)
            self._sessions[session.id] = session
        self._extend(session)
        if self._watch is None:
            self._watch = asyncio.create_task(self._expire_silent(), name="expire silent sessions")
        self._woken.set()
        return session

    def heartbeat(self, session_id: str, entity: str) -> None:
        self._extend(self.check(session_id, entity))

    def check(self, session_id: str, entity: str) -> Session:
        """Raises the error on which viam-sdk's clients start a new session."""
        session = self._sessions.get(session_id)
        if session is None or session.entity != entity:
            raise GRPCError(Status.INVALID_ARGUMENT, "SESSION_EXPIRED")
        return session

    def moved(self, session_id: str, key: ResourceKey) -> None:
        """A safety-monitored method was called; without a session, nobody has to keep it alive."""
        if session_id:
            self._last_mover[key] = session_id
        else:
            self._last_mover.pop(key, None)

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
            self._watch = None

    def _extend(self, session: Session) -> None:
        session.deadline = asyncio.get_running_loop().time() + self.window_s

    async def _expire_silent(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._sessions:
                self._woken.clear()
                await self._woken.wait()
            first = min(session.deadline for session in self._sessions.values())
            await asyncio.sleep(max(0.0, first - loop.time()))
            for session in self.active():
                if session.deadline <= loop.time():
                    await self._expire(session)

    async def _expire(self, session: Session) -> None:
        del self._sessions[session.id]
        keys = [key for key, mover in self._last_mover.items() if mover == session.id]
        for key in keys:
            del self._last_mover[key]
        results = await asyncio.gather(*(self._stop(key) for key in keys), return_exceptions=True)
        for key, result in zip(keys, results, strict=True):
            if isinstance(result, BaseException):
                _LOG.error("%s did not stop after its session expired: %s", key, result)
            else:
                _LOG.warning(
                    "%s was stopped: the client that moved it (%s) went silent for %.1f s",
                    key,
                    session.peer,
                    self.window_s,
                )
