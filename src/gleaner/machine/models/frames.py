"""Where a camera's pictures come from.

A `FrameSource` has one life: `start() → read()… → stop()`. Two kinds:
- `OnDemandSource` makes a picture when somebody asks, at most `frame_rate` a second, in one named thread;
- `DriverSource` runs a driver in one named thread that publishes shots as they happen, and starts it again when it is lost.

Nobody asking costs no rendering, decoding or encoding. Callers may sit on any event loop.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from typing import Any

from grpclib import Status

from gleaner.machine.models.pictures import CameraProblem, Picture


class SourceState(StrEnum):
    """STOPPED → STARTING → RUNNING ⇄ LOST → STOPPED."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    LOST = "lost"


class FrameSource(abc.ABC):
    """Where a camera's pictures come from."""

    state: SourceState = SourceState.STOPPED
    error: str = ""
    frames: int = 0
    """Pictures made so far."""

    @abc.abstractmethod
    def start(self) -> None: ...

    @abc.abstractmethod
    async def read(self, timeout_s: float) -> Picture:
        """The newest picture, fresh by the source's own rate. Raises CameraProblem."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Releases the device and ends the thread; blocks for a bounded time. May be called twice."""


class OnDemandSource(FrameSource):
    """Calls `make` in a thread of its own when the last picture is older than one frame period; simultaneous callers share one."""

    def __init__(
        self, name: str, make: Callable[[], Picture], frame_rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._make = make
        self._period_s = 1 / frame_rate
        self._clock = clock
        self._latest: Picture | None = None
        self._made_at_s = 0.0
        self._worker: ThreadPoolExecutor | None = None

    def start(self) -> None:
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"camera-{self._name}")
            self.state = SourceState.RUNNING

    def warm_up(self, work: Callable[[], Any]) -> None:
        """Does `work` in the source's thread before the first picture is asked for."""
        if self._worker is not None:
            self._worker.submit(work)

    async def read(self, timeout_s: float) -> Picture:
        fresh = self._fresh()
        if fresh is not None:
            return fresh
        worker = self._worker
        if worker is None:
            raise CameraProblem(
                f"camera {self._name} is closed: it was removed or is being reconfigured, ask again in a moment"
            )
        try:
            return await asyncio.wait_for(asyncio.wrap_future(worker.submit(self._produce)), timeout_s)
        except TimeoutError:
            raise CameraProblem(
                f"camera {self._name} made no picture within {timeout_s:g} s", Status.DEADLINE_EXCEEDED
            ) from None
        except RuntimeError as error:
            raise CameraProblem(f"camera {self._name} was closed while a picture was asked for") from error

    def _fresh(self) -> Picture | None:
        return self._latest if self._latest is not None and self._clock() - self._made_at_s < self._period_s else None

    def _produce(self) -> Picture:
        fresh = self._fresh()
        if fresh is not None:
            return fresh
        started_s = self._clock()
        try:
            self._latest = self._make()
        except CameraProblem as problem:
            self.state, self.error = SourceState.LOST, str(problem)
            raise
        self.state, self.error = SourceState.RUNNING, ""
        self._made_at_s = started_s
        self.frames += 1
        return self._latest

    def stop(self) -> None:
        worker, self._worker = self._worker, None
        self.state = SourceState.STOPPED
        self._latest = None
        if worker is not None:
            # Nothing but computing is under way, and no device is held: the first picture of an arena takes seconds.
            worker.shutdown(wait=False, cancel_futures=True)


class DeviceLost(Exception):
    """The driver cannot go on: unplugged, end of stream, refused. It is opened again after a while."""


class Feed:
    """The driver's side of a DriverSource."""

    def __init__(self, publish: Callable[[Callable[[], Picture]], None], idle_after_s: float) -> None:
        self.publish = publish
        """Offers a shot: a function that encodes it, called only if somebody reads it."""
        self.stopping = threading.Event()
        self.is_paused = False
        """The driver waits until somebody looks."""
        self._asked = threading.Condition()
        self._asked_at_s = time.monotonic()
        self._idle_after_s = idle_after_s

    def is_wanted(self) -> bool:
        """Somebody asked for a picture lately."""
        return time.monotonic() - self._asked_at_s < self._idle_after_s

    def wait_until_wanted(self) -> None:
        with self._asked:
            self.is_paused = True
            self._asked.wait_for(lambda: self.is_wanted() or self.stopping.is_set())
            self.is_paused = False

    def ask(self) -> None:
        with self._asked:
            self._asked_at_s = time.monotonic()
            self._asked.notify_all()

    def stop(self) -> None:
        self.stopping.set()
        with self._asked:
            self._asked.notify_all()


class DriverSource(FrameSource):
    """Runs `drive` in a named thread. `drive` opens the device, publishes shots until `feed.stopping`, and raises DeviceLost.

    `drive` must look at `feed.stopping` at least every `join_s` seconds: reads need a time-out.
    """

    def __init__(self, name: str, drive: Callable[[Feed], None], log: logging.Logger, *, max_age_s: float, retry_s: float = 1.0,
                 join_s: float = 6.0, idle_after_s: float = 3.0) -> None:  # fmt: skip
        self._name = name
        self._drive = drive
        self._log = log
        self._max_age_s = max_age_s
        self._retry_s = retry_s
        self._join_s = join_s
        self._feed = Feed(self._publish, idle_after_s)
        self._lock = threading.Lock()
        self._newest: tuple[float, _Lazy] | None = None
        self._waiting: list[Future[_Lazy]] = []
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self.state = SourceState.STARTING
            # Daemon, though stop() joins it: a camera must not keep a machine alive whose main thread died.
            self._thread = threading.Thread(target=self._run, name=f"camera-{self._name}", daemon=True)
            self._thread.start()

    async def read(self, timeout_s: float) -> Picture:
        if self.state is SourceState.STOPPED:
            raise CameraProblem(
                f"camera {self._name} is closed: it was removed or is being reconfigured, ask again in a moment"
            )
        waiting: Future[_Lazy] = Future()
        with self._lock:
            newest = self._newest
            if newest is not None and time.monotonic() - newest[0] <= self._max_age_s:
                waiting.set_result(newest[1])
            else:
                self._waiting.append(waiting)
        self._feed.ask()
        try:
            lazy = await asyncio.wait_for(asyncio.wrap_future(waiting), timeout_s)
        except TimeoutError:
            raise CameraProblem(
                self.error or f"camera {self._name} gave no picture within {timeout_s:g} s: check its cable or address"
            ) from None
        finally:
            with self._lock:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
        return await asyncio.to_thread(lazy.picture)

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        self._feed.stop()
        self.state = SourceState.STOPPED
        self._fail_waiting(f"camera {self._name} was closed while a picture was asked for")
        if thread is not None:
            thread.join(self._join_s)
            if thread.is_alive():
                self._log.warning(
                    "camera %s: its driver did not end within %g s; it ends when the device answers",
                    self._name,
                    self._join_s,
                )

    def _publish(self, make: Callable[[], Picture]) -> None:
        if self.state in (SourceState.STARTING, SourceState.LOST):
            if self.state is SourceState.LOST:
                self._log.info("camera %s is back", self._name)
            self.state, self.error = SourceState.RUNNING, ""
        lazy = _Lazy(make)
        with self._lock:
            self.frames += 1
            self._newest = (time.monotonic(), lazy)
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(lazy)

    def _run(self) -> None:
        while not self._feed.stopping.is_set():
            try:
                self._drive(self._feed)
                continue  # a film that begins again
            except DeviceLost as lost:
                self._lose(str(lost))
            except Exception as error:  # noqa: BLE001 - top of the thread: an unknown driver fault is a visible state and is retried
                self._lose(f"camera {self._name}: {type(error).__name__}: {error}")
            self._feed.stopping.wait(self._retry_s)

    def _lose(self, why: str) -> None:
        if self._feed.stopping.is_set():
            return
        if self.state is not SourceState.LOST or self.error != why:
            self._log.warning("%s (trying again every %g s)", why, self._retry_s)
        self.state, self.error = SourceState.LOST, why
        self._fail_waiting(why)

    def _fail_waiting(self, why: str) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(CameraProblem(why))


class _Lazy:
    """A shot that is encoded once, by the first reader."""

    def __init__(self, make: Callable[[], Picture]) -> None:
        self._make: Callable[[], Picture] | None = make
        self._picture: Picture | None = None
        self._lock = threading.Lock()

    def picture(self) -> Picture:
        with self._lock:
            if self._picture is None:
                assert self._make is not None
                self._picture, self._make = self._make(), None
            return self._picture
