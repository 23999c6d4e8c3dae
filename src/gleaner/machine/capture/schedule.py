"""When a collector is due: on a fixed grid of absolute times, so that neither delays nor clock changes add up."""

from __future__ import annotations

import math
from dataclasses import dataclass

SLOWEST_HZ = 1e-6


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
