"""The capture control sensor: a sensor of the machine that says, ten times a second, what is captured how often.

Under the configured key its readings hold a list of overrides `{resource_name, method, capture_frequency_hz?, tags?}`:
frequency 0 stops that collector, none leaves the configured one, `tags` replace. An override may also begin what the
configuration does not capture at all. Whatever cannot be read or understood drops all overrides: the configuration holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gleaner.machine.capture.collector import CollectorSettings
from gleaner.machine.capture.errors import CaptureError
from gleaner.machine.capture.methods import find_method
from gleaner.machine.capture.plan import Plan
from gleaner.machine.capture.schedule import FASTEST_HZ, SLOWEST_HZ
from gleaner.machine.capture.sequences import SequenceKey, parse_sequences
from gleaner.wire.machine_config import MachineConfig

POLL_S = 0.1
ANSWER_S = 5.0
_NEEDS_PARAMETERS = frozenset(("Analogs", "Gpios"))
"""Of a board: which reader or pin cannot be told from an override."""


class NotUnderstood(ValueError):
    """The sensor's readings say nothing usable; the message says what is wrong with them."""


@dataclass(frozen=True)
class Override:
    resource: str
    method: str
    frequency_hz: float | None = None
    """None: as configured."""
    tags: tuple[str, ...] | None = None
    """None: as configured."""


@dataclass(frozen=True)
class Orders:
    """What the sensor said last."""

    overrides: tuple[Override, ...] = ()
    sequences: frozenset[SequenceKey] = frozenset()


def parse_orders(readings: Mapping[str, Any], key: str) -> Orders:
    """Raises NotUnderstood. Without the key there are no overrides, which is an ordinary state."""
    listed = readings.get(key, [])
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise NotUnderstood(f"{key!r} must be a list of overrides, it is {type(listed).__name__}")
    try:
        sequences = parse_sequences(readings.get("sequences", []))
    except ValueError as error:
        raise NotUnderstood(str(error)) from error
    return Orders(tuple(_override(item, key) for item in listed), sequences)


def _override(item: Any, key: str) -> Override:
    if not isinstance(item, Mapping):
        raise NotUnderstood(f"an override in {key!r} must be an object, it is {type(item).__name__}")
    resource, method = item.get("resource_name"), item.get("method")
    if not isinstance(resource, str) or not resource or not isinstance(method, str) or not method:
        raise NotUnderstood(f"an override in {key!r} needs resource_name and method")
    frequency, tags = item.get("capture_frequency_hz"), item.get("tags")
    if frequency is not None and (
        isinstance(frequency, bool) or not isinstance(frequency, (int, float)) or not 0 <= frequency <= FASTEST_HZ
    ):
        raise NotUnderstood(
            f"capture_frequency_hz of {resource} {method} must be a number from 0 to {FASTEST_HZ:g}, it is {frequency!r}"
        )
    if tags is not None and not (isinstance(tags, Sequence) and all(isinstance(tag, str) for tag in tags)):
        raise NotUnderstood(f"tags of {resource} {method} must be a list of texts")
    return Override(
        resource, method, None if frequency is None else float(frequency), None if tags is None else tuple(tags)
    )


def overridden(
    plan: Plan, overrides: Sequence[Override], config: MachineConfig, tags: tuple[str, ...], rotate_bytes: int
) -> tuple[Plan, tuple[str, ...]]:
    """The plan as the overrides want it, and what of them cannot be followed."""
    collectors = {settings.directory: settings for settings in plan.collectors}
    warnings = []
    for override in overrides:
        matching = [
            settings
            for settings in plan.collectors
            if override.resource in (settings.resource, settings.lookup) and settings.method == override.method
        ]
        for settings in matching:
            if override.frequency_hz is not None and override.frequency_hz < SLOWEST_HZ:
                collectors.pop(settings.directory, None)
            else:
                collectors[settings.directory] = _changed(settings, override)
        if not matching and override.frequency_hz:
            begun = _begun(override, config, tags, rotate_bytes)
            if isinstance(begun, str):
                warnings.append(begun)
            else:
                collectors[begun.directory] = begun
    problems = {directory: why for directory, why in plan.problems.items() if directory not in collectors}
    return Plan(tuple(collectors.values()), problems), tuple(warnings)


def _changed(settings: CollectorSettings, override: Override) -> CollectorSettings:
    frequency_hz = settings.frequency_hz if override.frequency_hz is None else override.frequency_hz
    tags = settings.tags if override.tags is None else override.tags
    return replace(settings, frequency_hz=frequency_hz, tags=tags)


def _begun(
    override: Override, config: MachineConfig, tags: tuple[str, ...], rotate_bytes: int
) -> CollectorSettings | str:
    """A collector of something that the configuration does not capture, or why it cannot be."""
    resource = next((one for one in config.resources() if one.name == override.resource), None)
    if resource is None:
        return f"the machine has no resource {override.resource!r} in its configuration"
    if resource.api == "rdk:component:board" and override.method in _NEEDS_PARAMETERS:
        return f"{override.method} of {override.resource} needs additional_params: configure it under Data capture"
    try:
        find_method(resource.api, override.method).check(resource.api, {})
    except CaptureError as error:
        return str(error)
    return CollectorSettings(
        api=resource.api,
        resource=resource.name,
        method=override.method,
        frequency_hz=override.frequency_hz or 0.0,
        tags=tags if override.tags is None else override.tags,
        rotate_bytes=rotate_bytes,
    )


class CaptureControl:
    """Asks the sensor; `run` until cancelled. `follow` is called with what it says, whenever that changes."""

    def __init__(
        self,
        name: str,
        key: str,
        find_sensor: Callable[[], Any | None],
        follow: Callable[[Orders], Awaitable[None]],
        log: logging.Logger,
    ) -> None:
        self._name = name
        self._key = key
        self._find_sensor = find_sensor
        self._follow = follow
        self._log = log
        self.orders = Orders()
        self.problem = ""

    async def run(self) -> None:
        while True:
            orders = await self._ask()
            if orders != self.orders:
                self.orders = orders
                await self._follow(orders)
            await asyncio.sleep(POLL_S)

    async def _ask(self) -> Orders:
        sensor = self._find_sensor()
        try:
            if sensor is None:
                raise NotUnderstood("the machine has no such sensor, or it is not ready")
            async with asyncio.timeout(ANSWER_S):
                orders = parse_orders(await sensor.get_readings(), self._key)
        except TimeoutError:
            return self._without(f"it has not answered for {ANSWER_S:g} s")
        except Exception as error:  # noqa: BLE001 (a driver may raise anything; without orders the configuration holds)
            return self._without(str(error) or type(error).__name__)
        if self.problem:
            self._log.info("capture control sensor %s is followed again", self._name)
            self.problem = ""
        return orders

    def _without(self, problem: str) -> Orders:
        """Nobody ends a sequence by falling silent: a loose contact would cut it in two."""
        if problem != self.problem:
            self._log.warning(
                "capture control sensor %s cannot be followed, capture is as configured: %s", self._name, problem
            )
            self.problem = problem
        return Orders(sequences=self.orders.sequences)
