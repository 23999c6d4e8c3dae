"""What changed, told to the web pages and to the machine link. Safe to publish from any thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """`type` is one of docs/architecture.md's event names; `data` is JSON-able. Seen only inside its organization."""

    type: str
    organization_id: str
    data: dict[str, Any]


#: What a subscriber that could not keep up gets instead of everything it missed: "look again".
LAGGED = Event("items_changed", "", {"rows": None})


class EventBus:
    """Fan-out to bounded queues: a subscriber that does not keep up loses what it missed and is told so (LAGGED)."""

    def __init__(self, capacity: int = 1000) -> None:
        self._capacity = capacity
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queues: set[asyncio.Queue[Event]] = set()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def publish(self, event: Event) -> None:
        """Hands the event to every subscriber; does nothing before `attach` or after the loop has closed."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(self._deliver, event)

    def _deliver(self, event: Event) -> None:
        for queue in self._queues:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(LAGGED)
            queue.put_nowait(event)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[asyncio.Queue[Event]]:
        queue: asyncio.Queue[Event] = asyncio.Queue(self._capacity)
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)
