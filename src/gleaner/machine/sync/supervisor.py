"""Keeps a sync process running and talks to it. Lives on the machine's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gleaner.machine.sync.backoff import Backoff
from gleaner.machine.sync.settings import SyncSettings, line

STOP_TIMEOUT_S = 3.0
# A process that lived this long, or has reached the app, has not crashed at its start: the next one begins without a wait.
HEALTHY_AFTER_S = 30.0
# Whatever ends it again and again (memory that others take, say): captures pile up while nobody sends.
LONGEST_RESTART_S = 10.0
# A request that comes while the process is being started waits for it so long.
START_PATIENCE_S = 10.0
_LINE_BYTES = 1024 * 1024
# glibc: give the buffers of a batch back instead of keeping them for every thread; the process lives for months.
_LEAN_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}


class SyncFailed(Exception):
    """A sync or an upload that somebody asked for did not work; the message says why and what to do."""


class SyncSupervisor:
    """`start() → running → stop()`.

    `on_pass(started_ns, sent)`: all that was ready at that time has been sent. `on_rate(files_per_s, bytes_per_s)`: what
    the app has confirmed in the last seconds, every few seconds while it confirms anything, then once with zeros.
    """

    def __init__(
        self,
        settings: SyncSettings,
        log: logging.Logger,
        on_pass: Callable[[int, int], None],
        on_rate: Callable[[float, float], None] = lambda _files_per_s, _bytes_per_s: None,
    ) -> None:
        self.settings = settings
        self.connected = False
        self.error = "starting"
        self._has_connected = False
        self._log = log
        self._on_pass = on_pass
        self._on_rate = on_rate
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._requests: dict[int, asyncio.Future[str]] = {}
        self._number = 0
        self._running = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="sync supervisor")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._fail_requests("the machine is stopping")

    def request_pass(self) -> None:
        """Send what is ready, now or as soon as the link is there."""
        self._send(line("pass"))

    def poke(self) -> None:
        """The app is known to be there: try at once, whatever the back-off says."""
        self._send(line("poke"))

    def limit(self, bytes_per_s: int) -> None:
        """From now on at most so much on the line, also in the middle of a file; 0: no limit."""
        self.settings = replace(self.settings, bandwidth_limit=bytes_per_s)
        self._send(line("limit", bytes_per_s=bytes_per_s))

    def hold(self, held: bool) -> None:
        """While held, nothing goes out but what `sync` and `upload` ask for; what is on its way may finish."""
        if held != self.settings.held:
            self.settings = replace(self.settings, held=held)
            self._send(line("hold", held=held))

    async def sync(self) -> None:
        """Returns when everything that was ready has been sent. Raises SyncFailed."""
        await self._request("sync")

    async def upload(self, path: str, tags: Sequence[str], dataset_ids: Sequence[str]) -> None:
        """Returns when the app has the file. Raises SyncFailed."""
        await self._request("upload", path=path, tags=list(tags), dataset_ids=list(dataset_ids))

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _request(self, kind: str, **values: Any) -> None:
        self._number += 1
        number = self._number
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        try:
            async with asyncio.timeout(START_PATIENCE_S):
                await self._running.wait()
            self._send(line(kind, id=number, **values))
            error = await future
        except TimeoutError as timeout:
            raise SyncFailed("the sync process is not running and is being started: try again soon") from timeout
        finally:
            self._requests.pop(number, None)
        if error:
            raise SyncFailed(error)

    def _send(self, text: bytes) -> None:
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(text)

    async def _run(self) -> None:
        backoff = Backoff(random.Random(), LONGEST_RESTART_S)
        loop = asyncio.get_running_loop()
        while True:
            began_s, self._has_connected = loop.time(), False
            try:
                ending = f"the sync process ended with code {await self._run_once()}"
            except OSError as error:  # no memory, no file descriptors: a state of the machine that passes
                ending = f"the sync process cannot be started: {error}"
            except Exception as error:  # noqa: BLE001 (the top of this task: without it nothing would be sent any more)
                ending = f"the sync process was lost: {type(error).__name__}: {error}"
            if self._has_connected or loop.time() - began_s > HEALTHY_AFTER_S:
                backoff.reset()
            self.connected, self.error = False, f"{ending}; it is started again"
            self._log.error("%s", self.error)
            self._fail_requests(self.error)
            await asyncio.sleep(backoff.next_s())

    async def _run_once(self) -> int | None:
        process = await _begin()
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # One that was killed at once has a closed pipe already, which uvloop refuses to write to.
            self._send(json.dumps(self.settings.to_json()).encode() + b"\n")
            self._running.set()
            while text := await process.stdout.readline():
                self._handle(text)
            return await process.wait()
        finally:
            self._running.clear()
            self._process = None
            process.stdin.close()
            await _end(process)

    def _handle(self, text: bytes) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            self._log.info("sync: %s", text.decode(errors="replace").rstrip())  # a library that prints
            return
        match message:
            case {"type": "status", "connected": bool(connected), "error": str(error)}:
                self.connected, self.error = connected, error
                if not connected:
                    self._on_rate(0.0, 0.0)
                self._has_connected = self._has_connected or connected
            case {"type": "pass", "started_ns": int(started_ns), "sent": int(sent)}:
                self._on_pass(started_ns, sent)
            case {"type": "done", "id": int(number), "error": str(error)}:
                future = self._requests.get(number)
                if future is not None and not future.done():
                    future.set_result(error)
            case {"type": "rate", "files_per_s": float() | int() as files_per_s, "bytes_per_s": int(bytes_per_s)}:
                self._on_rate(float(files_per_s), float(bytes_per_s))
            case {"type": "log", "level": str(level), "message": str(message)}:
                self._log.log(logging.getLevelNamesMapping().get(level, logging.INFO), message)

    def _fail_requests(self, error: str) -> None:
        for future in self._requests.values():
            if not future.done():
                future.set_result(error)


async def _begin() -> asyncio.subprocess.Process:
    """A sync process. Who is cancelled meanwhile leaves none behind."""
    beginning = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gleaner.machine.sync.process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            env={**_LEAN_MEMORY, **os.environ},
        )
    )
    try:
        return await asyncio.shield(beginning)
    except asyncio.CancelledError:
        process = await beginning
        if process.stdin is not None:
            process.stdin.close()
        await _end(process)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """Waits for a process whose stdin was closed; insists when it does not end."""
    for insist in (None, process.terminate, process.kill):
        with contextlib.suppress(ProcessLookupError):
            if insist is not None and process.returncode is None:
                insist()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            return
