"""What a full disk leaves of a week without a network: our thinning beside deleting every fifth file.

Run: `python bench/disk_full.py [--days 7]`. Simulated: a 20 GB disk of which 8 GB belong to others, looked at every 30 s.
A camera writes 100 kB each second (1 in 100 tagged), an inertial sensor 256 kB a minute, a door 1 kB every 10 minutes.
Ours is the machine's own policy (`machine/capture/thinning.py` and the marks of `disk.py`). The peer is the rule of
Viam's data manager: at 90 % used, of which captures half, delete every fifth file, walking the folders in the order of
their names. The last line is JSON; gaps are in periods of the sensor, the longest of all sensors.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass, field

import numpy as np

from gleaner.machine.capture.disk import DiskSpace, Marks, bytes_to_free
from gleaner.machine.capture.thinning import Series, choose

DISK, OTHERS = 20_000_000_000, 8_000_000_000
LOOK_S = 30


@dataclass
class Sensor:
    name: str
    period_s: int
    size: int
    tagged_share: float = 0.0
    times_s: list[int] = field(default_factory=list)
    tagged: list[bool] = field(default_factory=list)
    written: int = 0
    tagged_written: int = 0

    def keep(self, mask: np.ndarray) -> None:
        self.times_s = [t for t, ok in zip(self.times_s, mask, strict=True) if ok]
        self.tagged = [t for t, ok in zip(self.tagged, mask, strict=True) if ok]

    @property
    def size_bytes(self) -> int:
        return len(self.times_s) * self.size

    @property
    def max_gap_periods(self) -> float:
        return max(np.diff(self.times_s), default=0) / self.period_s

    @property
    def tagged_lost(self) -> int:
        return self.tagged_written - sum(self.tagged)


def sensors() -> list[Sensor]:
    return [Sensor("camera", 1, 100_000, 0.01), Sensor("door", 600, 1_000), Sensor("imu", 60, 256_000)]


def ours(population: list[Sensor]) -> None:
    used = sum(one.size_bytes for one in population)
    need = bytes_to_free(DiskSpace(DISK, DISK - OTHERS - used), used, Marks())
    if not need:
        return
    series = [
        Series(
            one.name,
            np.array(one.times_s, np.int64),
            np.full(len(one.times_s), one.size, np.int64),
            np.array(one.tagged, np.bool_),
        )
        for one in population
    ]
    for one, gone in zip(population, choose(series, need), strict=True):
        one.keep(~gone)


def every_fifth(population: list[Sensor]) -> None:
    used = sum(one.size_bytes for one in population)
    if (OTHERS + used) / DISK < 0.9 or used / DISK < 0.5:
        return
    index = 0
    for one in sorted(population, key=lambda sensor: sensor.name):
        places = np.arange(index, index + len(one.times_s))
        index += len(one.times_s)
        one.keep(places % 5 != 0)


def simulate(policy, days: int) -> tuple[list[Sensor], float]:  # type: ignore[no-untyped-def]
    chance, population, peak, began = random.Random(0), sensors(), 0.0, time.process_time()
    for now in range(0, days * 86_400, LOOK_S):
        for one in population:
            for moment in range(now, now + LOOK_S):
                if moment % one.period_s == 0:
                    is_tagged = chance.random() < one.tagged_share
                    one.times_s.append(moment)
                    one.tagged.append(is_tagged)
                    one.written += 1
                    one.tagged_written += is_tagged
        peak = max(peak, (OTHERS + sum(one.size_bytes for one in population)) / DISK)
        policy(population)
    print(f"{policy.__name__}: at most {peak:.1%} of the disk used, {time.process_time() - began:.1f} s of CPU")
    for one in population:
        tenths = np.histogram(one.times_s, 10, (0, days * 86_400))[0]
        print(
            f"  {one.name:7} kept {len(one.times_s):7,} of {one.written:7,}, longest gap {one.max_gap_periods:6.0f} periods, "
            f"tagged lost {one.tagged_lost}/{one.tagged_written}, by tenth of the time {tenths.tolist()}"
        )
    return population, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=7)
    days = parser.parse_args().days
    (camera, door, imu), peak = simulate(ours, days)
    theirs, _ = simulate(every_fifth, days)
    print(
        json.dumps(
            {
                "max_gap_periods": round(max(s.max_gap_periods for s in (camera, door, imu)), 1),
                "tagged_lost": camera.tagged_lost,
                "rare_kept": round(len(door.times_s) / door.written, 4),
                "peak_disk_used": round(peak, 3),
                "every_fifth_max_gap_periods": round(max(s.max_gap_periods for s in theirs), 1),
                "every_fifth_tagged_lost": theirs[0].tagged_lost,
                "every_fifth_rare_kept": round(len(theirs[1].times_s) / theirs[1].written, 4),
            }
        )
    )


if __name__ == "__main__":
    main()
