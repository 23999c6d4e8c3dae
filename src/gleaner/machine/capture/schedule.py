"""When a collector is due: on a fixed grid of absolute times, so that neither delays nor clock changes add up."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

SLOWEST_HZ = 1e-6
FASTEST_HZ = 10_000.0
"""Faster than this machine's code can ask at all; a driver that has more gives it in batches."""
CLOSEST_SHARE = 0.5
"""Of the interval: two ticks closer together than this are a bunch, and the second one is left out."""
LATENESS_WINDOW = 512


@dataclass(frozen=True)
class Due:
    at_s: float
    """Monotonic time of the next tick."""
    skipped: int
    """Ticks that are past: they are left out, never made up for in a burst."""


def next_due(previous_s: float, now_s: float, interval_s: float) -> Due:
    """The first tick of the grid `previous + n·interval`, n ≥ 1, that is not past."""
    steps = max(1, math.ceil((now_s - previous_s) / interval_s))
    return Due(previous_s + steps * interval_s, steps - 1)


class Lateness:
    """How late the last ticks began. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._late_s: deque[float] = deque(maxlen=LATENESS_WINDOW)

    def note(self, late_s: float) -> None:
        self._late_s.append(late_s)

    def percentiles_ms(self) -> dict[str, float] | None:
        """`p50` and `p99` in milliseconds; None before the first tick."""
        late_s = sorted(self._late_s.copy())
        if not late_s:
            return None
        last = len(late_s) - 1
        return {name: round(late_s[round(last * share)] * 1000, 3) for name, share in (("p50", 0.5), ("p99", 0.99))}
