"""What sync has read from the disk to send: a file, a batch of them, and how it is packed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import replace

from gleaner.machine.capture.directory import is_binary_path
from gleaner.machine.sync.scan import Candidate
from gleaner.wire.sync_frames import BATCH_BYTES, SMALL_FILE_BYTES, Entry, EntryKind

# Compressed data that is hardly smaller is not worth the app's time.
_WORTH_PACKING = 0.9
_LEAST_PACKED = 256


class LocalFile(NamedTuple):
    """A file as it was read: what the ledger counts, and how to know it again."""

    candidate: Candidate
    entry: Entry
    records: int


@dataclass(frozen=True)
class Outgoing:
    """One batch: the files and the bytes to send, in the same order."""

    files: tuple[LocalFile, ...]
    payloads: tuple[bytes, ...]

    @property
    def size_bytes(self) -> int:
        return sum(len(p) for p in self.payloads)


@dataclass(frozen=True)
class Amounts:
    """How much one batch may hold, and how it may travel."""

    batch_bytes: int = BATCH_BYTES
    small_file_bytes: int = SMALL_FILE_BYTES
    compress: bool = False
    sequences: bool = True
    """Whether the app knows sequences; one that does not keeps their files."""

    def as_taken(self, candidate: Candidate) -> Candidate:
        return candidate if self.sequences else candidate._replace(kind=EntryKind.FILE)


def packed(file: LocalFile, content: bytes) -> tuple[LocalFile, bytes]:
    """Compressed, if the file holds readings and that makes it smaller."""
    is_readings = file.candidate.kind is EntryKind.CAPTURE and not is_binary_path(file.entry.path.rpartition("/")[0])
    if not is_readings or len(content) < _LEAST_PACKED:
        return file, content
    smaller = zlib.compress(content, 1)
    if len(smaller) > len(content) * _WORTH_PACKING:
        return file, content
    return file._replace(entry=replace(file.entry, packed=len(smaller))), smaller
