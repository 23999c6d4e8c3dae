"""The disk's side of sync: reads files into frames, and lets go of those the app has. Blocking; one thread.

A file is removed only when the app's answer names its id, and only after the ledger has counted it (capture/ledger.py).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from gleaner.machine.capture.at_rest import is_encrypted
from gleaner.machine.capture.backlog import wait_until_counted, wait_until_noted
from gleaner.machine.capture.directory import hour_of, is_binary_path, set_aside_target, write_reason
from gleaner.machine.capture.errors import CaptureKeyMissing
from gleaner.machine.capture.ledger import (
    Change,
    Departure,
    DropReason,
    Fate,
    Leaving,
    LedgerStore,
    leave,
    merged,
    sync_directories,
)
from gleaner.machine.capture.ledger_rows import files_row
from gleaner.machine.capture.other_files import other_roots
from gleaner.machine.sync.outgoing import Amounts, LocalFile, Outgoing, packed
from gleaner.machine.sync.problems import Problems
from gleaner.machine.sync.scan import Candidate, Look, Shelf, path_tags, shelves
from gleaner.machine.sync.sealed import SealedFiles
from gleaner.machine.sync.settings import SyncSettings
from gleaner.wire.capture_file import (
    COMPLETE_SUFFIX,
    CaptureFileError,
    find_layout,
    has_tags,
    header_size,
    is_one_record,
)
from gleaner.wire.ids import CaptureIdHasher, capture_id
from gleaner.wire.sync_frames import BATCH_ENTRIES, Entry, EntryKind, Result, Status

_HASH_CHUNK = 1024 * 1024
_KNOWN_HEADERS = 256
_HEADER_PEEK = 64 * 1024
_DAMAGED_HINT = "the file was damaged on this machine's disk; the app could not have read it either"


class LocalFiles:
    """Reading and settling may run in a thread each; what they share is under a lock."""

    def __init__(
        self,
        settings: SyncSettings,
        store: LedgerStore,
        log: logging.Logger,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self._root = str(settings.root)
        self._other_roots = other_roots(settings.root, settings.additional_sync_paths)
        self._store = store
        self._may_leave = False
        self._log = log
        self._wall_ns = wall_ns
        self._lock = threading.Lock()
        self._gone: list[str] = []
        self._uncounted: list[Change] = []
        self._immovable: set[int] = set()
        """Hashes of the paths of files that the app has and that cannot be removed (read-only disk), or that nobody here can
        open: not tried again and again. (A million paths would be 250 MB.)"""
        self._sealed = SealedFiles(settings.keyring, log)
        self.problems = Problems(log)
        self._doubted: set[str] = set()
        """Files whose bytes arrived as others once: a second time they are not tried again."""
        self._headers: dict[bytes, bool] = {}
        """Headers of binary captures that were read before; whether they are sealed."""

    # --- reading -----------------------------------------------------------------------------------------------------

    def shelves(self, since_ns: int = 0) -> list[Shelf]:
        """What is ready, tagged shelves first; with `since_ns` only what is newer."""
        roots = [self._settings.root, *(Path(p).expanduser() for p in self._settings.additional_sync_paths)]
        found = shelves(roots, Look(self._wall_ns(), self._settings.settle_ms, since_ns), self._is_tagged)
        return sorted(found, key=lambda shelf: not shelf.is_tagged)

    def next_batch(
        self, waiting: deque[Shelf], amounts: Amounts, taken: set[str]
    ) -> tuple[Outgoing | None, list[Candidate]]:
        """Reads until a batch is full or `waiting` is empty (then None may come). Big files are returned beside it.

        A shelf that filled the batch goes to the end of `waiting`: the next batch is another one's. `taken` holds the
        paths that are on their way already; those of this batch are added.
        """
        files: list[LocalFile] = []
        payloads: list[bytes] = []
        big: list[Candidate] = []
        size = 0
        while waiting:
            shelf = waiting.popleft()
            for candidate in shelf.files:
                if hash(candidate.path) in self._immovable or candidate.path in taken:
                    continue
                if candidate.kind is EntryKind.SEQUENCE:
                    candidate = amounts.as_taken(candidate)  # noqa: PLW2901
                if candidate.size > amounts.small_file_bytes:
                    big.append(candidate)
                elif (loaded := self.load(candidate)) is not None:
                    file, payload = packed(*loaded) if amounts.compress else loaded
                    taken.add(candidate.path)
                    files.append(file)
                    payloads.append(payload)
                    size += len(payload)
                if size >= amounts.batch_bytes or len(files) >= BATCH_ENTRIES or len(big) >= BATCH_ENTRIES:
                    waiting.append(shelf)
                    return (Outgoing(tuple(files), tuple(payloads)) if files else None), big
        return (Outgoing(tuple(files), tuple(payloads)) if files else None), big

    def load(self, candidate: Candidate) -> tuple[LocalFile, bytes] | None:
        """The file and its bytes; None when there is nothing to send, which is then settled here."""
        content = self._content(candidate)
        if content is None:
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
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problems.unreadable(candidate.path, error)
            return None
        return LocalFile(candidate, self._entry(candidate, path, hasher.hexdigest(), size), 0)

    def read_piece(self, file: LocalFile, offset: int, size: int) -> bytes | None:
        """None when the file is no longer what `describe` saw: it has to be begun again."""
        if not self.is_unchanged(file.candidate):
            return None
        return self._sealed.piece(file.candidate, offset, size, self._content)

    def is_tagged(self, candidate: Candidate) -> bool:
        """Whether a big file is tagged, by itself or by its directory."""
        if candidate.kind is EntryKind.FILE:
            return bool(self._settings.tags or path_tags(candidate.path)[0])
        return self._is_tagged(os.path.dirname(candidate.path))  # noqa: PTH120 (text in, text out)

    def _content(self, candidate: Candidate) -> bytes | None:
        """What is sent of a file; None when it cannot be read, or not without a key that is not here: then it waits."""
        content = self._read(candidate)
        if content is None or candidate.kind is not EntryKind.CAPTURE or not is_encrypted(content):
            return content
        try:
            return self._sealed.plain(content)
        except CaptureKeyMissing as missing:
            self._immovable.add(hash(candidate.path))
            self.problems.wait(f"key {missing.key_id}", f"captures wait on this machine: {missing}")
        except CaptureFileError as problem:
            is_binary = is_binary_path(self._directory(candidate))
            self._set_aside(candidate, DropReason.DAMAGED, int(is_binary), str(problem), _DAMAGED_HINT)
        return None

    def _read(self, candidate: Candidate) -> bytes | None:
        try:
            handle = os.open(candidate.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.problems.readable(candidate.path)
            return None
        except OSError as error:
            self.problems.unreadable(candidate.path, error)
            return None
        try:
            content = os.read(handle, candidate.size + 1)  # a file that grew is seen by its id or its size
            while len(content) < candidate.size and (more := os.read(handle, candidate.size + 1 - len(content))):
                content += more
        except OSError as error:
            self.problems.unreadable(candidate.path, error)
            return None
        finally:
            os.close(handle)
        self.problems.readable(candidate.path)
        return content

    def _is_tagged(self, directory: str) -> bool:
        """By the header of one capture: a collector gives all its files the same tags. Or by the directory's names."""
        if path_tags(f"{directory}/x")[0]:
            return True
        try:
            with os.scandir(directory) as entries:
                path = next((e.path for e in entries if e.name.endswith(COMPLETE_SUFFIX)), "")
            if not path:
                return False
            with Path(path).open("rb") as file:
                return has_tags(self._sealed.plain(file.read(_HEADER_PEEK)))
        except (OSError, CaptureFileError, CaptureKeyMissing):
            return False

    def is_unchanged(self, seen: Candidate) -> bool:
        try:
            status = os.lstat(seen.path)
        except OSError:
            return False
        return (status.st_ino, status.st_size, status.st_mtime_ns) == (seen.inode, seen.size, seen.modified_ns)

    def _sent_path(self, candidate: Candidate) -> str:
        path = candidate.path
        if candidate.kind is not EntryKind.FILE and path.startswith(self._root + "/"):
            path = path[len(self._root) + 1 :]
        # Names that are not UTF-8 travel with replacement characters: the app could not store them otherwise.
        return path if path.isascii() else os.fsencode(path).decode("utf-8", "replace")

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
        """Records in a capture; None for one without any, which is removed or set aside here and not sent.

        A binary capture holds one record. Its bytes are not checked here, where that would cost as much as sending
        them: the app does, and what it rejects is looked at again.
        """
        is_binary = is_binary_path(self._directory(candidate))
        if is_binary and self._has_known_header(content):
            return 1
        records, problem = self._examine(candidate, content)
        if problem:
            self._set_aside(candidate, DropReason.DAMAGED, int(is_binary), problem, _DAMAGED_HINT)
            return None
        if not records:
            self._let_go([(candidate, "", self._change(candidate, Fate.SYNCED, "", 0))])
            return None
        return records

    def _examine(self, candidate: Candidate, content: bytes) -> tuple[int, str]:
        """(records, what is wrong with the file)."""
        try:
            layout = find_layout(content)
        except CaptureFileError as error:
            return 0, str(error)
        if not is_binary_path(self._directory(candidate)):
            return len(layout.records), ""
        if layout.records and layout.sealed and len(self._headers) < _KNOWN_HEADERS:
            self._headers[content[: layout.header.end]] = True
        return min(len(layout.records), 1), "" if layout.records else "the record in it is damaged"

    def _has_known_header(self, content: bytes) -> bool:
        """Whether a binary capture begins as one that was examined, and has a record of the right length."""
        header_end = header_size(content)
        return content[:header_end] in self._headers and is_one_record(content, header_end)

    def _directory(self, candidate: Candidate) -> str:
        """The collector's, relative to the capture directory; "" for other files."""
        start = len(self._root) + 1
        if not candidate.path.startswith(self._root + "/"):
            return ""
        return candidate.path[start : max(candidate.path.rfind("/"), start)]

    # --- letting go --------------------------------------------------------------------------------------------------

    def settle(self, files: Sequence[LocalFile], results: Sequence[Result]) -> int:
        """Acts on the app's answers; returns how many files it has. A file without an answer stays."""
        answers = {result.id: result for result in results}
        done: list[tuple[Candidate, str, Change | None]] = []
        missing: list[Departure] = []
        stored = 0
        for file in files:
            answer = answers.get(file.entry.id)
            if answer is None:
                continue
            if answer.status is Status.REJECTED:
                self._rejected(file, answer)
                continue
            stored += 1
            change = self._change(file.candidate, Fate.SYNCED, "", file.records)
            if self.is_unchanged(file.candidate):
                done.append((file.candidate, "", change))
            else:
                missing.append((_leaving(file.candidate, ""), change))
        self._let_go(done)
        if missing:  # a full disk took them while they were on their way, if not somebody else
            self._store.reclaim(missing)
        return stored

    def _rejected(self, file: LocalFile, answer: Result) -> None:
        # The id says whether the app judged what is on the disk; if the file changed meanwhile, it is simply sent again.
        if not self.is_unchanged(file.candidate):
            return
        again = self.describe(file.candidate)
        if again is None or again.entry.id != file.entry.id:
            return
        if answer.again:
            self._keep_doubted(file.candidate.path, answer)
            return
        reason, message, hint = DropReason.REJECTED, answer.message, answer.hint
        if file.candidate.kind is EntryKind.CAPTURE:
            content = self._content(file.candidate)
            damage = self._examine(file.candidate, content)[1] if content is not None else ""
            if damage:
                reason, message, hint = DropReason.DAMAGED, damage, _DAMAGED_HINT
        self._set_aside(file.candidate, reason, file.records, message, hint)

    def _keep_doubted(self, path: str, answer: Result) -> None:
        """The app read other bytes than were read here, or computes ids otherwise: no fault of the file, which stays."""
        words = f"{answer.message}; it stays on this machine. {answer.hint}"
        self.problems.note(words)
        if path not in self._doubted:
            self._doubted.add(path)
            return
        self._immovable.add(hash(path))
        self.problems.wait("id", f"files wait on this machine, the last one: {words}")
        self._log.error("%s", words)

    def _set_aside(self, candidate: Candidate, why: DropReason, records: int, message: str, hint: str) -> None:
        try:
            target = set_aside_target(self._settings.root, Path(candidate.path))
            write_reason(target, message, hint)
        except OSError as error:
            self.problems.note(f"{candidate.path}: {message} {hint}")
            self._log.warning("%s cannot be sent (%s) and cannot be set aside: %s", candidate.path, message, error)
            self._immovable.add(hash(candidate.path))
            return
        self.problems.note(f"{candidate.path}: {message} {hint} (it is in {target.parent} now)")
        self._log.warning("set %s aside as %s: %s %s", candidate.path, target, message, hint)
        self._let_go([(candidate, str(target), self._change(candidate, Fate.SET_ASIDE, why, records))])

    def _change(self, candidate: Candidate, fate: Fate, reason: str, records: int) -> Change | None:
        directory = self._directory(candidate)
        if not directory:
            root = next((root for root in self._other_roots if candidate.path.startswith(f"{root}/")), "")
            return Change(files_row(root), fate, reason, 1, 1, candidate.size) if root else None
        if candidate.kind is not EntryKind.CAPTURE:
            return None
        hour = hour_of(candidate.path[candidate.path.rfind("/") + 1 :])
        return Change(directory, fate, reason, records, 1, candidate.size, hour)

    def _let_go(self, done: Sequence[tuple[Candidate, str, Change | None]]) -> None:
        if not done:
            return
        departures = [(_leaving(candidate, target), change) for candidate, target, change in done]
        if not self._may_leave:
            wait_until_noted(self._settings.root, self._store)
            self._may_leave = not self._store.is_counting()
        with self._lock:
            try:
                self._store.record(self._uncounted, departures, self._gone)
                self._uncounted, self._gone = [], []
            except sqlite3.OperationalError as error:
                # A full disk: only letting go makes room again. The counts are written with the next files.
                self._uncounted = merged(
                    [*self._uncounted, *(change for _, change in departures if change is not None)]
                )
                self._log.debug("the ledger cannot be written now: %s", error)
                wait_until_counted(self._settings.root)  # it could not be told either
            gone: list[str] = []
            for file, _ in departures:
                try:
                    leave(file)
                except OSError as error:
                    self._immovable.add(hash(file.path))
                    self._log.warning("the app has %s but it cannot be removed: %s", file.path, error)
                    continue
                gone.append(file.path)
            sync_directories({path[: path.rfind("/")] for path in gone})
            self._gone += gone


def _leaving(candidate: Candidate, target: str) -> Leaving:
    return Leaving(candidate.path, target, candidate.inode, candidate.size, candidate.modified_ns)
