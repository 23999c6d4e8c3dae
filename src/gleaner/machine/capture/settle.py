"""Puts capture files on the disk and completes them, beside the writer: a slow fsync must not hold up capture.

One thread works off what the writer hands over, in order; the fsyncs of one piece of work run side by side, because then
they share the file system's commits (measured: 2 to 3 times faster). Only here files are synced, renamed and closed.

After a failed fsync nothing that was written since the last good one can be relied on: the kernel may have dropped it and
calls the pages clean, so that the next fsync succeeds. Such a file gets nothing more. It is read back, its checksums say
what is whole, and that is written anew (a new file, synced, renamed over the old one); what is missing is counted as
dropped. While that fails too, the file stays `.prog` and is tried again.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.capture.directory import REPAIR_PREFIX, STATE, set_aside_target, usable_part, write_reason
from gleaner.machine.capture.errors import CaptureError
from gleaner.machine.capture.files import Files, Root
from gleaner.machine.capture.sink import OpenFile, Sink
from gleaner.wire.capture_file import COMPLETE_SUFFIX, CaptureFileError

FSYNCS_AT_ONCE = 8
# Files that could not be completed and are tried again; others wait for the next start.
MAX_SUSPECTS = 1000
REPAIRS_AT_ONCE = 16


@dataclass
class Work:
    """What one call puts on the disk."""

    dirty: list[tuple[Sink, OpenFile]] = field(default_factory=list)
    """Files that go on being written."""
    retired: list[tuple[Sink, OpenFile]] = field(default_factory=list)
    """Files to complete."""
    folders: set[str] = field(default_factory=set)

    @property
    def is_empty(self) -> bool:
        return not (self.dirty or self.retired or self.folders)


class Fate(Enum):
    SAFE = "safe"
    LOST = "lost"
    """The file and its `records` are gone: somebody removed it, or (`error`) nothing of it can be read back."""
    SUSPECT = "suspect"
    """Not on the disk for sure, and tried again; `error` says why."""
    ELSEWHERE = "elsewhere"
    """In the capture folder that somebody moved away or unmounted: it is completed when that one is opened again."""
    SHRUNK = "shrunk"
    """Repaired; `records` could not be saved."""


@dataclass(frozen=True)
class Settled:
    sink: Sink
    file: OpenFile
    fate: Fate
    records: int = 0
    error: OSError | None = None


class Settler:
    """`submit` from one thread; `report` is called from the settler's. `close` waits for what was submitted."""

    def __init__(
        self, root: Root, files: Files, keyring: Keyring, log: logging.Logger, report: Callable[[Settled], None]
    ) -> None:
        self._root = root
        self._files = files
        self._keyring = keyring
        self._log = log
        self._report = report
        self._suspects: dict[OpenFile, Sink] = {}
        self._left_folders: set[str] = set()
        self._repairs = 0
        self._thread = ThreadPoolExecutor(1, "capture-settle")
        self._pool = ThreadPoolExecutor(FSYNCS_AT_ONCE, "capture-fsync")

    def submit(self, work: Work) -> Future[None]:
        return self._thread.submit(self._settle, work)

    def close(self, *, wait: bool = True) -> None:
        self._thread.shutdown(wait=wait)
        self._pool.shutdown(wait=wait)

    @property
    def has_suspects(self) -> bool:
        """Whether something is to be tried again."""
        return bool(self._suspects or self._left_folders)

    # --- the settler's thread ----------------------------------------------------------------------------------------

    def _settle(self, work: Work) -> None:
        try:
            self._settle_all(work)
        except Exception:  # noqa: BLE001 (the top of this thread: the next piece of work may go well)
            self._log.exception("captured files could not be put on the disk; they are completed at the next start")

    def _settle_all(self, work: Work) -> None:
        results = self._each(self._sync, work.dirty) + self._each(self._complete, work.retired)
        folders = work.folders | self._left_folders | {os.path.dirname(r.file.path) for r in results}  # noqa: PTH120
        failed = self._sync_folders(folders)
        self._left_folders = set(failed)
        for result in results:
            error = failed.get(os.path.dirname(result.file.path))  # noqa: PTH120
            if result.fate is Fate.SAFE and error is not None:
                result = Settled(result.sink, result.file, Fate.SUSPECT, error=error)  # noqa: PLW2901
            self._conclude(result)
        for file in list(self._suspects)[:REPAIRS_AT_ONCE]:
            self._retry(self._suspects.pop(file), file)

    def _each(
        self, act: Callable[[tuple[Sink, OpenFile]], Settled], files: list[tuple[Sink, OpenFile]]
    ) -> list[Settled]:
        return list(self._pool.map(act, files)) if len(files) > 1 else [act(each) for each in files]

    def _conclude(self, result: Settled) -> None:
        file = result.file
        if result.fate is Fate.SUSPECT:
            file.is_abandoned = True
            if file.fd < 0 and (len(self._suspects) < MAX_SUSPECTS):
                self._suspects[file] = result.sink
        else:
            result.sink.count_durable(file)  # also what was lost: it is taken off again where it is counted as dropped
        self._report(result)

    def _sync(self, each: tuple[Sink, OpenFile]) -> Settled:
        """A file that is still written to."""
        sink, file = each
        try:
            if file.unsynced:
                file.unsynced = False
                self._files.sync(file.fd)
            if not self._files.is_at(file.fd, file.path):
                file.is_abandoned = True  # the writer gives it away, `_complete` sees what became of it
        except OSError as error:
            file.is_trusted = False
            return Settled(sink, file, Fate.SUSPECT, error=error)
        return Settled(sink, file, Fate.SAFE)

    def _complete(self, each: tuple[Sink, OpenFile]) -> Settled:
        sink, file = each
        try:
            if file.fd < 0:
                file.fd = self._files.reopen(file.path)
        except FileNotFoundError:
            return self._gone(sink, file)
        except OSError as error:
            return Settled(sink, file, Fate.SUSPECT, error=error)  # tried again: its data may be dirty still
        try:
            return self._complete_open(sink, file)
        finally:
            fd, file.fd = file.fd, -1
            self._files.close(fd)

    def _complete_open(self, sink: Sink, file: OpenFile) -> Settled:
        try:
            if file.is_trusted:
                file.is_trusted = False  # unless the sync succeeds
                self._files.sync(file.fd)
                file.is_trusted = True
            if not self._files.is_at(file.fd, file.path) and not self._follow(file):
                return self._gone(sink, file)
            if file.is_torn or not file.is_trusted:
                return Settled(sink, file, Fate.SUSPECT)
            self._rename(file)
        except OSError as error:
            return Settled(sink, file, Fate.SUSPECT, error=error)
        return Settled(sink, file, Fate.SAFE)

    def _gone(self, sink: Sink, file: OpenFile) -> Settled:
        if self._root.is_same():
            return Settled(sink, file, Fate.LOST, file.records)
        return Settled(sink, file, Fate.ELSEWHERE)

    def _follow(self, file: OpenFile) -> bool:
        """A file that somebody renamed inside its folder is still ours; anywhere else it is not."""
        now_at = self._files.whereabouts(file.fd)
        if os.path.dirname(now_at) != os.path.dirname(file.path) or not self._files.is_at(file.fd, now_at):  # noqa: PTH120
            return False
        if now_at.endswith(COMPLETE_SUFFIX):
            file.path = now_at
        else:
            self._files.rename(now_at, file.path)
        return True

    def _rename(self, file: OpenFile) -> None:
        if not file.path.endswith(COMPLETE_SUFFIX):
            self._files.rename(file.path, file.complete_path)
            file.path = file.complete_path

    def _sync_folders(self, folders: Iterable[str]) -> dict[str, OSError]:
        failed = {}
        for folder in folders:
            try:
                self._files.sync_folder(folder)
            except OSError as error:
                failed[folder] = error
        return failed

    # --- repair ------------------------------------------------------------------------------------------------------

    def _retry(self, sink: Sink, file: OpenFile) -> None:
        try:
            lost = 0
            if not file.is_trusted or file.is_torn:
                lost = self._rewrite(file)
            elif file.unsynced:
                self._sync_closed(file)
            self._rename(file)
            self._files.sync_folder(os.path.dirname(file.path))  # noqa: PTH120
        except FileNotFoundError:
            self._conclude(self._gone(sink, file))
        except (CaptureFileError, CaptureError) as problem:
            self._give_up(sink, file, str(problem))
        except OSError as error:
            self._suspects[file] = sink
            self._report(Settled(sink, file, Fate.SUSPECT, error=error))
        else:
            self._conclude(Settled(sink, file, Fate.SHRUNK if lost else Fate.SAFE, lost))

    def _sync_closed(self, file: OpenFile) -> None:
        fd = self._files.reopen(file.path)
        try:
            file.is_trusted = False  # unless the sync succeeds
            self._files.sync(fd)
            file.is_trusted = True
        finally:
            self._files.close(fd)
        file.unsynced = False

    def _rewrite(self, file: OpenFile) -> int:
        """Writes what is whole of a file to new blocks, under its name; returns how many records are missing."""
        content = self._files.read(file.path)
        usable = usable_part(content, self._keyring)
        self._repairs += 1
        state = str(self._root.path / STATE)
        self._files.make_folder(state)
        copy = f"{state}/{REPAIR_PREFIX}{self._repairs}"
        self._files.unlink(copy)
        fd = self._files.create(copy)
        try:
            self._files.write(fd, (content[: usable.good_end],))
            self._files.sync(fd)
        except OSError:
            self._files.close(fd)
            self._files.unlink(copy)
            raise
        self._files.close(fd)
        self._files.rename(copy, file.path)
        # Before the copy gets its last name: else a power cut could leave it there and the old file here, each record twice.
        self._files.sync_folder(os.path.dirname(file.path))  # noqa: PTH120
        file.is_trusted, file.is_torn = True, False
        lost, file.records = max(0, file.records - usable.records), usable.records
        return lost

    def _give_up(self, sink: Sink, file: OpenFile, problem: str) -> None:
        """Nothing of the file can be read back."""
        error = OSError(errno.EIO, problem, file.path)
        try:
            target = set_aside_target(self._root.path, Path(file.path))
            write_reason(target, problem, "the disk gave an error while it was written")
            self._files.rename(file.path, str(target))
        except OSError as failed:
            self._log.debug("cannot set %s aside: %s", file.path, failed)
        self._conclude(Settled(sink, file, Fate.LOST, file.records, error))


def pass_on(work: Future[None], done: Future[None]) -> None:
    """`done` ends with `work`, unless who waits for it has given up."""

    def end(_: Future[None]) -> None:
        if done.set_running_or_notify_cancel():
            done.set_result(None)

    work.add_done_callback(end)
