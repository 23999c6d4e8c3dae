"""Whether the machine sends by itself what it captures, and if not, why, in words for its user."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

KEY = "should_sync"
SENSOR_PATIENCE_S = 5.0
DISABLED = "sync is disabled in the data manager's configuration"
HELD = "sync is held back"


class SyncHold:
    """`sync_disabled` and the selective-sync sensor together. Only a true `should_sync` lets captures go."""

    def __init__(self, disabled: bool, sensor: str, find: Callable[[], Any | None], log: logging.Logger) -> None:
        self._disabled = disabled
        self._sensor = sensor
        self._find = find
        self._log = log
        self.why = DISABLED if disabled else self._words("has not been asked yet") if sensor else ""
        """Empty: nothing is held back."""

    @property
    def state(self) -> str:
        """`sync_state` of the Ledger, as far as it is decided here."""
        return "disabled" if self._disabled else "held" if self.why else ""

    async def look(self) -> str:
        """Asks the sensor; returns `why`."""
        if self._disabled or not self._sensor:
            return self.why
        why = await self._ask()
        if why != self.why:
            self._log.info("%s", why or f"the sensor '{self._sensor}' lets sync go on")
        self.why = why
        return why

    async def _ask(self) -> str:
        sensor = self._find()
        if sensor is None:
            return self._words("(selective_syncer_name) does not exist or is not ready")
        try:
            async with asyncio.timeout(SENSOR_PATIENCE_S) as patience:
                readings = await sensor.get_readings()
        except Exception as error:  # noqa: BLE001 (a driver may raise anything; no answer means no sync this time)
            if patience.expired():
                return self._words(f"has not answered within {SENSOR_PATIENCE_S:.0f} s")
            return self._words(f"cannot be read: {str(error) or type(error).__name__}")
        return "" if (problem := _judge(readings)) == "" else self._words(problem)

    def _words(self, problem: str) -> str:
        return f"{HELD}: the sensor '{self._sensor}' {problem}"


def _judge(readings: Any) -> str:
    """What is wrong with a sensor's readings; "" when they let sync go on."""
    if not isinstance(readings, Mapping):
        return f"gives no readings but {type(readings).__name__}"
    if KEY not in readings:
        return f"says nothing of {KEY}, only of {', '.join(map(str, readings)) or 'nothing'}"
    value = readings[KEY]
    if value is True:
        return ""
    if value is False:
        return f"says {KEY}: false"
    return f"says {KEY}: {value!r}, which is neither true nor false"
