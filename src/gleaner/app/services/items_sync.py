"""Judges the files a machine syncs and turns them into uploads. Blocking: called in worker threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.exc import SQLAlchemyError
from viam.proto.app.datasync import DataType, UploadMetadata

from gleaner.app.database import Database
from gleaner.app.errors import AppError, InvalidInput, NotFound, TooLarge, Unavailable
from gleaner.app.services.sequences import SequenceService
from gleaner.app.services.sequences_values import MOST_FILE_BYTES, read_file
from gleaner.app.store import index
from gleaner.app.store.payload import MemoryPayload
from gleaner.app.store.places import PartLookup, Place
from gleaner.app.store.records import Upload
from gleaner.app.store.spool import Spool, SpoolFile
from gleaner.app.store.spooled_capture import from_spooled_capture
from gleaner.app.store.uploads import from_capture_file, from_file
from gleaner.wire.ids import CaptureIdHasher, capture_id
from gleaner.wire.sync_frames import Entry, EntryKind, Result, Status, plain


@dataclass(frozen=True)
class Incoming:
    """A big file on its way; what the spool holds is durable."""

    entry: Entry
    spool: SpoolFile

    def append(self, pieces: Sequence[bytes]) -> None:
        """Durable when it returns. Raises OSError."""
        for number, data in enumerate(pieces, 1):
            self.spool.append(data, durable=number == len(pieces))


class SyncFiles:
    """The files of one part."""

    def __init__(
        self,
        database: Database,
        spool: Spool,
        parts: PartLookup,
        sequences: SequenceService,
        part_id: str,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._database = database
        self._spool = spool
        self._parts = parts
        self._sequences = sequences
        self.part_id = part_id
        self._clock_ns = clock_ns

    def place(self) -> Place:
        """The part's place now: looked up for every frame, because a machine may be moved while it is connected."""
        place = self._parts.place(self.part_id)
        if place is None:
            raise NotFound(f"There is no part {self.part_id}", "It was deleted in the app.")
        return place

    def judge(self, entries: Sequence[Entry], payloads: Sequence[bytes]) -> list[Upload | Result]:
        """Raises FrameError for a payload that does not decompress to what its entry says."""
        place = self.place()
        return [self._judge(entry, data, place) for entry, data in zip(entries, payloads, strict=True)]

    def known(self, entry: Entry) -> Result | None:
        """The answer for a file that is stored already."""
        key = bytes.fromhex(entry.id)
        with self._database.read() as db:
            found = index.find(db, [key])
        return Result(entry.id, Status.DUPLICATE) if key in found else None

    def open(self, entry: Entry) -> Incoming:
        """What is here of a big file, to be continued."""
        file = self._spool.open(entry.id)
        if file.size > entry.size:  # not the file it began as
            file.discard()
            file = self._spool.open(entry.id)
        return Incoming(entry, file)

    def finish(self, incoming: Incoming) -> Upload | Result:
        """Judges a big file whose last piece has come; takes over the spooled bytes."""
        try:
            return self._finish(incoming.entry, incoming.spool)
        except OSError as err:  # the disk, or another connection that continues the same file
            raise Unavailable(
                f"{incoming.entry.path} could not be read back: {err}", "It is sent again later."
            ) from err

    def _finish(self, entry: Entry, file: SpoolFile) -> Upload | Result:
        hasher = CaptureIdHasher(self.part_id, entry.path)
        for frame in file.frames():
            hasher.update(frame)
        if file.size != entry.size or hasher.hexdigest() != entry.id:
            file.discard()
            return _mismatch(entry)
        if entry.kind is EntryKind.SEQUENCE:
            kept = self._keep(entry, b"".join(file.frames()) if file.size <= MOST_FILE_BYTES else b"", self.place())
            file.discard()
            return kept
        try:
            if entry.kind is EntryKind.FILE:
                return from_file(
                    _metadata(entry), file, self.place(), self._clock_ns(), idempotency_key=bytes.fromhex(entry.id)
                )
            made = from_spooled_capture(file, self.place(), bytes.fromhex(entry.id), self._clock_ns(), entry.tags)
        except AppError as err:
            file.discard()
            return rejection(entry.id, err)
        return made or _empty(entry)

    def _judge(self, entry: Entry, payload: bytes, place: Place) -> Upload | Result:
        data = plain(entry, payload)
        if capture_id(self.part_id, entry.path, data) != entry.id:
            return _mismatch(entry)
        if entry.kind is EntryKind.SEQUENCE:
            return self._keep(entry, data, place)
        now, key = self._clock_ns(), bytes.fromhex(entry.id)
        try:
            if entry.kind is EntryKind.FILE:
                return from_file(_metadata(entry), MemoryPayload(data), place, now, idempotency_key=key)
            return from_capture_file(data, place, key, now, entry.tags) or _empty(entry)
        except AppError as err:
            return rejection(entry.id, err)

    def _keep(self, entry: Entry, data: bytes, place: Place) -> Result:
        """A sequence is durable when this returns: it is a row, and no upload."""
        try:
            _, is_known = self._sequences.keep(place, read_file(data))
        except InvalidInput as err:
            return rejection(entry.id, err)
        except SQLAlchemyError as err:
            raise Unavailable(f"The app could not store {entry.path}: {err}", "It is sent again later.") from err
        return Result(entry.id, Status.DUPLICATE if is_known else Status.STORED)


def _metadata(entry: Entry) -> UploadMetadata:
    return UploadMetadata(
        type=DataType.DATA_TYPE_FILE,
        file_name=entry.name or entry.path,
        tags=entry.tags,
        dataset_ids=entry.dataset_ids,
        file_modify_time=_stamp(entry.modified_ns),
        file_create_time=_stamp(entry.created_ns),
    )


def _stamp(time_ns: int) -> Timestamp:
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def rejection(id_: str, error: AppError) -> Result:
    """Only what is wrong with the bytes is said of the file; a part that is gone or may not is no reason to give it up."""
    is_the_files = isinstance(error, (InvalidInput, TooLarge))
    return Result(id_, Status.REJECTED, error.message, error.hint, again=not is_the_files)


def _mismatch(entry: Entry) -> Result:
    message = f"{entry.path} is not what its id says: the bytes were changed while they were read or sent"
    hint = "If it happens again, check the part id in the machine's `cloud` section, then the computer's memory."
    return Result(entry.id, Status.REJECTED, message, hint, again=True)


def _empty(entry: Entry) -> Result:
    """A capture file without readings holds nothing to keep: the machine may delete it."""
    return Result(entry.id, Status.STORED, f"{entry.path} holds no readings")
