"""The disk's side of sync: reads files into frames, and lets go of those the app has. Blocking; one thread.

A file is removed only when the app's answer names its id, and only after the ledger has counted it (capture/ledger.py).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gleaner.machine.capture.directory import is_binary_path, set_aside_target, write_reason
from gleaner.machine.capture.ledger import Change, DropReason, Fate, Leaving, LedgerStore, leave, sync_directories
from gleaner.machine.sync.scan import Candidate, candidates, path_tags
from gleaner.machine.sync.settings import SyncSettings
from gleaner.wire.capture_file import CaptureFileError, find_layout
from gleaner.wire.ids import CaptureIdHasher, capture_id
from gleaner.wire.sync_frames import BATCH_BYTES, BATCH_ENTRIES, SMALL_FILE_BYTES, Entry, EntryKind, Result, Status

_HASH_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class LocalFile:
    """A file as it was read: what the ledger counts, and how to know it again."""

    candidate: Candidate
    entry: Entry
    records: int


@dataclass(frozen=True)
class Outgoing:
    """One batch: the files and their bytes, in the same order."""

    files: tuple[LocalFile, ...]
    payloads: tuple[bytes, ...]

    @property
    def size_bytes(self) -> int:
        return sum(len(p) for p in self.payloads)


class LocalFiles:
    def __init__(
        self,
        settings: SyncSettings,
        store: LedgerStore,
        log: logging.Logger,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self._store = store
        self._log = log
        self._wall_ns = wall_ns
        self._gone: list[str] = []
        self._uncounted: list[Change] = []
        self._immovable: dict[str, None] = {}
        """Files that the app has and that cannot be removed (read-only disk): not sent again and again."""

    # --- reading -----------------------------------------------------------------------------------------------------

    def scan(self) -> Iterator[Candidate]:
        roots = [self._settings.root, *(Path(p).expanduser() for p in self._settings.additional_sync_paths)]
        for candidate in candidates(roots, self._wall_ns(), self._settings.settle_ms):
            if candidate.path not in self._immovable:
                yield candidate

    def next_batch(self, source: Iterator[Candidate]) -> tuple[Outgoing | None, list[Candidate]]:
        """Reads until a batch is full or the source ends (then None may come). Big files are returned beside it."""
        files: list[LocalFile] = []
        payloads: list[bytes] = []
        big: list[Candidate] = []
        size = 0
        for candidate in source:
            if candidate.size > SMALL_FILE_BYTES:
                big.append(candidate)
            elif (loaded := self.load(candidate)) is not None:
                files.append(loaded[0])
                payloads.append(loaded[1])
                size += len(loaded[1])
            if size >= BATCH_BYTES or len(files) >= BATCH_ENTRIES or len(big) >= BATCH_ENTRIES:
                break
        return (Outgoing(tuple(files), tuple(payloads)) if files else None), big

    def load(self, candidate: Candidate) -> tuple[LocalFile, bytes] | None:
        """The file and its bytes; None when there is nothing to send, which is then settled here."""
        try:
            content = Path(candidate.path).read_bytes()
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._log.debug("cannot read %s: %s", candidate.path, error)
            return None
        records = 0
        if candidate.kind is EntryKind.CAPTURE:
            counted = self._count(candidate, content)
            if counted is None:
                return None
            records = counted
        path = self._sent_path(candidate)
        digest = capture_id(self._settings.part_id, path, content)
        return LocalFile(candidate, self._entry(candidate, path, digest, len(content)), records), content

    def describe(self, candidate: Candidate) -> LocalFile | None:
        """A big file, read once for its id; None when it cannot be sent."""
        if candidate.kind is EntryKind.CAPTURE:
            loaded = self.load(candidate)
            return None if loaded is None else loaded[0]
        path = self._sent_path(candidate)
        hasher = CaptureIdHasher(self._settings.part_id, path)
        size = 0
        try:
            with Path(candidate.path).open("rb") as file:
                while chunk := file.read(_HASH_CHUNK):
                    hasher.update(chunk)
                    size += len(chunk)
        except OSError as error:
            self._log.debug("cannot read %s: %s", candidate.path, error)
            return None
        return LocalFile(candidate, self._entry(candidate, path, hasher.hexdigest(), size), 0)

    def read_piece(self, file: LocalFile, offset: int, size: int) -> bytes | None:
        """None when the file is no longer what `describe` saw: it has to be begun again."""
        if not self.is_unchanged(file.candidate):
            return None
        with Path(file.candidate.path).open("rb") as opened:
            opened.seek(offset)
            return opened.read(size)

    def is_unchanged(self, seen: Candidate) -> bool:
        try:
            status = os.lstat(seen.path)
        except OSError:
            return False
        return (status.st_ino, status.st_size, status.st_mtime_ns) == (seen.inode, seen.size, seen.modified_ns)

    def _sent_path(self, candidate: Candidate) -> str:
        path = Path(candidate.path)
        if candidate.kind is EntryKind.CAPTURE and path.is_relative_to(self._settings.root):
            path = path.relative_to(self._settings.root)
        # Names that are not UTF-8 travel with replacement characters: the app could not store them otherwise.
        return os.fsencode(path.as_posix()).decode("utf-8", "replace")

    def _entry(self, candidate: Candidate, path: str, digest: str, size: int) -> Entry:
        tags: tuple[str, ...] = ()
        datasets: tuple[str, ...] = ()
        if candidate.kind is EntryKind.FILE:
            path_named, datasets = path_tags(path)
            tags = tuple(dict.fromkeys((*self._settings.tags, *path_named)))
        name = path.rsplit("/", 1)[-1]
        return Entry(
            digest, path, size, candidate.kind, tags, datasets, candidate.modified_ns, candidate.changed_ns, name
        )

    def _count(self, candidate: Candidate, content: bytes) -> int | None:
        """Records in a capture; None for one without any, which is removed or set aside here and not sent."""
        is_binary = is_binary_path(self._directory(candidate))
        try:
            records = len(find_layout(content).records)
            problem = "the record in it is damaged" if is_binary and not records else ""
        except CaptureFileError as error:
            records, problem = 0, str(error)
        if problem:
            reason = "the file was damaged on this machine's disk; the app could not have read it either"
            self._set_aside(candidate, DropReason.DAMAGED, int(is_binary), problem, reason)
            return None
        if not records:
            self._let_go([(candidate, "", self._change(candidate, Fate.SYNCED, "", 0))])
            return None
        return 1 if is_binary else records

    def _directory(self, candidate: Candidate) -> str:
        path = Path(candidate.path)
        if not path.is_relative_to(self._settings.root):
            return ""
        return path.parent.relative_to(self._settings.root).as_posix()

    # --- letting go --------------------------------------------------------------------------------------------------

    def settle(self, files: Sequence[LocalFile], results: Sequence[Result]) -> int:
        """Acts on the app's answers; returns how many files it has. A file without an answer stays."""
        answers = {result.id: result for result in results}
        done: list[tuple[Candidate, str, Change | None]] = []
        stored = 0
        for file in files:
            answer = answers.get(file.entry.id)
            if answer is None:
                continue
            if answer.status is Status.REJECTED:
                self._rejected(file, answer)
                continue
            stored += 1
            if self.is_unchanged(file.candidate):
                done.append((file.candidate, "", self._change(file.candidate, Fate.SYNCED, "", file.records)))
        self._let_go(done)
        return stored

    def _rejected(self, file: LocalFile, answer: Result) -> None:
        # The id says whether the app judged what is on the disk; if the file changed meanwhile, it is simply sent again.
        again = self.describe(file.candidate) if self.is_unchanged(file.candidate) else None
        if again is not None and again.entry.id == file.entry.id:
            self._set_aside(file.candidate, DropReason.REJECTED, file.records, answer.message, answer.hint)

    def _set_aside(self, candidate: Candidate, why: DropReason, records: int, message: str, hint: str) -> None:
        try:
            target = set_aside_target(self._settings.root, Path(candidate.path))
            write_reason(target, message, hint)
        except OSError as error:
            self._log.warning("%s cannot be sent (%s) and cannot be set aside: %s", candidate.path, message, error)
            self._immovable[candidate.path] = None
            return
        self._log.warning("set %s aside as %s: %s %s", candidate.path, target, message, hint)
        self._let_go([(candidate, str(target), self._change(candidate, Fate.SET_ASIDE, why, records))])

    def _change(self, candidate: Candidate, fate: Fate, reason: str, records: int) -> Change | None:
        directory = self._directory(candidate)
        if candidate.kind is not EntryKind.CAPTURE or not directory:
            return None
        return Change(directory, fate, reason, records, 1, candidate.size)

    def _let_go(self, done: Sequence[tuple[Candidate, str, Change | None]]) -> None:
        if not done:
            return
        leaving = [Leaving(c.path, target, c.inode, c.size, c.modified_ns) for c, target, _ in done]
        self._uncounted += [change for _, _, change in done if change is not None]
        try:
            self._store.record(self._uncounted, leaving, self._gone)
            self._uncounted, self._gone = [], []
        except sqlite3.OperationalError as error:
            # A full disk: only letting go makes room again. The counts are written with the next files.
            self._log.debug("the ledger cannot be written now: %s", error)
        for file in leaving:
            try:
                leave(file)
            except OSError as error:
                self._immovable[file.path] = None
                self._log.warning("the app has %s but it cannot be removed: %s", file.path, error)
                continue
            self._gone.append(file.path)
        sync_directories({str(Path(path).parent) for path in self._gone})
