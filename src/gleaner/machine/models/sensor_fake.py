"""A sensor without hardware: constant or moving values, for trying things out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from viam.components.sensor import Sensor

from gleaner.machine.models.base import Attributes, BuildContext, CaptureMethod, ModelSpec


class Wave(BaseModel):
    """A value that moves between `low` and `high` once per period."""

    model_config = ConfigDict(extra="forbid")

    shape: Literal["sine", "square", "sawtooth", "triangle", "counter"] = Field(
        default="sine", title="Shape", description="A counter adds one each period and never falls back."
    )
    low: float = Field(default=0.0, title="Lowest value")
    high: float = Field(default=1.0, title="Highest value")
    period_s: float = Field(default=10.0, gt=0, title="Period", description="Length of one repetition, in seconds.")


def _three_values() -> dict[str, float | bool | str | Wave]:
    return {"a": 1.0, "b": 2.0, "c": 3.0}


class FakeSensorAttributes(Attributes):
    values: dict[str, float | bool | str | Wave] = Field(
        default_factory=_three_values,
        title="Values",
        description="What each reading holds: a constant, or a wave such as {shape: sine, low: 20, high: 25, period_s: 60}.",
    )


class FakeSensor(Sensor):
    def __init__(self, name: str, attributes: FakeSensorAttributes, clock: Callable[[], float] = time.time) -> None:
        super().__init__(name)
        self._attributes = attributes
        self._clock = clock

    async def get_readings(
        self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None, **kwargs: Any
    ) -> Mapping[str, Any]:
        return self.readings_now(extra=extra or {})

    def readings_now(self, *, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        """Any thread: nothing here waits or changes."""
        now_s = self._clock()
        return {
            name: wave_value(value, now_s) if isinstance(value, Wave) else value
            for name, value in self._attributes.values.items()
        }


def wave_value(wave: Wave, now_s: float) -> float:
    """The value at a time since the epoch, so that every reader of the same wave sees the same value."""
    periods, phase = divmod(now_s / wave.period_s, 1.0)
    if wave.shape == "counter":
        return wave.low + periods
    share = {
        "sine": (1 + math.sin(2 * math.pi * phase)) / 2,
        "square": 1.0 if phase < 0.5 else 0.0,
        "sawtooth": phase,
        "triangle": 1 - abs(2 * phase - 1),
    }[wave.shape]
    return wave.low + (wave.high - wave.low) * share


async def build(context: BuildContext) -> FakeSensor:
    return FakeSensor(context.name, context.attributes)


SPEC = ModelSpec(
    api="rdk:component:sensor",
    model="rdk:builtin:fake",
    title="Made-up values",
    description="Constant or moving values without any hardware, to try capture and charts.",
    icon="flask",
    attributes=FakeSensorAttributes,
    build=build,
    aliases=("gleaner:sensor:fake",),
    capture=(CaptureMethod("Readings", "Readings", default_hz=1.0),),
)
