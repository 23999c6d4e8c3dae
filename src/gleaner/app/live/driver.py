"""Driving a base from a page: the newest wish only, stopped when the page falls silent.

Two watchdogs stand behind each other: this one stops the base 600 ms after the last message of the page; the machine
stops it 2 s after the last heartbeat of the session, should the app itself or the link fall silent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from gleaner.app.errors import AppError
from gleaner.app.live.robot import Robot

SILENCE_S = 0.6

Report = Callable[[str, float, float], Awaitable[None]]


class Driver:
    """One page's hand on one machine's bases. Ends with `close`, which stops what still moves."""

    def __init__(
        self, robot: Callable[[], Robot], report: Report, complain: Callable[[AppError], Awaitable[None]]
    ) -> None:
        self._robot = robot
        self._report = report
        self._complain = complain
        self._wish: tuple[str, float, float] | None = None
        self._told = asyncio.Event()
        self._moving = ""
        self._session = ""
        self._beats: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._drive(), name="driver")

    def drive(self, base: str, linear: float, angular: float) -> None:
        self._wish = (base, _clamp(linear), _clamp(angular))
        self._told.set()

    async def close(self) -> None:
        for task in (self._task, self._beats):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._moving:
            with contextlib.suppress(AppError):
                await self._robot().stop(self._moving, self._session)

    async def _drive(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SILENCE_S if self._moving else None):
                    await self._told.wait()
                self._told.clear()
                base, linear, angular = self._wish or ("", 0.0, 0.0)
            except TimeoutError:
                base, linear, angular = self._moving, 0.0, 0.0
            try:
                await self._set(base, linear, angular)
            except AppError as error:
                self._moving, self._session = "", ""
                await self._complain(error)

    async def _set(self, base: str, linear: float, angular: float) -> None:
        robot = self._robot()
        if self._moving and self._moving != base:
            await robot.stop(self._moving, self._session)
        if linear == 0 and angular == 0:
            await robot.stop(base, self._session)
            self._moving = ""
        else:
            await self._keep_session(robot)
            self._moving = base
            await robot.set_power(base, linear, angular, self._session)
        await self._report(base, linear, angular)

    async def _keep_session(self, robot: Robot) -> None:
        if self._beats is None or self._beats.done():
            self._session, window_s = await robot.start_session()
            if self._session:
                self._beats = asyncio.create_task(self._beat(window_s / 5), name="session heartbeat")

    async def _beat(self, every_s: float) -> None:
        """Until the machine no longer knows the session; the next move starts another."""
        with contextlib.suppress(AppError):
            while True:
                await asyncio.sleep(every_s)
                await self._robot().heartbeat(self._session)


def _clamp(value: float) -> float:
    return max(-1.0, min(1.0, float(value)))
