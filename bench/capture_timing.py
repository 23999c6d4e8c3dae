"""How punctual capture is at 10 × 1 kHz, and what it costs: our scheduler beside one asyncio task per collector.

Run: `python bench/capture_timing.py [--seconds 5] [--rounds 3]`. Both designs read the same sensors, encode with the same
encoder and hand over to the same writer, which writes real files (checksums, complete files, fsync in the background). The
peer is what most capture programs do: `await asyncio.sleep(due - now)` in a task of its own. Rounds take turns; medians.
`core_share` is the CPU time of the whole process, writer included, per second. A tick is bunched when it follows the one
before by less than half the interval. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viam.components.sensor import Sensor

from gleaner.machine.capture.collector import Collector, CollectorSettings
from gleaner.machine.capture.disk import DiskGuard, DiskSpace
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.methods import Call, find_method
from gleaner.machine.capture.schedule import Lateness
from gleaner.machine.capture.scheduler import Scheduler
from gleaner.machine.capture.writer import Writer

API = "rdk:component:sensor"
COLLECTORS, HZ = 10, 1000.0
LOG = logging.getLogger("bench")
LATE_S: list[float] = []
"""How late every tick of a run began, seconds."""


class AllLateness(Lateness):
    """Keeps every tick, not the last few hundred."""

    def note(self, late_s: float) -> None:
        LATE_S.append(late_s)


class Imu(Sensor):
    """400 bytes of readings, and a note of when it was read."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.read_s: list[float] = []

    def readings_now(self, *, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        self.read_s.append(time.monotonic())
        number = len(self.read_s)
        return {
            "acceleration": {"x": number * 0.01, "y": -0.3, "z": 9.81},
            "angular_velocity": {"x": 0.1, "y": number * 0.02, "z": 0.0},
            "orientation": [0.0, 0.1, 0.2, float(number)],
            "battery": {"volts": 12.1, "percent": 87, "charging": False},
        }

    async def get_readings(self, *, extra: Mapping[str, Any] | None = None, **_: Any) -> Mapping[str, Any]:
        return self.readings_now(extra=extra or {})


@dataclass(frozen=True)
class Outcome:
    core_share: float
    late_p50_ms: float
    late_p99_ms: float
    bunched: int
    captured_share: float


async def ours(sensors: list[Imu], writer: Writer, seconds: float) -> None:
    scheduler = Scheduler()
    scheduler.start()
    collectors = [collector(sensor, writer, scheduler) for sensor in sensors]
    for each in collectors:
        each.start()
    await asyncio.sleep(seconds)
    for each in collectors:
        await each.stop()
    scheduler.stop()


def collector(sensor: Imu, writer: Writer, scheduler: Scheduler) -> Collector:
    settings = CollectorSettings(API, sensor.name, "Readings", HZ, queue_size=1000)
    collector = Collector(settings, sensor, find_method(API, "Readings"), writer, scheduler, LOG)
    collector.lateness = AllLateness()
    return collector


async def asyncio_tasks(sensors: list[Imu], writer: Writer, seconds: float) -> None:
    """The peer: the same collector's encoding and writing, driven by a task and a sleep each."""
    end_s = time.monotonic() + seconds
    idle = Scheduler()  # never started: it only completes the constructor

    async def capture(one: Collector) -> None:
        due_s = time.monotonic() + 1 / HZ
        while due_s < end_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            LATE_S.append(time.monotonic() - due_s)
            requested_ns = time.time_ns()
            captured = await find_method(API, "Readings").read(Call(one.resource, {}))
            one._submit(requested_ns, time.time_ns(), captured)
            due_s += 1 / HZ

    collectors = [collector(sensor, writer, idle) for sensor in sensors]
    await asyncio.gather(*(capture(each) for each in collectors))
    for each in collectors:
        await each.stop()


def measure(design: Any, seconds: float) -> Outcome:
    sensors = [Imu(f"imu{n}") for n in range(COLLECTORS)]
    LATE_S.clear()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = LedgerStore(root, durable=False)
        writer = Writer(root, store, DiskGuard(root, lambda _: DiskSpace(10**12, 10**12)), LOG)
        writer.start()
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        asyncio.run(design(sensors, writer, seconds))
        writer.stop()
        share = (time.process_time() - began_cpu_s) / (time.monotonic() - began_s)
        store.close()
    bunched = 0
    for sensor in sensors:
        bunched += sum(b - a < 0.5 / HZ for a, b in zip(sensor.read_s, sensor.read_s[1:], strict=False))
    late = sorted(LATE_S)
    got = sum(len(sensor.read_s) for sensor in sensors) / (COLLECTORS * HZ * seconds)
    return Outcome(share, late[len(late) // 2] * 1000, late[int(len(late) * 0.99)] * 1000, bunched, got)


def middle(outcomes: list[Outcome], name: str) -> float:
    return float(statistics.median(getattr(outcome, name) for outcome in outcomes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    results: dict[str, list[Outcome]] = {"ours": [], "asyncio": []}
    for _ in range(arguments.rounds):
        results["ours"].append(measure(ours, arguments.seconds))
        results["asyncio"].append(measure(asyncio_tasks, arguments.seconds))
    for name, outcomes in results.items():
        print(
            f"{name:8} {middle(outcomes, 'core_share') * 100:5.1f} % of a core, late p50 {middle(outcomes, 'late_p50_ms'):.3f} ms, "
            f"p99 {middle(outcomes, 'late_p99_ms'):.3f} ms, bunched {middle(outcomes, 'bunched'):.0f}, "
            f"captured {middle(outcomes, 'captured_share') * 100:.1f} %"
        )
    ours_, peer = results["ours"], results["asyncio"]
    print(
        json.dumps(
            {
                "core_share": round(middle(ours_, "core_share"), 3),
                "late_p50_ms": round(middle(ours_, "late_p50_ms"), 4),
                "late_p99_ms": round(middle(ours_, "late_p99_ms"), 3),
                "bunched": max(outcome.bunched for outcome in ours_),
                "captured_share": round(middle(ours_, "captured_share"), 4),
                "asyncio_core_share": round(middle(peer, "core_share"), 3),
                "asyncio_late_p50_ms": round(middle(peer, "late_p50_ms"), 4),
                "asyncio_bunched": max(outcome.bunched for outcome in peer),
            }
        )
    )


if __name__ == "__main__":
    main()
