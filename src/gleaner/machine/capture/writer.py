"""The thread that writes capture files.

Collectors hand records over with `submit`, which never blocks: a collector may have `queue_limit` records waiting and all
together MAX_WAITING_BYTES; the newest is dropped beyond that, and counted. A full disk or a failing write also drops,
counted by reason, and the next record is tried again: no error ends a collector.

Durability: a record that was written survives a kill of the process. Twice within `durability_s`, and before a file gets
its final name, it is also put on the disk (`settle.py`), so that a power cut costs no more than that. With 0, a record
counts as captured only once it is there.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.capture.channel import Channel, Record
from gleaner.machine.capture.directory import Waiting
from gleaner.machine.capture.disk import DiskGuard
from gleaner.machine.capture.drops import Drops
from gleaner.machine.capture.files import Files, Root
from gleaner.machine.capture.ledger import Counts, DropReason, LedgerStore
from gleaner.machine.capture.settle import Fate, Settled, Settler, Work, pass_on
from gleaner.machine.capture.sink import Sink
from gleaner.machine.capture.trouble import explain, reason_of

DURABILITY_S = 1.0
DISK_CHECK_S = 1.0
SLOW_DISK_S = 1.0
MAX_WAITING_BYTES = 64 * 1024 * 1024
# Written, but not on the disk yet: beyond this the writer waits for the disk, the queues fill, and drops are counted.
MAX_UNSETTLED_BYTES = 256 * 1024 * 1024
# After a round of writing, the next one comes so much later and takes what gathered; after a pause, one is written at once.
LINGER_S = 0.005


@dataclass(frozen=True)
class WriterOptions:
    durability_s: float = DURABILITY_S
    """A power cut loses at most so much; 0: what is captured is on the disk."""
    keyring: Keyring = field(default_factory=Keyring)
    files: Files = field(default_factory=Files)
    wall_ns: Callable[[], int] = time.time_ns


@dataclass(frozen=True)
class _Finish:
    """Asks that the files of some channels (None: all) be completed."""

    channels: tuple[Channel, ...] | None
    done: Future[None]


class Writer:
    """`start() → running → stop()`. `submit`, `open_channel` and `finish` may be called from any thread."""

    def __init__(
        self,
        root: Path,
        store: LedgerStore,
        guard: DiskGuard,
        log: logging.Logger,
        options: WriterOptions | None = None,
    ) -> None:
        self._guard = guard
        self._log = log
        self._options = options or WriterOptions()
        self.root = Root(root, self._options.files)
        self._lock = threading.Lock()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_idle = False
        self._ready: list[Channel] = []
        """Channels with waiting records."""
        self._finishes: list[_Finish] = []
        self._is_stopping = False
        self._channels: dict[str, Channel] = {}
        self._waiting_bytes = 0
        self._drops = Drops(store, log)
        self._thread: threading.Thread | None = None
        # Only the writer's thread, from here on.
        self._settler = Settler(self.root, self._options.files, self._options.keyring, log, self._settled)
        self._work = Work()
        self._unsettled_bytes = 0
        self._in_flight: Future[None] | None = None
        self._submitted_s = 0.0
        self._is_slow = False

    # --- any thread --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self._thread is None:
            self._guard.check()
            self.root.note()
            self._thread = threading.Thread(target=self._run, name="capture-writer")
            self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Writes what is queued, completes all files and ends the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._is_stopping = True
        if thread is None:
            self._settler.close()
            return
        self._wake.put(None)
        thread.join(timeout_s)
        is_stuck = thread.is_alive()
        self._settler.close(wait=not is_stuck)
        if is_stuck:
            self._log.error("the capture writer did not end within %.0f s: the disk does not answer", timeout_s)

    def open_channel(self, directory: str, *, is_binary: bool, rotate_bytes: int, queue_limit: int) -> Channel:
        """The channel of a collector; its counts live on when the collector is rebuilt."""
        with self._lock:
            channel = self._channels.get(directory)
            if channel is None:
                options = self._options
                sink = Sink(
                    self.root,
                    directory,
                    rotate_bytes,
                    options.wall_ns,
                    options.files,
                    options.keyring,
                    count_when_durable=not options.durability_s,
                )
                channel = self._channels[directory] = Channel(sink, is_binary, queue_limit)
            channel.queue_limit = queue_limit
            channel.sink.rotate_bytes = rotate_bytes
            return channel

    def submit(self, channel: Channel, record: Record) -> bool:
        """False: dropped and counted, because the disk does not keep up."""
        size = record.size_bytes
        with self._lock:
            pending = channel.pending
            if pending >= channel.queue_limit or self._waiting_bytes + size > MAX_WAITING_BYTES:
                self._drops.add(channel.sink.directory, DropReason.QUEUE_FULL, 1)
                return False
            channel.pending = pending + 1
            self._waiting_bytes += size
            waiting = channel.waiting
            if not waiting:
                self._ready.append(channel)
            waiting.append(record)
            is_idle, self._is_idle = self._is_idle, False
        # A queue that fills within one pause ends the pause.
        if is_idle or pending == channel.queue_limit // 2:
            self._wake.put(None)
        return True

    def finish(self, *channels: Channel) -> Future[None]:
        """Completes the open files of these channels (of all, when none is named), after what was submitted before."""
        done: Future[None] = Future()
        with self._lock:
            is_running = self._thread is not None
            if is_running:
                self._finishes.append(_Finish(channels or None, done))
        if is_running:
            self._wake.put(None)
        else:
            done.set_result(None)
        return done

    def stored(self) -> dict[str, Waiting]:
        """What was written since the start, by directory."""
        with self._lock:
            return {d: c.sink.written - c.lost for d, c in self._channels.items()}

    def stored_by_hour(self) -> dict[tuple[str, int], Waiting]:
        """The same by directory and hour (UTC, hours since the epoch)."""
        with self._lock:
            return {
                (directory, hour): written - channel.lost_by_hour.get(hour, Waiting())
                for directory, channel in self._channels.items()
                for hour, written in list(channel.sink.written_by_hour.items())
            }

    def left_by_hour(self, since: int) -> dict[tuple[str, int], dict[tuple[str, str], int]]:
        """What left or never came, by directory and hour: records by (fate, reason)."""
        return self._drops.hours(since)

    def counts(self) -> dict[str, Counts]:
        """The ledger's counts, with the drops that are not in its file yet (the disk may be full)."""
        return self._drops.counts()

    def error_of(self, directory: str) -> str:
        channel = self._channels.get(directory)
        return channel.error if channel else ""

    # --- the writer's thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        period_s = self._options.durability_s / 2
        next_settle = time.monotonic() + period_s
        next_check = time.monotonic() + DISK_CHECK_S
        ready: list[tuple[Channel, list[Record]]] = []
        is_running = True
        while is_running:
            self._rest(min(next_settle if period_s else next_check, next_check), is_busy=bool(ready))
            ready, finishes, is_running = self._take()
            for channel, records in ready:
                self._write(channel, records)
            if not is_running:
                finishes.append(_Finish(None, Future()))
            now = time.monotonic()
            if finishes or not period_s or now >= next_settle or self._unsettled_bytes > MAX_UNSETTLED_BYTES:
                self._settle(finishes, must_wait=not period_s or not is_running)
                next_settle = now + period_s
            self._drops.save()
            if now >= next_check:
                self._check_disk()
                next_check = now + DISK_CHECK_S

    def _rest(self, deadline: float, *, is_busy: bool) -> None:
        """Waits for something to do; after a round of writing, a little for more to gather."""
        wait_s = max(0.0, deadline - time.monotonic())
        with self._lock:
            if self._finishes or self._is_stopping:
                return
            self._is_idle = not is_busy and not self._ready
            if not self._is_idle:
                wait_s = min(wait_s, LINGER_S)
        try:
            self._wake.get(timeout=wait_s)
            while True:
                self._wake.get_nowait()
        except queue.Empty:
            pass

    def _take(self) -> tuple[list[tuple[Channel, list[Record]]], list[_Finish], bool]:
        with self._lock:
            self._is_idle = False
            ready: list[tuple[Channel, list[Record]]] = []
            for channel in self._ready:
                records, channel.waiting = channel.waiting, []
                channel.pending -= len(records)
                self._waiting_bytes -= sum(record.size_bytes for record in records)
                ready.append((channel, records))
            self._ready.clear()
            finishes, self._finishes = self._finishes, []
            return ready, finishes, not self._is_stopping

    def _write(self, channel: Channel, records: list[Record]) -> None:
        if self._guard.full:
            self._drop(channel, DropReason.DISK_FULL, len(records), explain(DropReason.DISK_FULL))
            return
        try:
            errors = self._write_singles(channel, records) if channel.is_binary else self._append(channel, records)
        except Exception as error:  # noqa: BLE001 (the top of this thread: whatever a record does, the others go on)
            self._drop(channel, DropReason.WRITE_FAILED, len(records), f"{type(error).__name__}: {error}")
            return
        for problem in errors:
            reason = reason_of(problem, str(self.root.path))
            self._drop(channel, reason, 1, explain(reason, problem))
        if not errors:
            self._recovered(channel)

    def _append(self, channel: Channel, records: list[Record]) -> list[OSError]:
        sink = channel.sink
        done = sink.append(records[0].header, [record.parts for record in records])
        for file in done.retired:
            self._work.retired.append((sink, file))
            self._unsettled_bytes += file.size
        return done.errors

    def _write_singles(self, channel: Channel, records: list[Record]) -> list[OSError]:
        errors = []
        for record in records:
            try:
                file = channel.sink.write_single(record.header, record.parts)
            except OSError as error:
                errors.append(error)
                continue
            self._work.retired.append((channel.sink, file))
            self._unsettled_bytes += file.size
        return errors

    def _settle(self, finishes: list[_Finish], *, must_wait: bool) -> None:
        """Hands what was written to the settler. A settler that is behind gets it together with what follows."""
        is_behind = self._in_flight is not None and not self._in_flight.done()
        self._note_pace(is_behind=is_behind)
        if self._in_flight is not None and is_behind:
            if not finishes and not must_wait and self._unsettled_bytes <= MAX_UNSETTLED_BYTES:
                return
            if self._unsettled_bytes > MAX_UNSETTLED_BYTES:
                self._in_flight.result()
        with self._lock:
            channels = list(self._channels.values())
        for finish in finishes:
            for channel in channels if finish.channels is None else finish.channels:
                self._retire(channel)
        work, self._work, self._unsettled_bytes = self._work, Work(), 0
        for channel in channels:
            file = channel.sink.file
            if file is not None and file.is_abandoned:
                self._retire(channel, work)
            elif file is not None:
                # Also what is synced already: somebody may have taken the file away.
                work.dirty.append((channel.sink, file))
            folders, channel.sink.dirty_folders = channel.sink.dirty_folders, set()
            work.folders |= folders
        if work.is_empty and not finishes and not must_wait and not self._settler.has_suspects:
            return
        self._submitted_s = time.monotonic()
        self._in_flight = self._settler.submit(work)
        for finish in finishes:
            pass_on(self._in_flight, finish.done)
        if must_wait:
            self._in_flight.result()

    def _note_pace(self, *, is_behind: bool) -> None:
        """A disk that takes longer than the window breaks the promise: that has to be known."""
        if not is_behind:
            if self._is_slow:
                self._log.info("the disk of %s keeps up again", self.root.path)
            self._is_slow = False
        elif not self._is_slow and time.monotonic() - self._submitted_s > max(self._options.durability_s, SLOW_DISK_S):
            self._is_slow = True
            self._log.warning(
                "the disk of %s does not keep up: a power cut now costs more than durability_ms. Capture less, or use a "
                "faster disk",
                self.root.path,
            )

    def _retire(self, channel: Channel, work: Work | None = None) -> None:
        file = channel.sink.retire()
        if file is not None:
            (work or self._work).retired.append((channel.sink, file))

    def _check_disk(self) -> None:
        if self._guard.check():
            if self._guard.full:
                self._log.error(
                    "the disk of %s is full: capture drops readings until there is space again", self.root.path
                )
            else:
                self._log.info("the disk of %s has space again: capture goes on", self.root.path)

    # --- the settler's thread ----------------------------------------------------------------------------------------

    def _settled(self, result: Settled) -> None:
        with self._lock:
            channel = self._channels[result.sink.directory]
        file = result.file
        if result.fate is Fate.SAFE:
            self._settles_again(channel)
            return
        if result.fate is Fate.SUSPECT:
            if result.error is not None:
                words = explain(reason_of(result.error, str(self.root.path)), result.error)
                self._settle_failed(channel, f"{words}: {file.path} is not safe from a power cut, it is tried again")
            return
        if result.fate is Fate.ELSEWHERE:
            return
        error = result.error
        is_removed = result.fate is Fate.LOST and (error is None or isinstance(error, FileNotFoundError))
        reason = DropReason.REMOVED if is_removed else DropReason.IO_ERROR
        is_gone = result.fate is Fate.LOST
        with self._lock:
            for lost in (channel.lost, channel.lost_by_hour.setdefault(file.hour, Waiting())):
                lost.records += result.records
                lost.files += int(is_gone)
                lost.size_bytes += file.size if is_gone else 0
        self._drops.add(channel.sink.directory, reason, result.records)
        self._settle_failed(channel, f"{explain(reason)}: {result.records} records of {file.path}")

    def _settle_failed(self, channel: Channel, message: str) -> None:
        if not channel.settle_error:
            self._log.warning("readings of %s: %s", channel.sink.directory, message)
        channel.settle_error = message

    def _settles_again(self, channel: Channel) -> None:
        if channel.settle_error:
            self._log.info("readings of %s are safe again", channel.sink.directory)
            channel.settle_error = ""

    # --- counting ----------------------------------------------------------------------------------------------------

    def _drop(self, channel: Channel, reason: DropReason, records: int, message: str) -> None:
        self._drops.add(channel.sink.directory, reason, records)
        if channel.note_write_error(message):
            self._log.warning("cannot store readings of %s: %s", channel.sink.directory, message)

    def _recovered(self, channel: Channel) -> None:
        if channel.write_error:
            self._log.info("readings of %s are stored again", channel.sink.directory)
            channel.write_error = ""
