"""How long to wait before trying the app again."""

from __future__ import annotations

import random

FIRST_S = 0.5
LONGEST_S = 60.0


class Backoff:
    """Doubles from FIRST_S to LONGEST_S; each wait is drawn from its upper half, so that a fleet does not return at once."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._failures = 0

    def next_s(self) -> float:
        ceiling = min(LONGEST_S, FIRST_S * float(1 << min(self._failures, 16)))
        self._failures += 1
        return ceiling * self._chance.uniform(0.5, 1.0)

    def reset(self) -> None:
        self._failures = 0
