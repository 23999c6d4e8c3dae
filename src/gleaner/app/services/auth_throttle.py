"""Slows down guessing of passwords: after five failures each try waits twice as long, up to a quarter of an hour.

Kept in memory: a restart forgets it, which costs a guesser more than it gives. Bounded, so that made-up e-mails cannot
fill it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gleaner.app.errors import AppError, Unauthenticated

FREE_FAILURES = 5
LONGEST_WAIT_S = 900
_MOST_NAMES = 10_000
_SECOND_NS = 1_000_000_000


class TooManyAttempts(AppError):
    code, http_status, grpc_status = "too_many_attempts", 429, 8


class Throttle:
    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """Name → (failures so far, not again before)."""

    @contextmanager
    def attempt(self, *names: str) -> Iterator[None]:
        """Wrap one try in this: raises TooManyAttempts if any of `names` must wait, counts the try if it raises
        Unauthenticated, and forgets the failures if it succeeds."""
        self._check(names)
        try:
            yield
        except Unauthenticated:
            self._count(names)
            raise
        with self._lock:
            for name in names:
                self._failures.pop(name, None)

    def _check(self, names: tuple[str, ...]) -> None:
        now = self._clock_ns()
        with self._lock:
            until = max((self._failures.get(name, (0, 0))[1] for name in names), default=0)
        if until > now:
            seconds = -(-(until - now) // _SECOND_NS)
            raise TooManyAttempts("too many wrong passwords", f"Wait {seconds} s, then try again.")

    def _count(self, names: tuple[str, ...]) -> None:
        now = self._clock_ns()
        with self._lock:
            for name in names:
                count = self._failures.pop(name, (0, 0))[0] + 1
                wait_s = min(2 ** (count - FREE_FAILURES), LONGEST_WAIT_S) if count >= FREE_FAILURES else 0
                self._failures[name] = (count, now + wait_s * _SECOND_NS)
            while len(self._failures) > _MOST_NAMES:
                self._failures.popitem(last=False)
