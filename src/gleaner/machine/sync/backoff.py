"""How long to wait before trying the app again."""

from __future__ import annotations

import random

FIRST_S = 0.5
LONGEST_S = 60.0
# A line that worked and broke is tried again at once, spread a little: an app that restarts has its fleet back in turn.
SOON_S = 0.25


class Backoff:
    """Doubles from FIRST_S to `longest_s`; each wait is drawn from its upper half, so that a fleet does not return at once."""

    def __init__(self, chance: random.Random, longest_s: float | None = None) -> None:
        """`longest_s`: LONGEST_S if not said."""
        self._chance = chance
        self._longest_s = LONGEST_S if longest_s is None else longest_s
        self._failures = 0

    def next_s(self) -> float:
        ceiling = min(self._longest_s, FIRST_S * float(1 << min(self._failures, 16)))
        self._failures += 1
        return ceiling * self._chance.uniform(0.5, 1.0)

    def soon_s(self) -> float:
        """The wait after a line that had worked."""
        self._failures = 0
        return SOON_S * self._chance.random()

    def reset(self) -> None:
        self._failures = 0
