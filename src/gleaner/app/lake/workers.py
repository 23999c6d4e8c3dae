"""Keeps the processes that run queries: started when one is asked for, kept for the next, killed when one runs wild."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import bson

from gleaner.app import errors
from gleaner.app.errors import AppError, Unavailable
from gleaner.app.lake import running, worker
from gleaner.app.lake.running import Found, Material, Question
from gleaner.app.lake.view import Wanted

_WAIT_S = 20.0
_LOOK_S = 0.1
_GRACE_S = 5.0
"""After a query's time, for DuckDB to notice by itself."""


Pages: TypeAlias = Generator[Found, None, None]


class _HasLeft(Exception):
    """A kept worker ended, because nobody asked for long, just when this query came."""


class QueryWorkers:
    """Thread-safe. `stop()` ends them; the next query starts one again."""

    def __init__(self, at_once: int) -> None:
        self._turns = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def pages(
        self,
        asked: Question,
        material: Callable[[dict[str, Wanted]], Material],
        stop: threading.Event | None = None,
    ) -> Pages:
        """The answer page by page; the query waits for who reads it, and ends with the generator. Raises what the query raised,
        Unavailable when too many are running, Stopped soon after `stop` is set."""
        stop = stop or threading.Event()
        with self._turn(stop):
            try:
                with self._worker() as chosen:
                    yield from chosen.pages(asked, material, stop)
            except _HasLeft:
                with self._worker() as chosen:
                    yield from chosen.pages(asked, material, stop)

    def stop(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.close()

    @contextmanager
    def _turn(self, stop: threading.Event) -> Iterator[None]:
        deadline = time.monotonic() + _WAIT_S
        while not self._turns.acquire(timeout=_LOOK_S):
            if stop.is_set():
                raise running.stopped()
            if time.monotonic() >= deadline:
                raise Unavailable("Other queries are still running", "Try again in a moment.")
        try:
            yield
        finally:
            self._turns.release()

    @contextmanager
    def _worker(self) -> Iterator[_Worker]:
        with self._lock:
            chosen = self._idle.pop() if self._idle else None
        chosen = chosen if chosen is not None and chosen.is_alive else _Worker()
        is_fit = False
        try:
            yield chosen
            is_fit = True
        except AppError:
            is_fit = chosen.is_at_rest
            raise
        finally:
            if is_fit:
                with self._lock:
                    self._idle.append(chosen)
            else:
                chosen.close()


class _Worker:
    def __init__(self) -> None:
        own, its = socket.socketpair()
        with its:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("GLEANER_")}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gleaner.app.lake.worker", str(its.fileno())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,  # Ctrl-C is the app's, which then ends it
            )
        self._connection = Connection(own.detach())
        self.is_at_rest = True
        self._is_new = True

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Ends it at once, whatever it does."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def pages(self, asked: Question, material: Callable[[dict[str, Wanted]], Material], stop: threading.Event) -> Pages:
        deadline = time.monotonic() + asked.seconds + _GRACE_S
        self.is_at_rest = False
        was_kept, self._is_new = not self._is_new, False
        try:
            self._connection.send(asked)
            message = self._receive(asked, deadline, stop)
        except (EOFError, ConnectionError):
            raise (_HasLeft() if was_kept else running.too_large(asked)) from None
        try:
            wanted = {str(name): worker.loaded(one) for name, one in message["wanted"].items()}
            self._connection.send(material(wanted))
            while "rows" in (page := self._receive(asked, deadline, stop)):
                yield Found([str(name) for name in page["columns"]], page["rows"])
        except (EOFError, ConnectionError):
            raise running.too_large(asked) from None
        self.is_at_rest = True

    def _receive(self, asked: Question, deadline: float, stop: threading.Event) -> dict[str, Any]:
        while not self._connection.poll(_LOOK_S):
            if stop.is_set():
                raise running.stopped()  # DuckDB does not listen to others while it runs: the process goes with it
            if time.monotonic() >= deadline:
                raise running.too_long(asked)
        message: dict[str, Any] = bson.decode(self._connection.recv_bytes())
        if "error" in message:
            self.is_at_rest = True
            kind = getattr(errors, message["error"], Unavailable)
            raise kind(message["message"], message["hint"])
        return message
