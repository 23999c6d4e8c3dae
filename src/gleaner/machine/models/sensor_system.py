"""What the computer itself is doing: processor, memory, disk, temperature, network."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from pydantic import Field
from viam.components.sensor import Sensor

from gleaner.machine.models.base import Attributes, BuildContext, CaptureMethod, ModelSpec


class SystemSensorAttributes(Attributes):
    disk_path: str = Field(default="/", title="Disk", description="Any path on the disk whose free space is reported.")
    per_cpu: bool = Field(default=False, title="Each core", description="Report the load of each processor core too.")


class SystemSensor(Sensor):
    """Reads the kernel's counters; each reading takes well under a millisecond, yet never on the event loop."""

    def __init__(self, name: str, attributes: SystemSensorAttributes) -> None:
        super().__init__(name)
        self._attributes = attributes
        self._load = ProcessorLoad()

    async def get_readings(
        self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None, **kwargs: Any
    ) -> Mapping[str, Any]:
        return await asyncio.to_thread(read_system, self._attributes, self._load)


class ProcessorLoad:
    """How busy the cores were since the last reading. psutil's own `cpu_percent` counts per calling thread, so readings
    taken in a pool of threads would miss most of the time."""

    def __init__(self) -> None:
        self._last = psutil.cpu_times(percpu=True)

    def percent_each(self) -> list[float]:
        """0-100 for each core."""
        now, last = psutil.cpu_times(percpu=True), self._last
        self._last = now
        return [_busy_percent(after, before) for after, before in zip(now, last, strict=False)]


def _busy_percent(after: Any, before: Any) -> float:
    spent = {name: getattr(after, name) - getattr(before, name) for name in after._fields}
    # Linux counts guests within user and nice too.
    total = sum(s for name, s in spent.items() if name not in ("guest", "guest_nice"))
    idle = spent["idle"] + spent.get("iowait", 0.0)
    return round(100 * min(1.0, max(0.0, 1 - idle / total)), 1) if total > 0 else 0.0


def read_system(attributes: SystemSensorAttributes, load: ProcessorLoad) -> dict[str, Any]:
    """Percentages are 0-100; `cpu_percent` is the mean since the last reading. Values the system lacks are left out."""
    memory, disk, network = psutil.virtual_memory(), psutil.disk_usage(attributes.disk_path), psutil.net_io_counters()
    each = load.percent_each()
    readings: dict[str, Any] = {
        "cpu_percent": round(sum(each) / len(each), 1) if each else 0.0,
        "memory_percent": memory.percent,
        "memory_used_bytes": memory.used,
        "memory_total_bytes": memory.total,
        "disk_percent": disk.percent,
        "disk_free_bytes": disk.free,
        "uptime_s": round(time.time() - psutil.boot_time(), 1),
    }
    if network is not None:
        readings |= {"network_sent_bytes": network.bytes_sent, "network_received_bytes": network.bytes_recv}
    if attributes.per_cpu:
        readings["cpu_percent_each"] = each
    readings |= dict(zip(("load_1m", "load_5m", "load_15m"), os.getloadavg(), strict=True))
    if (hottest := _hottest_celsius()) is not None:
        readings["temperature_celsius"] = hottest
    return readings


def _hottest_celsius() -> float | None:
    """The hottest of all sensors: the one that throttles the machine. None where the system shows none."""
    read = getattr(psutil, "sensors_temperatures", None)  # Linux and FreeBSD only
    sensors = read() if read is not None else {}
    values = [entry.current for entries in sensors.values() for entry in entries if entry.current]
    return max(values) if values else None


async def build(context: BuildContext) -> SystemSensor:
    if not Path(context.attributes.disk_path).exists():
        raise FileNotFoundError(
            f"disk_path {context.attributes.disk_path!r} does not exist: name a path on the disk to watch"
        )
    return SystemSensor(context.name, context.attributes)


SPEC = ModelSpec(
    api="rdk:component:sensor",
    model="gleaner:sensor:system",
    title="Computer",
    description="Processor, memory, disk, temperature and network of the computer that the machine runs on.",
    icon="cpu",
    attributes=SystemSensorAttributes,
    build=build,
    capture=(CaptureMethod("Readings", "Readings", default_hz=0.1),),
)
