"""One thread that knows when every collector is due, and one that watches it.

The clock thread sleeps until the next deadline of all collectors (a heap) and calls the collector that is due. That call
must return at once: a collector reads instant values right there and starts everything else elsewhere. Should a call not
return, the watch thread hands the heap to a new clock thread: a driver that hangs takes its own ticks along and nobody
else's. asyncio's timers would not do: epoll counts in whole milliseconds and everything else on the loop comes first.
"""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

from gleaner.machine.capture.schedule import CLOSEST_SHARE, next_due

WATCH_S = 0.05
# Longer than any instant read takes, also on a machine whose disk or processor is overloaded.
HUNG_AFTER_S = 0.2
# Ticks of one frequency are spread over a few slots: ten at once would wait for one another, one at a time would wake the
# thread ten times. Measured at 10 x 1 kHz: lateness 0.03 ms, and a third less CPU than one at a time.
SLOT_S = 0.00033
SLOTS = 3
_LONGEST_WAIT_S = 3600.0
_PR_SET_TIMERSLACK = 29


class Scheduled(Protocol):
    """What the scheduler drives. Both methods are called in its threads."""

    def due(self, at_s: float) -> None:
        """The tick of monotonic time `at_s`; must return at once."""

    def skip(self, ticks: int) -> None:
        """So many ticks passed while the machine did not run or `due` took too long."""

    def hung(self) -> None:
        """`due` has not returned for HUNG_AFTER_S: it must not be called in the clock thread again."""

    def watch(self, now_s: float) -> None:
        """Called every WATCH_S, to notice what does not answer."""


class _Entry:
    def __init__(self, target: Scheduled, interval_s: float, due_s: float) -> None:
        self.target = target
        self.interval_s = interval_s
        self.due_s = due_s


class Scheduler:
    """`start() → running → stop()`; `add` and `remove` from any thread."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = monotonic_s
        self._lock = threading.Lock()
        self._heap: list[tuple[float, int, _Entry]] = []
        self._entries: dict[Scheduled, _Entry] = {}
        self._order = itertools.count()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._generation = 0
        self._calling: tuple[_Entry, float] | None = None
        self._called = threading.Condition(self._lock)
        self._waiters = 0
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        if not self._threads:
            self._begin_clock()
            watch = threading.Thread(target=self._watch, name="capture-watch")
            self._threads.append(watch)
            watch.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """No tick begins afterwards. A driver that hangs in the clock thread is left behind after `timeout_s`."""
        self._stopping.set()
        with self._lock:
            self._generation += 1
        self._wake.put(None)
        threads, self._threads = self._threads, []
        deadline_s = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def add(self, target: Scheduled, interval_s: float) -> None:
        """First due after one interval, then on the grid of that time."""
        with self._lock:
            spread_s = min(SLOT_S, interval_s / SLOTS) * (next(self._order) % SLOTS)
            entry = _Entry(target, interval_s, self._now_s() + interval_s + spread_s)
            self._entries[target] = entry
            heapq.heappush(self._heap, (entry.due_s, next(self._order), entry))
        self._wake.put(None)

    def remove(self, target: Scheduled, timeout_s: float = HUNG_AFTER_S) -> None:
        """Its `due` is not called any more; one that is under way gets `timeout_s` to return."""
        with self._lock:
            entry = self._entries.pop(target, None)
            if entry is not None:
                self._heap[:] = [item for item in self._heap if item[2] is not entry]
                heapq.heapify(self._heap)
                self._waiters += 1
                self._called.wait_for(lambda: self._calling is None or self._calling[0] is not entry, timeout_s)
                self._waiters -= 1

    # --- the clock thread --------------------------------------------------------------------------------------------

    def _begin_clock(self) -> None:
        self._generation += 1
        clock = threading.Thread(target=self._run, args=(self._generation,), name="capture-clock")
        self._threads.append(clock)
        clock.start()

    def _run(self, generation: int) -> None:
        _be_punctual()
        now_s, sleep = self._now_s, self._wake.get
        while generation == self._generation:
            with self._lock:
                entry = self._heap[0][2] if self._heap else None
                wait_s = entry.due_s - now_s() if entry is not None else _LONGEST_WAIT_S
                if entry is not None and wait_s <= 0:
                    # The next deadline first: whatever the call does, the heap stays whole.
                    at_s = entry.due_s
                    self._calling = calling = (entry, at_s - wait_s)
                    self._plan(entry, at_s - wait_s)
            if entry is None or wait_s > 0:
                with contextlib.suppress(queue.Empty):
                    sleep(timeout=min(wait_s, _LONGEST_WAIT_S))
                continue
            entry.target.due(at_s)
            # Unless the watch thread has given the heap away meanwhile.
            if self._calling is calling:
                self._calling = None
                if self._waiters:
                    with self._lock:
                        self._called.notify_all()

    def _plan(self, entry: _Entry, began_s: float) -> None:
        at_s = entry.due_s + entry.interval_s
        if at_s - began_s < entry.interval_s * CLOSEST_SHARE:
            due = next_due(entry.due_s, began_s + entry.interval_s * CLOSEST_SHARE, entry.interval_s)
            at_s = due.at_s
            entry.target.skip(due.skipped)
        entry.due_s = at_s
        heapq.heapreplace(self._heap, (at_s, next(self._order), entry))

    # --- the watch thread --------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_S):
            now_s = self._now_s()
            with self._lock:
                calling, targets = self._calling, list(self._entries)
                is_hung = calling is not None and now_s - calling[1] > HUNG_AFTER_S
                if is_hung and not self._stopping.is_set():
                    self._calling = None
                    self._begin_clock()
            if is_hung and calling is not None:
                calling[0].target.hung()
            for target in targets:
                target.watch(now_s)


def _be_punctual() -> None:
    """Linux lets timers of ordinary threads slip by 50 µs to save power; a tick of 1 kHz is worth more."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)
