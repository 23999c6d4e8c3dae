"""Says once that something was lost and once that it is back, whatever the number of attempts between."""

from __future__ import annotations

import logging
import random


class Reachability:
    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._problem: str | None = None

    def good(self) -> None:
        if self._problem != "":
            self._log.info("%s: connected", self._what)
        self._problem = ""

    def bad(self, problem: str) -> None:
        """A different problem is news too."""
        if problem != self._problem:
            self._log.warning("%s: %s; trying again", self._what, problem)
        self._problem = problem


def backoff_s(attempt: int, *, first_s: float = 0.5, most_s: float = 30.0) -> float:
    """How long to wait after the n-th failure in a row (from 0): doubling, with jitter so that machines spread out."""
    return min(most_s, first_s * float(2 ** min(attempt, 16))) * random.uniform(0.5, 1.0)
