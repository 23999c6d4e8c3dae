"""Who may send next: bytes on the way are bounded by the flow, and what matters more goes first.

Order: what somebody waits for; tagged data; new data; the backlog, oldest first; tagged big files; big files. Small files
come before big ones whatever their age, so a video never delays a reading. So that nothing starves, one turn in eight
goes to the lowest lane that waits: on a line that new data fills, the backlog still shrinks.
"""

from __future__ import annotations

import asyncio
import heapq
from enum import IntEnum
from typing import NamedTuple

from gleaner.machine.sync.flow import Flow
from gleaner.wire.sync_frames import WINDOW_FRAMES

LOWEST_GETS_ONE_IN = 8


class Lane(IntEnum):
    URGENT = 0
    TAGGED = 1
    NEW = 2
    BACKLOG = 3
    BIG_TAGGED = 4
    BIG = 5


class _Waiting(NamedTuple):
    lane: Lane
    number: int
    size: int
    admitted: asyncio.Future[None]


class Lanes:
    """Admits frames while at most WINDOW_FRAMES and the flow's bytes are unanswered; a bigger one waits for an empty line."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._frames = 0
        self._bytes = 0
        self._number = 0
        self._turns = 0
        self._waiting: list[_Waiting] = []
        self._open = True

    @property
    def is_pressed(self) -> bool:
        """Whether frames wait for room: only then do answers tell how fast the line is."""
        return bool(self._waiting)

    async def enter(self, size: int, lane: Lane) -> None:
        """Returns when a frame of `size` bytes may go. `leave` must follow when it is answered."""
        self._number += 1
        one = _Waiting(lane, self._number, size, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting, one)
        self._admit()
        try:
            await one.admitted
        except asyncio.CancelledError:
            if one.admitted.done() and not one.admitted.cancelled():
                self.leave(size)
            else:
                self._forget(one)
            raise

    def leave(self, size: int) -> None:
        self._frames -= 1
        self._bytes -= size
        self._admit()

    def pause(self) -> None:
        self._open = False

    def resume(self) -> None:
        self._open = True
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._open:
            self._turns += 1
            is_lowest = self._turns % LOWEST_GETS_ONE_IN == 0
            one = max(self._waiting, key=lambda w: (w.lane, -w.number)) if is_lowest else self._waiting[0]
            if one.admitted.cancelled():  # its task was cancelled a moment ago and has not run since
                self._forget(one)
                continue
            if not self._fits(one.size):
                self._turns -= 1
                return
            self._forget(one)
            self._frames += 1
            self._bytes += one.size
            one.admitted.set_result(None)

    def _forget(self, one: _Waiting) -> None:
        if one in self._waiting:
            self._waiting.remove(one)
            heapq.heapify(self._waiting)

    def _fits(self, size: int) -> bool:
        if self._frames == 0:
            return True
        return self._frames < WINDOW_FRAMES and self._bytes + size <= self._flow.window_bytes
