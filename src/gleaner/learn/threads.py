"""Keeps training at the number of threads that is fastest right now.

With one of two cores taken by another program, two threads wait for each other at every layer: measured 118 ms a step against
70 ms on one thread; with both cores free 47 against 70. Which holds changes while a run goes on, so it is measured again and again.
"""

from __future__ import annotations

import os
from collections.abc import Callable

_TRIAL_STEPS = 3
_TRIAL_EVERY_S = 5.0


def prepare_environment() -> None:
    """Must run before torch is imported. Threads that spin at every barrier are up to 12 times slower when a core is
    shared; a very short spin (1000 rounds, microseconds) keeps the full speed of free cores: 47 ms a step against 76 without.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


class ThreadTuner:
    """Told how long each step took, it tries one and all threads for a few steps each and keeps the faster for 5 s."""

    def __init__(self, most: int, use: Callable[[int], None]) -> None:
        self._choices = sorted({1, max(1, most)}, reverse=True)
        self._use = use
        self._times: dict[int, list[float]] = {}
        self._trial = 0
        self._keep_until_s = 0.0
        use(self._choices[0])

    def after_step(self, step_s: float, now_s: float) -> None:
        if len(self._choices) == 1 or now_s < self._keep_until_s:
            return
        threads = self._choices[self._trial]
        times = self._times.setdefault(threads, [])
        times.append(step_s)
        if len(times) <= _TRIAL_STEPS:  # the first after a change is not counted
            return
        self._trial += 1
        if self._trial < len(self._choices):
            self._use(self._choices[self._trial])
            return
        best = min(self._choices, key=lambda n: sorted(self._times[n][1:])[_TRIAL_STEPS // 2])
        self._use(best)
        self._times, self._trial = {}, 0
        self._keep_until_s = now_s + _TRIAL_EVERY_S
        # Trying begins with the current choice's rival last, so that most trial steps run at full speed.
        self._choices.sort(key=lambda n: n != best)
