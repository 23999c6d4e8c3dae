"""Tells resources and listeners that the resource graph changed; many changes at once become one telling."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from gleaner.machine.models.base import Host

_LOG = logging.getLogger(__name__)

#: Long enough to join the states of one reconfiguration, short enough not to be felt.
_JOIN_S = 0.02
_TIMEOUT_S = 20.0


class ChangeNotifier:
    """`changed()` may be called at any time on the event loop; the last change is always followed by a telling."""

    def __init__(self, host: Host, instances: Callable[[], Sequence[Any]]) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self._host = host
        self._instances = instances
        self._pending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def changed(self) -> None:
        for callback in self.callbacks:
            callback()
        self._pending.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="tell resources of changes")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            await self._pending.wait()
            await asyncio.sleep(_JOIN_S)
            self._pending.clear()
            for instance in self._instances():
                tell = getattr(instance, "resources_changed", None)
                if tell is not None:
                    await self._tell(instance, tell)

    async def _tell(self, instance: Any, tell: Callable[[Host], Any]) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await tell(self._host)
        except Exception:  # noqa: BLE001 - a model may raise anything here; the next change tells it again
            _LOG.exception("%s failed to take in a change of the machine's resources", instance.name)
