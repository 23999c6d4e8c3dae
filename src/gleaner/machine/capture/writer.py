"""The one thread that writes capture files.

Collectors (on the event loop) hand records over with `submit`, which never blocks: a collector may have `queue_limit`
records waiting and all together MAX_WAITING_BYTES; the newest is dropped beyond that, and counted. A full disk or a
failing write also drops, counted by reason, and the next record is tried again: no error ends a collector.

Durability: a record that was written survives a kill of the process; every SYNC_INTERVAL_S, and before a file is
complete, it is also put on the disk, so that a power cut costs one second at most.
"""

from __future__ import annotations

import errno
import logging
import queue
import sqlite3
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from gleaner.machine.capture.directory import Waiting
from gleaner.machine.capture.disk import DiskGuard
from gleaner.machine.capture.ledger import Change, DropReason, Fate, LedgerStore, sync_directories
from gleaner.machine.capture.sink import Finished, OpenFile, Sink, complete

SYNC_INTERVAL_S = 1.0
MAX_WAITING_BYTES = 64 * 1024 * 1024
BATCH_RECORDS = 64
FSYNCS_AT_ONCE = 8
_DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


@dataclass(frozen=True)
class Record:
    """One SensorData to write, in parts so that no picture is copied."""

    header: bytes
    parts: tuple[bytes, ...]
    size_bytes: int


@dataclass
class Channel:
    """What the writer knows of one collector."""

    sink: Sink
    is_binary: bool
    queue_limit: int
    lost: Waiting = field(default_factory=Waiting)
    """Written, then removed by somebody else before the file was complete."""
    pending: int = 0
    error: str = ""
    """The last write's error, empty when it went well."""


@dataclass(frozen=True)
class _Item:
    channel: Channel
    record: Record


@dataclass(frozen=True)
class _Finish:
    """Asks that the files of some channels (None: all) be completed."""

    channels: tuple[Channel, ...] | None
    done: Future[None]


class Writer:
    """`start() → running → stop()`. `submit`, `open_channel` and `finish` may be called from any thread."""

    def __init__(self, root: Path, store: LedgerStore, guard: DiskGuard, log: logging.Logger) -> None:
        self._root = root
        self._store = store
        self._guard = guard
        self._log = log
        self._queue: queue.SimpleQueue[_Item | _Finish | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._channels: dict[str, Channel] = {}
        self._waiting_bytes = 0
        self._drops: dict[tuple[str, DropReason], int] = {}
        self._thread: threading.Thread | None = None
        self._dirty_folders: set[str] = set()
        # Files put on the disk side by side share the file system's commits: measured 2 to 3 times faster than in turn.
        self._completers = ThreadPoolExecutor(FSYNCS_AT_ONCE, "capture-fsync")

    # --- any thread --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self._thread is None:
            self._guard.check()
            self._thread = threading.Thread(target=self._run, name="capture-writer")
            self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Writes what is queued, completes all files and ends the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout_s)
            self._completers.shutdown(wait=False)
            if thread.is_alive():
                self._log.error("the capture writer did not end within %.0f s: the disk does not answer", timeout_s)

    def open_channel(self, directory: str, *, is_binary: bool, rotate_bytes: int, queue_limit: int) -> Channel:
        """The channel of a collector; its counts live on when the collector is rebuilt."""
        with self._lock:
            channel = self._channels.get(directory)
            if channel is None:
                channel = Channel(Sink(self._root, directory, rotate_bytes, time.time_ns), is_binary, queue_limit)
                self._channels[directory] = channel
            channel.queue_limit = queue_limit
            return channel

    def submit(self, channel: Channel, record: Record) -> bool:
        """False: dropped and counted, because the disk does not keep up."""
        with self._lock:
            full = channel.pending >= channel.queue_limit or self._waiting_bytes + record.size_bytes > MAX_WAITING_BYTES
            if full:
                self._count_drop(channel, DropReason.QUEUE_FULL, 1)
                return False
            channel.pending += 1
            self._waiting_bytes += record.size_bytes
        self._queue.put(_Item(channel, record))
        return True

    def finish(self, *channels: Channel) -> Future[None]:
        """Completes the open files of these channels (of all, when none is named), after what was submitted before."""
        done: Future[None] = Future()
        if self._thread is None:
            done.set_result(None)
        else:
            self._queue.put(_Finish(channels or None, done))
        return done

    def stored(self) -> dict[str, Waiting]:
        """What was written since the start, by directory."""
        with self._lock:
            return {d: subtract(c.sink.written, c.lost) for d, c in self._channels.items()}

    def unsaved_drops(self) -> dict[tuple[str, DropReason], int]:
        """Drops that are not in the ledger's file yet (the disk may be full)."""
        with self._lock:
            return dict(self._drops)

    def error_of(self, directory: str) -> str:
        channel = self._channels.get(directory)
        return channel.error if channel else ""

    # --- the writer thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        next_sync = time.monotonic() + SYNC_INTERVAL_S
        running = True
        while running:
            batch = self._take(max(0.0, next_sync - time.monotonic()))
            running = None not in batch
            singles: list[tuple[Channel, OpenFile]] = []
            for item in batch:
                if isinstance(item, _Item):
                    self._write(item, singles)
            self._complete_singles(singles)
            for item in batch:
                if isinstance(item, _Finish):
                    try:
                        self._finish(item.channels)
                    finally:
                        item.done.set_result(None)
            if not running:
                self._finish(None)
            self._save_drops()
            if time.monotonic() >= next_sync or not running:
                self._sync()
                next_sync = time.monotonic() + SYNC_INTERVAL_S

    def _take(self, timeout_s: float) -> list[_Item | _Finish | None]:
        """Waits for something to do, then takes what has gathered meanwhile: under load, one fsync serves many."""
        batch: list[_Item | _Finish | None] = []
        try:
            batch.append(self._queue.get(timeout=timeout_s) if timeout_s else self._queue.get_nowait())
            # Stops behind a _Finish or None, so that what was submitted before is written before.
            while isinstance(batch[-1], _Item) and len(batch) < BATCH_RECORDS:
                batch.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _write(self, item: _Item, singles: list[tuple[Channel, OpenFile]]) -> None:
        channel, record = item.channel, item.record
        with self._lock:
            channel.pending -= 1
            self._waiting_bytes -= record.size_bytes
        if self._guard.full:
            self._drop(channel, DropReason.DISK_FULL, 1, "the disk is full: free some space, or let sync catch up")
            return
        try:
            if channel.is_binary:
                singles.append((channel, channel.sink.write_single(record.header, record.parts)))
                return
            finished = channel.sink.append(record.header, record.parts)
        except OSError as error:
            self._drop(channel, _reason(error), 1, _explain(error))
            return
        except Exception as error:  # noqa: BLE001 (the top of this thread: whatever a record does, the others go on)
            self._drop(channel, DropReason.WRITE_FAILED, 1, f"{type(error).__name__}: {error}")
            return
        self._recovered(channel)
        self._settle(channel, finished)

    def _complete_singles(self, singles: list[tuple[Channel, OpenFile]]) -> None:
        files = [file for _, file in singles]
        all_finished = self._completers.map(complete, files) if len(files) > 1 else map(complete, files)
        for (channel, _), finished in zip(singles, all_finished, strict=True):
            if finished.error is None:
                self._recovered(channel)
            self._settle(channel, finished)

    def _finish(self, channels: tuple[Channel, ...] | None) -> None:
        with self._lock:
            chosen = list(self._channels.values()) if channels is None else list(channels)
        for channel in chosen:
            self._settle(channel, channel.sink.finish())

    def _settle(self, channel: Channel, finished: Finished | None) -> None:
        if finished is None:
            return
        if finished.error is None:
            self._dirty_folders.add(str(finished.path.parent))
        elif finished.is_lost:
            with self._lock:
                lost = channel.lost
                lost.records, lost.files = lost.records + finished.records, lost.files + 1
                lost.size_bytes += finished.size_bytes
            message = f"{finished.path} was removed while it was written: leave the capture directory to Gleaner"
            self._drop(channel, DropReason.WRITE_FAILED, finished.records, message)
        else:
            # Its data is there as .prog and counts as waiting; the next start completes it.
            self._fail(channel, _explain(finished.error))

    def _sync(self) -> None:
        with self._lock:
            channels = list(self._channels.values())
        for channel in channels:
            try:
                channel.sink.sync()
            except OSError as error:
                self._fail(channel, _explain(error))
        folders, self._dirty_folders = self._dirty_folders, set()
        try:
            sync_directories(folders)
        except OSError as error:
            self._log.debug("could not sync a capture folder: %s", error)
        if self._guard.check():
            if self._guard.full:
                self._log.error("the disk of %s is full: capture drops readings until there is space again", self._root)
            else:
                self._log.info("the disk of %s has space again: capture goes on", self._root)

    # --- counting ----------------------------------------------------------------------------------------------------

    def _drop(self, channel: Channel, reason: DropReason, records: int, message: str) -> None:
        with self._lock:
            self._count_drop(channel, reason, records)
        self._fail(channel, message)

    def _count_drop(self, channel: Channel, reason: DropReason, records: int) -> None:
        key = (channel.sink.directory, reason)
        self._drops[key] = self._drops.get(key, 0) + records

    def _fail(self, channel: Channel, message: str) -> None:
        if channel.error != message:
            self._log.warning("cannot store readings of %s: %s", channel.sink.directory, message)
        channel.error = message

    def _recovered(self, channel: Channel) -> None:
        if channel.error:
            self._log.info("readings of %s are stored again", channel.sink.directory)
            channel.error = ""

    def _save_drops(self) -> None:
        with self._lock:
            drops = dict(self._drops)
        if not drops:
            return
        changes = [Change(d, Fate.DROPPED, reason, records) for (d, reason), records in drops.items()]
        try:
            self._store.record(changes)
        except sqlite3.Error as error:
            self._log.debug("the ledger cannot be written, drops stay in memory: %s", error)
            return
        with self._lock:
            for key, records in drops.items():
                left = self._drops[key] - records
                if left:
                    self._drops[key] = left
                else:
                    del self._drops[key]


def _reason(error: OSError) -> DropReason:
    return DropReason.DISK_FULL if error.errno in _DISK_FULL else DropReason.WRITE_FAILED


def _explain(error: OSError) -> str:
    if error.errno in _DISK_FULL:
        return "the disk is full: free some space, or let sync catch up"
    return f"writing failed: {error}"


def subtract(left: Waiting, right: Waiting) -> Waiting:
    return Waiting(left.records - right.records, left.files - right.files, left.size_bytes - right.size_bytes)
