"""One page's live WebSocket: what it watches, how many frames it can take, and its driving."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from gleaner.app.errors import AppError, InvalidInput
from gleaner.app.live.driver import Driver
from gleaner.app.live.frames import Frames, FrameSource
from gleaner.app.live.robot import Robot

#: What a page may have on its way before it has said anything about credit.
FIRST_CREDIT = 2
_MOST_CREDIT = 60
_FASTEST_FPS = 60.0


class Viewer:
    """`say` and `show` send text and binary messages; both are called from this viewer's tasks only."""

    def __init__(
        self,
        part_id: str,
        frames: Frames,
        robot: Callable[[], Robot],
        say: Callable[[dict[str, Any]], Awaitable[None]],
        show: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._part_id = part_id
        self._frames = frames
        self._robot = robot
        self._say = say
        self._show = show
        self._credit = FIRST_CREDIT
        self._has_credit = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._driver: Driver | None = None

    async def hear(self, text: str) -> None:
        """One message of the page. A wrong one is answered with an error; the connection stays."""
        try:
            message = json.loads(text)
            await self._obey(message if isinstance(message, dict) else {})
        except AppError as error:
            await self._complain(error)
        except (ValueError, KeyError, TypeError) as error:
            await self._complain(InvalidInput(f"this message cannot be understood: {error}", "Reload the page."))

    async def close(self) -> None:
        await self._watch_nothing()
        if self._driver is not None:
            await self._driver.close()

    async def _obey(self, message: dict[str, Any]) -> None:
        if "watch" in message:
            await self._watch_nothing()
            if message["watch"]:
                wish = message["watch"]
                camera, vision = str(wish["camera"]), str(wish.get("vision") or "")
                fps = min(_FASTEST_FPS, max(0.1, float(wish.get("max_fps") or _FASTEST_FPS)))
                self._credit = FIRST_CREDIT
                self._has_credit.set()
                self._watching = asyncio.create_task(self._watch(camera, vision, fps), name=f"viewer of {camera}")
        if "credit" in message:
            self._credit = min(_MOST_CREDIT, self._credit + max(0, int(message["credit"])))
            self._has_credit.set()
        if "drive" in message:
            wish = message["drive"]
            self._hand().drive(str(wish["base"]), float(wish["linear"]), float(wish["angular"]))
        if "stop" in message:
            self._hand().drive(str(message["stop"]["base"]), 0.0, 0.0)

    def _hand(self) -> Driver:
        if self._driver is None:
            self._driver = Driver(self._robot, self._driving, self._complain)
        return self._driver

    async def _watch(self, camera: str, vision: str, fps: float) -> None:
        seq, said, period_s, due = -1, "", 1 / fps, 0.0
        async with self._source(camera, vision) as source:
            # Frames from before this viewer came are stale: start with the next one.
            seq = source.seq
            while True:
                await self._await_credit()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                frame = await source.newer_than(seq)
                seq, due = frame.seq, max(due + period_s, time.monotonic() - period_s)
                if frame.problem is not None and frame.problem.message != said:
                    await self._complain(frame.problem)
                said = frame.problem.message if frame.problem else ""
                if frame.packed:
                    self._credit -= 1
                    if self._credit > 0 and due <= time.monotonic():
                        source.want()
                    await self._show(frame.packed)

    @asynccontextmanager
    async def _source(self, camera: str, vision: str) -> AsyncIterator[FrameSource]:
        source = self._frames.acquire(self._part_id, camera, vision, self._robot)
        try:
            yield source
        finally:
            self._frames.release(self._part_id, camera, vision)

    async def _await_credit(self) -> None:
        while self._credit <= 0:
            self._has_credit.clear()
            await self._has_credit.wait()

    async def _watch_nothing(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None

    async def _driving(self, base: str, linear: float, angular: float) -> None:
        await self._say({"driving": {"base": base, "linear": linear, "angular": angular}})

    async def _complain(self, error: AppError) -> None:
        await self._say({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
