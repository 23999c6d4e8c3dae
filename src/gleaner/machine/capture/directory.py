"""The capture directory: who owns it, what its files are called, what a crash leaves in it.

Layout (Viam's): `<root>/<api>/<resource>/<method>/<time>.prog` while a file is written, `….capture` once it is complete;
`:` becomes `_`. Directories are 0700, files 0600. `<root>/failed/` holds what the app can never take, each file beside a
`.reason.json`. `<root>/.gleaner/` is ours: the ledger and the sync process's lock.

Writing: one process, the holder of the flock on `<root>` itself. Deleting: only the sync process, and recovery.
A crash leaves `.prog` files. Whoever takes the lock finishes them: no other writer can exist at that moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from gleaner.machine.capture.at_rest import Keyring, find_frames, is_encrypted, open_sealed
from gleaner.machine.capture.errors import CaptureDirectoryBusy, CaptureFromNewer, CaptureKeyMissing
from gleaner.wire.capture_file import (
    BINARY_METHODS,
    COMPLETE_SUFFIX,
    IN_PROGRESS_SUFFIX,
    CaptureFileError,
    find_layout,
)

FAILED = "failed"
REASON_SUFFIX = ".reason.json"
STATE = ".gleaner"
SYNC_LOCK_FILE = "sync.lock"
REPAIR_PREFIX = "repair-"
"""Copies in `.gleaner` that the settler was writing (`settle.py`)."""
SMALLEST_FILE_BYTES = 64
"""Shorter than any header plus record: nothing that was ever counted can be in it."""
UNKNOWN_HOUR = 0
_STAMP_END, _ZONE_START = len("2026-11-22T20_35"), len("2026-11-22T20_35_44.123456")
SKIPPED_DIRECTORIES = frozenset((FAILED, "datasetUpload", STATE))
"""At any depth: neither scanned nor sent. The first two are Viam's rule."""


def collector_path(api: str, resource: str, method: str) -> str:
    """Where one collector's files go, relative to the root: `rdk_component_camera/cam/ReadImage`."""
    return "/".join(part.replace(":", "_").replace("/", "_") for part in (api, resource, method))


def is_binary_path(directory: str) -> bool:
    """Whether the files of a directory (as `collector_path` makes it) hold one binary record each."""
    return directory.rsplit("/", 1)[-1] in BINARY_METHODS


def file_stem(time_ns: int) -> str:
    """Viam's file name for a local time: `2024-05-01T12_30_05.123456+02_00`, with `Z` for an offset of zero."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    local = datetime.fromtimestamp(seconds).astimezone()
    zone = local.strftime("%z")
    suffix = "Z" if zone in ("", "+0000") else f"{zone[:3]}_{zone[3:5]}"
    return f"{local.strftime('%Y-%m-%dT%H_%M_%S')}.{nanos // 1000:06d}{suffix}"


def hour_of(name: str) -> int:
    """The UTC hour, counted from the epoch, in a capture file's name; UNKNOWN_HOUR if it holds no time."""
    return _hour(name[:_STAMP_END], name[_ZONE_START : _ZONE_START + 6])


@lru_cache(4096)
def _hour(stamp: str, zone: str) -> int:
    offset = "+0000" if zone.startswith("Z") else zone.replace("_", "")
    try:
        return int(datetime.strptime(stamp + offset, "%Y-%m-%dT%H_%M%z").timestamp()) // 3600
    except ValueError:
        return UNKNOWN_HOUR


def walk_files(root: Path) -> Iterator[os.DirEntry[str]]:
    """Regular files below `root`, lazily, without the skipped directories; links are not followed."""
    stack = [str(root)]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name not in SKIPPED_DIRECTORIES:
                            stack.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry
        except OSError:
            continue  # removed while we looked, or unreadable: Viam's rule is to leave such places alone


@dataclass
class Waiting:
    """Complete files of one collector that have not been sent."""

    records: int = 0
    files: int = 0
    size_bytes: int = 0

    def __sub__(self, other: Waiting) -> Waiting:
        return Waiting(self.records - other.records, self.files - other.files, self.size_bytes - other.size_bytes)


@dataclass(frozen=True)
class Usable:
    """What a capture file holds up to its last good record."""

    good_end: int
    records: int


def usable_part(data: bytes, keyring: Keyring) -> Usable:
    """Of a plain or encrypted file. Without the key, what the frames' headers say. Raises CaptureFileError."""
    if not is_encrypted(data):
        layout = find_layout(data)
        return Usable(layout.good_end, len(layout.records))
    try:
        opened = open_sealed(data, keyring)
    except CaptureKeyMissing:
        sealed = find_frames(data)
        return Usable(sealed.good_end, sealed.records)
    return Usable(opened.good_end, len(find_layout(opened.plain).records))


def count_records(path: Path, keyring: Keyring | None = None) -> int:
    """Usable records of a capture file; 0 for one that cannot be read."""
    try:
        return usable_part(path.read_bytes(), keyring or Keyring()).records
    except (OSError, CaptureFileError, CaptureFromNewer):
        return 0


class Place(Enum):
    """Where an open capture directory is."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    """Moved away, or its disk is unmounted or another one mounted over it: what is in it is not lost."""
    REMOVED = "removed"


class CaptureDirectory:
    """An owned capture directory. Blocking; `open` takes the lock, `close` gives it back; `with` recovers as well."""

    def __init__(self, root: Path, log: logging.Logger, keyring: Keyring | None = None) -> None:
        self.root = root
        self.state = root / STATE
        self._keyring = keyring or Keyring()
        self._log = log
        self._lock_fd: int | None = None

    def __enter__(self) -> CaptureDirectory:
        self.open()
        self.recover()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def open(self, patience_s: float = 5.0) -> None:
        """Takes the directory. What a crash left open is to be completed then (`recover`, or beside the count of a backlog).

        `patience_s` lets a predecessor finish closing. Raises CaptureDirectoryBusy.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        owner = self.state / "owner"
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    raise CaptureDirectoryBusy(self._busy_message(owner)) from None
                time.sleep(0.05)
        self._lock_fd = fd
        owner.write_text(str(os.getpid()))
        for copy in self.state.glob(REPAIR_PREFIX + "*"):
            copy.unlink()  # the file that it was to replace is still whole

    def recover(self) -> int:
        """Completes what a crash left open; returns how many files."""
        paths = [entry.path for entry in walk_files(self.root) if entry.name.endswith(IN_PROGRESS_SUFFIX)]
        return sum(1 for _ in finish_orphans(self.root, paths, self._keyring, self._log))

    def close(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def place(self) -> Place:
        """Whether the directory that was opened is still the one at its path."""
        if self._lock_fd is None:
            return Place.ELSEWHERE
        owned = os.fstat(self._lock_fd)
        try:
            here = self.root.stat()
        except OSError:
            return Place.ELSEWHERE if owned.st_nlink else Place.REMOVED
        if (here.st_dev, here.st_ino) == (owned.st_dev, owned.st_ino):
            return Place.HERE
        return Place.ELSEWHERE if owned.st_nlink else Place.REMOVED

    def _busy_message(self, owner: Path) -> str:
        try:
            process = f" (process {int(owner.read_text())})"
        except (OSError, ValueError):
            process = ""
        return (
            f"the capture directory {self.root} is in use by another machine{process}: "
            "stop that one, or give this one its own capture_dir"
        )


@dataclass(frozen=True)
class Finished:
    """A file that a crash had left open, complete now."""

    path: Path
    records: int
    size_bytes: int
    modified_ns: int


def finish_orphans(root: Path, paths: Iterable[str], keyring: Keyring, log: logging.Logger) -> Iterator[Finished]:
    """Completes `.prog` files of earlier runs. Only for the owner of the directory: no other writer can exist."""
    completed = 0
    for path in paths:
        try:
            finished = _finish_orphan(root, Path(path), keyring, log)
        except CaptureFromNewer as newer:
            log.warning("%s was left open: %s", path, newer)
            continue
        except OSError as error:  # a bad block, a read-only disk: the others may go well
            log.warning("%s was left open by an earlier stop and cannot be completed: %s", path, error)
            continue
        if finished is not None:
            completed += 1
            yield finished
    if completed:
        log.info("completed %d capture files that an earlier stop had left open", completed)


def _finish_orphan(root: Path, path: Path, keyring: Keyring, log: logging.Logger) -> Finished | None:
    """Cuts the torn tail and completes the file. Without one usable record there is nothing to keep."""
    try:
        usable = usable_part(path.read_bytes(), keyring)
    except CaptureFileError as problem:
        _set_orphan_aside(root, path, str(problem), log)
        return None
    if not usable.records:
        path.unlink()
        return None
    with path.open("r+b") as file:
        file.truncate(usable.good_end)
        os.fdatasync(file.fileno())
        status = os.fstat(file.fileno())
    complete = free_path(path.with_name(path.name.removesuffix(IN_PROGRESS_SUFFIX) + COMPLETE_SUFFIX))
    path.rename(complete)
    return Finished(complete, usable.records, status.st_size, status.st_mtime_ns)


def _set_orphan_aside(root: Path, path: Path, reason: str, log: logging.Logger) -> None:
    content = path.read_bytes()
    if len(content) < SMALLEST_FILE_BYTES or not any(content):
        path.unlink()  # what a power cut leaves of a file that was not on the disk yet: nothing
        return
    target = set_aside_target(root, path)
    write_reason(target, reason, "the records in it cannot be attributed; keep it only for investigation")
    path.rename(target)
    log.warning("set the unfinished capture file %s aside as %s: %s", path, target, reason)


def free_path(path: Path) -> Path:
    """`path`, or one with a number before its suffix, so that no complete file is ever replaced."""
    number, candidate = 1, path
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate


def set_aside_target(root: Path, path: Path) -> Path:
    """Where a file that can never be sent goes: below `root/failed` for ours, into `failed` beside it for others."""
    ours = path.is_relative_to(root)
    target = root / FAILED / path.relative_to(root) if ours else path.parent / FAILED / path.name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return free_path(target)


def write_reason(target: Path, message: str, hint: str) -> None:
    """Leaves `<target>.reason.json`, so that who finds the file knows why it is there."""
    text = json.dumps({"message": message, "hint": hint, "when": datetime.now(UTC).isoformat()}, indent=2)
    target.with_name(target.name + REASON_SUFFIX).write_text(text + "\n")


def write_private(path: Path, content: bytes) -> None:
    """A new file that only this user may read. Raises FileExistsError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.closing(path.open("xb")) as file:
        path.chmod(0o600)
        file.write(content)
