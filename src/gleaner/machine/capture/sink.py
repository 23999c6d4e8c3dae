"""One collector's files: names them, appends records, rotates. Used by the writer thread only.

A file is opened and written here; it is put on the disk, renamed to `.capture` and closed by the settler (`settle.py`).
A tabular file never spans two UTC hours: it belongs to the hour in its name.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gleaner.machine.capture.at_rest import FileSealer, Keyring
from gleaner.machine.capture.directory import Waiting, file_stem
from gleaner.machine.capture.files import Files, Root
from gleaner.wire.capture_file import COMPLETE_SUFFIX, IN_PROGRESS_SUFFIX, encode_record, frame

HOUR_NS = 3_600_000_000_000
SECOND_NS = 1_000_000_000
# A clock that is set back a little (NTP) must not put a new file before an older one; after a big step its word counts.
SMALL_STEP_NS = 60 * SECOND_NS

Parts = Sequence[bytes]


@dataclass(eq=False)
class OpenFile:
    """A file that is not complete yet."""

    path: str
    fd: int
    """-1: closed already, nothing will be added."""
    size: int
    hour: int
    """Hours since the epoch, UTC, of the time in its name."""
    sealer: FileSealer | None
    records: int = 0
    unsynced: bool = False
    is_trusted: bool = True
    """False after a failed fsync: the kernel may have thrown the data away and call the pages clean."""
    is_torn: bool = False
    """Half a record could not be cut off again."""
    is_abandoned: bool = False
    """Somebody took it away, or it cannot be trusted: nothing more may be added."""
    uncounted: Waiting = field(default_factory=Waiting)
    """What counts as captured only once it is on the disk."""

    @property
    def complete_path(self) -> str:
        return self.path.removesuffix(IN_PROGRESS_SUFFIX) + COMPLETE_SUFFIX


@dataclass
class Appended:
    """What became of the records given to `Sink.append`."""

    retired: list[OpenFile] = field(default_factory=list)
    """Files that get nothing more: to be completed."""
    errors: list[OSError] = field(default_factory=list)
    """One for each record that was not stored."""
    stored: int = 0


class Sink:
    """Invariant: between calls an open file ends with a whole record, or is torn and gets nothing more."""

    def __init__(
        self,
        root: Root,
        directory: str,
        rotate_bytes: int,
        wall_ns: Callable[[], int],
        files: Files | None = None,
        keyring: Keyring | None = None,
        *,
        count_when_durable: bool = False,
    ) -> None:
        self.directory = directory
        self.folder = str(root.path / directory)
        self._root = root
        self.rotate_bytes = rotate_bytes
        self.file: OpenFile | None = None
        self.dirty_folders: set[str] = set()
        """Folders with new entries that are not on the disk yet."""
        self.written = Waiting()
        """Everything this sink has put into files."""
        self.written_by_hour: dict[int, Waiting] = {}
        self._wall_ns = wall_ns
        self._files = files or Files()
        self._keyring = keyring or Keyring()
        self._count_when_durable = count_when_durable
        self._last_ns = 0
        self._stem_second = -1
        self._stem = ("", "")

    # --- writing -----------------------------------------------------------------------------------------------------

    def append(self, header: bytes, records: Sequence[Parts]) -> Appended:
        """Adds records to the current file, in as few writes as possible. An error costs only the records it hits."""
        done = Appended()
        index, most = 0, len(records)
        while index < len(records):
            has_records = self.file is not None and self.file.records > 0
            try:
                file = self._current(header, done.retired)
                taken = self._fill(file, records[index : index + most])
            except OSError as error:
                is_too_big = error.errno == errno.EFBIG
                self._after_error(done.retired, is_too_big)
                if most > 1:
                    most = 1  # once more, one by one
                elif not (is_too_big and has_records):  # else once more, in a new file
                    done.errors.append(error)
                    index += 1
                continue
            index += taken
            done.stored += taken
        return done

    def write_single(self, header: bytes, parts: Parts) -> OpenFile:
        """A file of its own for a binary record, closed but not complete. Raises OSError, and leaves no file then."""
        file = self._create(self._now())
        try:
            size = 0
            for buffers in _single(file.sealer, header, frame(parts)):
                self._files.write(file.fd, buffers)
                size += sum(map(len, buffers))
        except BaseException:
            self._discard(file)
            raise
        self._files.close(file.fd)
        file.fd = -1
        self._note(file, size, 1)
        return file

    def retire(self) -> OpenFile | None:
        """Gives the current file away, to be completed; the next record begins a new one."""
        file, self.file = self.file, None
        return file

    def count_durable(self, file: OpenFile) -> None:
        """Called by the settler: what `file` holds is on the disk, and counts as captured if it did not before."""
        if self._count_when_durable:
            self._count(file)

    def _count(self, file: OpenFile) -> None:
        added, file.uncounted = file.uncounted, Waiting()
        if added.records:
            self._add(self.written, added)
            self._add(self.written_by_hour.setdefault(file.hour, Waiting()), added)

    # --- the current file --------------------------------------------------------------------------------------------

    def _current(self, header: bytes, retired: list[OpenFile]) -> OpenFile:
        now_ns = self._now()
        file = self.file
        if file is not None:
            if not file.is_abandoned and file.size <= self.rotate_bytes and file.hour == now_ns // HOUR_NS:
                return file
            retired.append(file)
            self.file = None
        file = self._create(now_ns)
        beginning = header if file.sealer is None else file.sealer.beginning + file.sealer.frame(header, 0)
        try:
            self._files.write(file.fd, (beginning,))
        except OSError:
            self._discard(file)
            raise
        file.size = len(beginning)
        self.file = file
        return file

    def _fill(self, file: OpenFile, records: Sequence[Parts]) -> int:
        """Writes records up to the size at which a file is full; returns how many. All or nothing."""
        buffers = []
        size, room = 0, self.rotate_bytes - file.size
        sealer = file.sealer
        for parts in records:
            framed = encode_record(parts[0] if len(parts) == 1 else b"".join(parts))
            if sealer is not None:
                framed = sealer.frame(framed, 1)
            buffers.append(framed)
            size += len(framed)
            if size > room:
                break
        try:
            self._files.write(file.fd, (b"".join(buffers),))
        except OSError:
            try:
                self._files.truncate(file.fd, file.size)
            except OSError:
                file.is_torn = True
            raise
        self._note(file, size, len(buffers))
        return len(buffers)

    def _after_error(self, retired: list[OpenFile], is_too_big: bool) -> None:
        file = self.file
        if file is None:
            return
        if not file.records:
            self.file = None
            self._discard(file)
        elif file.is_torn or is_too_big:
            self.file = None
            retired.append(file)

    def _discard(self, file: OpenFile) -> None:
        """An empty file that cannot be removed now goes at the next start."""
        self._files.close(file.fd)
        with contextlib.suppress(OSError):
            self._files.unlink(file.path)

    def _note(self, file: OpenFile, size: int, records: int) -> None:
        before = file.size if file.records == 0 else 0  # the header counts with the first record
        self._add(file.uncounted, Waiting(records, int(file.records == 0), before + size))
        file.size += size
        file.records += records
        file.unsynced = True
        if not self._count_when_durable:
            self._count(file)

    @staticmethod
    def _add(to: Waiting, more: Waiting) -> None:
        to.records += more.records
        to.files += more.files
        to.size_bytes += more.size_bytes

    # --- names -------------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        wall_ns = self._wall_ns()
        if 0 < self._last_ns - wall_ns <= SMALL_STEP_NS:
            return self._last_ns
        self._last_ns = wall_ns
        return wall_ns

    def _create(self, time_ns: int) -> OpenFile:
        is_folder_made = False
        while True:
            path = self._path(time_ns)
            # A file of that time may be complete already: two captures in one microsecond, or a clock set back.
            if not self._files.exists(path + COMPLETE_SUFFIX):
                created = self._root.created
                if created is not None:
                    created.add(path)
                try:
                    fd = self._files.create(path + IN_PROGRESS_SUFFIX)
                    break
                except FileExistsError:
                    pass
                except FileNotFoundError:
                    # A capture folder that somebody removed is made again by its owner, with everything else in it.
                    if is_folder_made or not self._root.is_same():
                        raise
                    self.dirty_folders.update(self._files.make_folder(self.folder))
                    is_folder_made = True
                    continue
            time_ns += 1000
        self._last_ns = time_ns
        self.dirty_folders.add(self.folder)
        return OpenFile(path + IN_PROGRESS_SUFFIX, fd, 0, time_ns // HOUR_NS, self._keyring.sealer())

    def _path(self, time_ns: int) -> str:
        """Without a suffix. The text of a second is kept: the time zone is slow to find."""
        second, nanos = divmod(time_ns, SECOND_NS)
        if second != self._stem_second:
            before, _, after = file_stem(time_ns).rpartition(".")
            self._stem_second, self._stem = second, (before, after[6:])
        before, after = self._stem
        return f"{self.folder}/{before}.{nanos // 1000:06d}{after}"


def _single(sealer: FileSealer | None, header: bytes, framed: list[bytes]) -> Iterator[list[bytes]]:
    """The writes that make a file of one record: one, or for a big encrypted one as many as it has frames."""
    if sealer is None:
        yield [header, *framed]
        return
    beginning = [sealer.beginning, sealer.frame(header, 0)]
    for piece in sealer.frames(framed):
        yield [*beginning, *piece]
        beginning = []
