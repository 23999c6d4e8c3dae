"""The disk's side of sync: reads files into frames, and lets go of those the app has. Blocking; one thread.

A file is removed only when the app's answer names its id, and only after the ledger has counted it (capture/ledger.py).
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from gleaner.machine.capture.at_rest import is_encrypted
from gleaner.machine.capture.directory import is_binary_path
from gleaner.machine.capture.errors import CaptureKeyMissing
from gleaner.machine.capture.ledger import (
    DropReason,
    LedgerStore,
)
from gleaner.machine.sync.departures import Departure, Departures
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
        self._store = store
        self._log = log
        self._wall_ns = wall_ns
        self._sealed = SealedFiles(settings.keyring, log)
        self.problems = Problems(log)
        self._departures = Departures(settings, store, self.problems, log)
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
                if self._departures.is_kept(candidate.path) or candidate.path in taken:
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
            self._departures.keep(candidate.path)
            self.problems.wait(f"key {missing.key_id}", f"captures wait on this machine: {missing}")
        except CaptureFileError as problem:
            is_binary = is_binary_path(self._departures.directory(candidate))
            self._departures.set_aside(candidate, DropReason.DAMAGED, int(is_binary), str(problem), _DAMAGED_HINT)
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
        times = candidate.modified_ns, candidate.changed_ns
        return Entry(digest, path, size, candidate.kind, tags, datasets, *times, name)

    def _count(self, candidate: Candidate, content: bytes) -> int | None:
        """Records in a capture; None for one without any, which is removed or set aside here and not sent.

        A binary capture holds one record. Its bytes are not checked here, where that would cost as much as sending
        them: the app does, and what it rejects is looked at again.
        """
        is_binary = is_binary_path(self._departures.directory(candidate))
        if is_binary and self._has_known_header(content):
            return 1
        records, problem = self._examine(candidate, content)
        if problem:
            self._departures.set_aside(candidate, DropReason.DAMAGED, int(is_binary), problem, _DAMAGED_HINT)
            return None
        if not records:
            self._departures.let_go([self._departures.synced(candidate, 0)])
            return None
        return records

    def _examine(self, candidate: Candidate, content: bytes) -> tuple[int, str]:
        """(records, what is wrong with the file)."""
        try:
            layout = find_layout(content)
        except CaptureFileError as error:
            return 0, str(error)
        if not is_binary_path(self._departures.directory(candidate)):
            return len(layout.records), ""
        if layout.records and layout.sealed and len(self._headers) < _KNOWN_HEADERS:
            self._headers[content[: layout.header.end]] = True
        return min(len(layout.records), 1), "" if layout.records else "the record in it is damaged"

    def _has_known_header(self, content: bytes) -> bool:
        """Whether a binary capture begins as one that was examined, and has a record of the right length."""
        header_end = header_size(content)
        return content[:header_end] in self._headers and is_one_record(content, header_end)

    # --- letting go --------------------------------------------------------------------------------------------------

    def settle(self, files: Sequence[LocalFile], results: Sequence[Result]) -> int:
        """Acts on the app's answers; returns how many files it has. A file without an answer stays."""
        answers = {result.id: result for result in results}
        done: list[Departure] = []
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
            departure = self._departures.synced(file.candidate, file.records)
            (done if self.is_unchanged(file.candidate) else missing).append(departure)
        self._departures.let_go(done)
        if missing:  # a full disk took them while they were on their way, if not somebody else
            self._store.reclaim((one.leaving, one.change) for one in missing)
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
        self._departures.set_aside(file.candidate, reason, file.records, message, hint)

    def _keep_doubted(self, path: str, answer: Result) -> None:
        """The app read other bytes than were read here, or computes ids otherwise: no fault of the file, which stays."""
        words = f"{answer.message}; it stays on this machine. {answer.hint}"
        self.problems.note(words)
        if path not in self._doubted:
            self._doubted.add(path)
            return
        self._departures.keep(path)
        self.problems.wait("id", f"files wait on this machine, the last one: {words}")
        self._log.error("%s", words)
