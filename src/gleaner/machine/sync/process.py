"""The sync process: `python -m gleaner.machine.sync.process`, started by the machine's data manager.

Control is JSON lines. In, on stdin: the SyncSettings first, then `pass`, `poke`, `sync` (id), `upload` (id, path, tags,
dataset_ids), `limit` (bytes_per_s), `hold` (held: nothing new goes out but what `sync` and `upload` ask for). Out, on
stdout: `status` (connected, error), `pass` (started_ns, sent; all that was ready then), `done` (id, error), `rate`
(files_per_s, bytes_per_s; what the app confirmed lately, while there is something), `log`.
The end of stdin ends the process: it never outlives the machine. One at a time per capture directory (flock).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gleaner.machine.capture.backlog import wait_until_noted
from gleaner.machine.capture.directory import STATE, SYNC_LOCK_FILE
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.sync.backoff import Backoff
from gleaner.machine.sync.flow import Flow, Throttle
from gleaner.machine.sync.link import LinkError, open_link
from gleaner.machine.sync.local_files import LocalFiles
from gleaner.machine.sync.requests import Requests, parse_upload
from gleaner.machine.sync.sender import Meter, Sender, first_error
from gleaner.machine.sync.settings import SyncSettings, line
from gleaner.wire.memory import collect_rarely, give_back_memory, keep_memory

# While the app's host does not answer at all, its port is tried in between, so that nobody waits out a minute of
# back-off after the app has come back.
PROBE_INTERVAL_S = 2.0
PROBE_TIMEOUT_S = 2.0
MANUAL_PATIENCE_S = 10.0
# For the closing handshake, so that the app sees an end and not a break.
GOODBYE_S = 1.0
# A connection that lasted so long worked: when it breaks, the next one is tried at once.
STEADY_S = 3.0
# What is new is looked for at most so often while a backlog is sent: a look at a million names takes most of a second.
NEW_INTERVAL_S = 5.0
# A file is complete a little after the time in its name.
NEW_MARGIN_NS = 2_000_000_000
RATE_INTERVAL_S = 3.0
# A few batches on their way from the disk to the socket; given back when the rush is over.
KEPT_BYTES = 8 << 20
RUSH_OVER_S = 30.0
_CONTROL_LINE_BYTES = 4 * 1024 * 1024


class ControlLog(logging.Handler):
    """Log records as control lines, so that the machine logs them as its own."""

    def emit(self, record: logging.LogRecord) -> None:
        emit(line("log", level=record.levelname, message=record.getMessage()))


def emit(text: bytes) -> None:
    with contextlib.suppress(OSError):  # the machine is gone: the end of stdin follows
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()


class SyncProcess:
    def __init__(self, settings: SyncSettings, store: LedgerStore, log: logging.Logger) -> None:
        self._settings = settings
        self._log = log
        self._reading = ThreadPoolExecutor(1, "sync-read")
        self._settling = ThreadPoolExecutor(1, "sync-settle")
        self._files = LocalFiles(settings, store, log)
        self._backoff = Backoff(random.Random())
        self._error = "not connected yet"
        self._sender: Sender | None = None
        self._flow = Flow(settings.bandwidth_limit)
        self._throttle = Throttle(settings.bandwidth_limit)
        self._meter = Meter()
        self._connected_s: float | None = None
        self._looked_ns: int | None = None
        """When the pass that runs began, or what is new was looked for beside it."""
        self._new_wanted = asyncio.Event()
        self._connected = asyncio.Event()
        self._wanted = asyncio.Event()
        self._held = settings.held
        self._is_asked_for = False
        """Somebody waits for the pass that runs."""
        self._was_cut = False
        """The pass that runs was held back before its end."""
        self._poked = asyncio.Event()
        self._requests = Requests(
            self, self._files, self._reading, lambda number, error: emit(line("done", id=number, error=error))
        )
        self.passes = 0

    def shut_down(self) -> None:
        """Waits for disk work that is under way. Call after `run` has ended."""
        self._requests.cancel()
        self._reading.shutdown()
        self._settling.shutdown()

    async def run(self) -> None:
        """Connects, serves, reconnects, until it is cancelled."""
        this = asyncio.current_task()
        while True:
            try:
                # A task that fails because it is being cancelled makes its group raise that failure and no
                # CancelledError. So the groups have a task of their own, and this one knows whether it is to end.
                await asyncio.create_task(self._serve())
            except LinkError as error:
                if this is not None and this.cancelling():
                    raise asyncio.CancelledError from error
                self._note_lost(error)
            await self._rest()

    async def _serve(self) -> None:
        """One connection, until it ends; raises LinkError."""
        async with open_link(self._settings, self._flow, self._throttle) as link:
            sender = Sender(link, self._files, self._reading, self._settling, self._log, self._meter, self._may_send)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(link.receive())
                    tasks.create_task(sender.send_big_files())
                    tasks.create_task(self._pass_loop(sender))
                    tasks.create_task(self._new_loop(sender))
                    tasks.create_task(self._tell_rate())
                    self._note_connected(sender)
            except BaseExceptionGroup as group:
                raise first_error(group) from group

    def handle(self, command: dict[str, Any]) -> None:
        """One control message from the machine."""
        match command:
            case {"type": "pass"}:
                self._wanted.set()
                if self._looked_ns is not None:
                    self._new_wanted.set()
            case {"type": "limit", "bytes_per_s": int(bytes_per_s)}:
                self._flow.limit = self._throttle.bytes_per_s = bytes_per_s
            case {"type": "hold", "held": bool(held)}:
                self._held = held
                self._was_cut = self._was_cut or not self._may_send()
            case {"type": "poke"}:
                self._poked.set()
                self._wanted.set()
            case {"type": "sync", "id": int(number)}:
                self._requests.sync(number)
            case {"type": "upload", "id": int(number), "path": str(), **rest}:
                self._requests.upload(number, parse_upload({**rest, "path": command["path"]}))
            case _:
                self._log.warning("unknown control message %r", command.get("type"))

    # --- state -------------------------------------------------------------------------------------------------------

    def _note_connected(self, sender: Sender) -> None:
        self._connected_s = time.monotonic()
        self._sender = sender
        self._log.info("connected to %s, sync runs", self._settings.web_address)
        self._error = ""
        self._connected.set()
        self._wanted.set()
        emit(line("status", connected=True, error=""))

    def _note_problems(self) -> None:
        """The line is well; what waits nevertheless belongs where its user looks."""
        words = self._files.problems.words
        if words != self._error and self.is_connected:
            self._error = words
            emit(line("status", connected=True, error=words))

    def _note_lost(self, error: LinkError) -> None:
        self._sender = None
        self._connected.clear()
        if str(error) != self._error:
            self._log.warning("sync waits: %s", error)
            self._error = str(error)
            emit(line("status", connected=False, error=self._error))

    async def _rest(self) -> None:
        connected_s, self._connected_s = self._connected_s, None
        if connected_s is not None and time.monotonic() - connected_s >= STEADY_S:
            await asyncio.sleep(self._backoff.soon_s())
            return
        deadline = time.monotonic() + self._backoff.next_s()
        unreachable = not await self._answers()
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, PROBE_INTERVAL_S)):
                    await self._poked.wait()
            if self._poked.is_set():
                self._poked.clear()
                self._backoff.reset()
                return
            if unreachable and await self._answers():
                self._backoff.reset()
                return

    async def _answers(self) -> bool:
        """Whether anything accepts connections at the app's address."""
        address = urlsplit(self._settings.web_address)
        port = address.port or (443 if address.scheme == "https" else 80)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                _, writer = await asyncio.open_connection(address.hostname, port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    # --- for requests ------------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        return self._sender is not None

    async def reach(self) -> Sender:
        self._poked.set()
        try:
            async with asyncio.timeout(MANUAL_PATIENCE_S):
                while (sender := self._sender) is None:
                    await self._connected.wait()
        except TimeoutError:
            raise LinkError(f"not connected to the app: {self._error}") from None
        self._poked.clear()
        return sender

    @property
    def is_held(self) -> bool:
        return self._held

    def want_pass(self) -> None:
        self._wanted.set()

    def _may_send(self) -> bool:
        return self._is_asked_for or not self._held

    # --- work --------------------------------------------------------------------------------------------------------

    async def _pass_loop(self, sender: Sender) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            syncs = self._requests.take_syncs()
            if self._held and not syncs:
                continue
            self._is_asked_for, self._was_cut = bool(syncs), False
            started_ns = time.time_ns()
            self._looked_ns = started_ns
            try:
                sent = await sender.run_pass()
                self._looked_ns = None
                if syncs:
                    await self._send_big_files(sender)
                for each in syncs:
                    if not each.done():
                        each.set_result(None)
            finally:
                self._looked_ns, self._is_asked_for = None, False
                self._requests.give_back(syncs)  # after a break they are taken up again by the next link
            self.passes += 1
            if not self._was_cut:
                emit(line("pass", started_ns=started_ns, sent=sent))
            self._note_problems()

    async def _send_big_files(self, sender: Sender) -> None:
        """All of them, for somebody who waits, also when they are more than a pass remembers."""
        await sender.big_files_sent()
        files = -1
        while sender.left_big_files and self._meter.files > files:
            files = self._meter.files
            await sender.run_pass()
            await sender.big_files_sent()

    async def _new_loop(self, sender: Sender) -> None:
        """While a pass works on a backlog, sends what is captured meanwhile before it."""
        while True:
            await self._new_wanted.wait()
            self._new_wanted.clear()
            if self._looked_ns is None or self._held:
                continue
            now_ns = time.time_ns()
            since_ns, self._looked_ns = self._looked_ns - NEW_MARGIN_NS, now_ns
            await sender.run_new(since_ns)
            await asyncio.sleep(NEW_INTERVAL_S)

    async def _tell_rate(self) -> None:
        was_sending, quiet_s = True, 0.0
        while True:
            files, size_bytes, began_s = self._meter.files, self._meter.size_bytes, time.monotonic()
            await asyncio.sleep(RATE_INTERVAL_S)
            seconds = time.monotonic() - began_s
            files_per_s = (self._meter.files - files) / seconds
            bytes_per_s = (self._meter.size_bytes - size_bytes) / seconds
            if files_per_s or was_sending:
                emit(line("rate", files_per_s=round(files_per_s, 2), bytes_per_s=round(bytes_per_s)))
            quiet_s = 0.0 if files_per_s else quiet_s + seconds
            if quiet_s >= RUSH_OVER_S > quiet_s - seconds:
                await asyncio.get_running_loop().run_in_executor(self._settling, give_back_memory)
            was_sending = files_per_s > 0


async def _lock(root: Path) -> int:
    """Waits until no other sync process works on the directory (one whose machine was killed ends within moments)."""
    state = root / STATE
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(state / SYNC_LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            await asyncio.sleep(0.1)


async def _work(settings: SyncSettings, commands: asyncio.Queue[dict[str, Any]], log: logging.Logger) -> None:
    lock = await _lock(settings.root)
    store = LedgerStore(settings.root, durable=True)
    try:
        if store.leaving():
            await asyncio.to_thread(wait_until_noted, settings.root, store)
            await asyncio.to_thread(store.finish_leaving)
        process = SyncProcess(settings, store, log)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(process.run())
            while True:
                process.handle(await commands.get())
    finally:
        store.close()
        os.close(lock)


async def main() -> None:
    log = logging.getLogger("gleaner.sync")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(ControlLog())
    reader = asyncio.StreamReader(limit=_CONTROL_LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is for the machine, which then closes our stdin
    first = await reader.readline()
    if not first:
        return
    settings = SyncSettings.from_json(json.loads(first))
    commands: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    worker = asyncio.create_task(_work(settings, commands, log))
    ending = asyncio.create_task(_read_commands(reader, commands))
    await asyncio.wait([worker, ending], return_when=asyncio.FIRST_COMPLETED)
    if worker.done():
        worker.result()  # raises what broke it: the machine sees the exit code and starts another
    worker.cancel()
    await asyncio.wait([worker], timeout=GOODBYE_S)
    # Disk work that is still under way may be left: every step of it is safe to be cut at any point.
    os._exit(0)


async def _read_commands(reader: asyncio.StreamReader, commands: asyncio.Queue[dict[str, Any]]) -> None:
    while text := await reader.readline():
        commands.put_nowait(json.loads(text))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed (it comes with the app's extra): a third less work per byte over TLS."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    keep_memory(KEPT_BYTES, arenas=1)
    collect_rarely()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())
