"""Group commit: every upload in flight at a moment becomes one pack and one metadata transaction.

    submit ──► queue ──► writer thread: drop known ones, write + fsync one pack ──► queue(2) ──► index thread: one
    transaction, complete the futures.         Spooled uploads take a writer of their own, so that a long video
    never holds up small pictures.

A future completes with a `Receipt` only when the upload is on disk twice over: bytes in a pack, record in the metadata.
A crash in between leaves an orphan pack, which `adopt_orphans` takes in at the next start. While one group is being synced
the next one gathers, so the more arrive at once, the fewer disk flushes each costs. Bytes waiting in memory are bounded:
beyond that, `submit` raises Unavailable and the sender comes back.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.exc import DataError, SQLAlchemyError

from gleaner.app.database import Database
from gleaner.app.errors import AppError, Conflict, InvalidInput, Unavailable
from gleaner.app.events import Event, EventBus
from gleaner.app.store import index
from gleaner.app.store.index import Entry, Indexed, Outcome
from gleaner.app.store.origins import Origins
from gleaner.app.store.packs import PackRecord, PackStore, WrittenPack
from gleaner.app.store.records import RecordInfo, Upload

_GROUP_UPLOADS = 512
_GROUP_BYTES = 16 << 20
_EVENT_ROWS = 100
# Several sync batches at once: a machine sends a backlog.
_CROWDED_BYTES = 3 << 20
# A whole sync batch at once: a backlog is being sent, and more follows within a round trip or two.
_RUSH_BYTES = 512 << 10
_RUSH_LASTS_S = 0.5
# One by one, but more than cameras of a machine take: drawing a thumbnail takes as long as storing three pictures.
_MANY_PER_S, _COUNTED_S = 60, 0.25
# What an upload itself causes (a number too large for the index, say): it would fail like this for ever, and whoever
# shares its group with it.
_OF_THE_UPLOAD = (OverflowError, UnicodeError, DataError)
_HINT_RETRY = "Nothing was lost: send it again in a few seconds."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Receipt:
    """Proof that an upload is durably stored. `row` is the item's row (a batch's id for readings)."""

    outcome: Outcome
    row: int
    file_id: str
    binary_data_id: str
    unknown_dataset_ids: tuple[str, ...] = ()

    @property
    def is_duplicate(self) -> bool:
        return self.outcome is Outcome.DUPLICATE


class Answer(Protocol):
    """What an upload's outcome is given to: a Future, or a place in a Submission."""

    def set_result(self, result: Receipt) -> None: ...

    def set_exception(self, exception: BaseException) -> None: ...

    def done(self) -> bool: ...


class Submission:
    """Uploads handed over together. `on_done` is called once, from an ingest thread, when each has its outcome.

    A future per upload and a wake-up of the event loop for each took longer than storing a small picture.
    """

    def __init__(self, count: int, on_done: Callable[[], object]) -> None:
        self.outcomes: list[Receipt | BaseException | None] = [None] * count
        self._left = count
        self._on_done = on_done
        self._lock = threading.Lock()

    def place(self, number: int) -> Answer:
        return _Place(self, number)

    def fill(self, number: int, outcome: Receipt | BaseException) -> None:
        with self._lock:
            self.outcomes[number] = outcome
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self._on_done()


@dataclass(frozen=True, slots=True)
class _Place:
    submission: Submission
    number: int

    def set_result(self, result: Receipt) -> None:
        self.submission.fill(self.number, result)

    def set_exception(self, exception: BaseException) -> None:
        self.submission.fill(self.number, exception)

    def done(self) -> bool:
        return self.submission.outcomes[self.number] is not None


@dataclass(frozen=True, slots=True)
class _Waiting:
    upload: Upload
    future: Answer
    memory: int

    @property
    def key(self) -> bytes:
        return self.upload.info.idempotency_key


@dataclass(frozen=True)
class _Group:
    waiting: Sequence[_Waiting]
    infos: Sequence[RecordInfo]
    """As they are in the pack: with the time of storing."""
    pack: WrittenPack


class Ingest:
    """start() → running → stop(); `submit` from any thread in between."""

    def __init__(
        self,
        packs: PackStore,
        database: Database,
        events: EventBus,
        *,
        max_bytes_in_flight: int = 64 << 20,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._packs = packs
        self._database = database
        self._events = events
        self._max_bytes = max_bytes_in_flight
        self._clock_ns = clock_ns
        self._small: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._large: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._groups: queue.Queue[_Group | None] = queue.Queue(2)
        self._origins = Origins()
        self._lock = threading.Lock()
        self._bytes = 0
        self._rush_s = self._many_s = -_RUSH_LASTS_S
        self._counted_since_s, self._counted = 0.0, 0
        self._running = False
        self._failing = False
        self._threads: list[threading.Thread] = []
        #: Called with (row, info) of each newly stored item, from the index thread; must not block.
        self.on_stored: Callable[[int, RecordInfo], None] = lambda row, info: None

    def start(self) -> None:
        if self._running:
            return
        self._running = True
        self._threads = [
            threading.Thread(target=self._write_groups, args=(self._small,), name="ingest-write"),
            threading.Thread(target=self._write_groups, args=(self._large,), name="ingest-write-large"),
            threading.Thread(target=self._index_groups, name="ingest-index"),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Commits everything already submitted, then ends the threads."""
        with self._lock:
            if not self._running:
                return
            self._running = False
        for lane, thread in zip((self._small, self._large), self._threads[:2], strict=True):
            lane.put(None)
            thread.join()
        self._groups.put(None)
        self._threads[2].join()

    @property
    def is_running(self) -> bool:
        return self._running

    def submit(self, upload: Upload) -> Future[Receipt]:
        """Takes an upload; the future gives its Receipt, or raises Conflict (same key, other bytes) or Unavailable.

        Raises Unavailable at once, keeping nothing, when too many bytes wait or the app is stopping.
        """
        future: Future[Receipt] = Future()
        self._take([_Waiting(upload, future, upload.payload.in_memory)])
        return future

    def submit_together(self, uploads: Sequence[Upload], on_done: Callable[[], object]) -> Submission:
        """As `submit` for all of them or none; `on_done` is called from another thread once all outcomes are there."""
        submission = Submission(len(uploads), on_done)
        self._take(
            [_Waiting(one, submission.place(number), one.payload.in_memory) for number, one in enumerate(uploads)]
        )
        return submission

    @property
    def is_rushed(self) -> bool:
        """Whether uploads come so fast that what only makes them nicer to look at should give way."""
        return self.is_crowded or time.monotonic() - self._many_s < _RUSH_LASTS_S

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits that work which can be done later should be."""
        return self._bytes > _CROWDED_BYTES or time.monotonic() - self._rush_s < _RUSH_LASTS_S

    def _take(self, some: Sequence[_Waiting]) -> None:
        memory = sum(one.memory for one in some)
        with self._lock:
            if not self._running:
                raise Unavailable("The app is stopping and takes no more uploads", _HINT_RETRY)
            if self._bytes and self._bytes + memory > self._max_bytes:
                raise Unavailable(f"{self._bytes >> 20} MB of uploads are waiting to be written", _HINT_RETRY)
            self._bytes += memory
            self._look_for_rush(len(some), memory, time.monotonic())
            for one in some:
                is_large = one.memory < one.upload.payload.size
                (self._large if is_large else self._small).put(one)

    def _look_for_rush(self, uploads: int, memory: int, now: float) -> None:
        if memory >= _RUSH_BYTES:
            self._rush_s = now
        if now - self._counted_since_s > _COUNTED_S:
            self._counted_since_s, self._counted = now, 0
        self._counted += uploads
        if self._counted >= _COUNTED_S * _MANY_PER_S:
            self._many_s = now

    # Writer threads

    def _write_groups(self, lane: queue.SimpleQueue[_Waiting | None]) -> None:
        while (first := lane.get()) is not None:
            group, is_last = _gather(lane, first)
            try:
                self._write(group)
            except _OF_THE_UPLOAD as err:
                self._each_alone(group, err, self._write)
            except Exception as err:  # noqa: BLE001 - the thread must live: each sender is told, the state is visible
                self._fail(group, err)
            if is_last:
                return

    def _write(self, group: list[_Waiting]) -> None:
        if written := self._written(group):
            self._groups.put(written)

    def _written(self, group: list[_Waiting]) -> _Group | None:
        group = self._without_known(group)
        if not group:
            return None
        now = self._clock_ns()
        infos = [one.upload.info.having(synced_ns=now) for one in group]
        records = [PackRecord(info.header(), one.upload.payload) for info, one in zip(infos, group, strict=True)]
        return _Group(group, infos, self._packs.write(records, now))

    def _without_known(self, group: list[_Waiting]) -> list[_Waiting]:
        """Answers what is stored already, so that resends cost no disk. The index decides again for the rest."""
        with self._database.look() as db:
            known = index.find(db, [one.key for one in group])
        fresh = []
        for one in group:
            earlier = known.get(one.key)
            if earlier is None or (earlier.deleted and one.upload.revive):
                fresh.append(one)
            else:
                self._answer(one, Indexed(index.judge(one.upload.info, earlier), earlier.row))
        return fresh

    # Index thread

    def _index_groups(self) -> None:
        while (group := self._groups.get()) is not None:
            try:
                self._index(group)
            except _OF_THE_UPLOAD as err:
                self._packs.delete(group.pack.name)
                self._each_alone(group.waiting, err, self._write_and_index)
            except Exception as err:  # noqa: BLE001 - as above
                self._fail(group.waiting, err)

    def _write_and_index(self, group: list[_Waiting]) -> None:
        if written := self._written(group):
            try:
                self._index(written)
            except _OF_THE_UPLOAD:
                self._packs.delete(written.pack.name)
                raise

    def _index(self, group: _Group) -> None:
        entries = [
            Entry(info, position, one.upload.revive)
            for one, info, position in zip(group.waiting, group.infos, group.pack.positions, strict=True)
        ]
        with self._database.write() as db:
            answers = index.insert(db, group.pack, entries, self._origins)
        if self._failing:
            self._failing = False
            log.info("Uploads are being stored again")
        if not any(answer.outcome is Outcome.STORED for answer in answers):
            self._packs.delete(group.pack.name)
        for one, answer in zip(group.waiting, answers, strict=True):
            self._answer(one, answer)
        self._tell(entries, answers)

    def _tell(self, entries: list[Entry], answers: list[Indexed]) -> None:
        rows: dict[str, list[int]] = {}
        for entry, answer in zip(entries, answers, strict=True):
            if answer.outcome is Outcome.STORED and entry.info.readings is None:
                rows.setdefault(entry.info.place.organization_id, []).append(answer.row)
                self.on_stored(answer.row, entry.info)
        for organization_id, new in rows.items():
            data = {"count": len(new), "rows": new[:_EVENT_ROWS]}
            self._events.publish(Event("items_added", organization_id, data))

    # Both

    def _each_alone(self, group: Sequence[_Waiting], err: Exception, store: Callable[[list[_Waiting]], None]) -> None:
        """One of the group cannot be stored: it is rejected, the others are not."""
        if len(group) == 1:
            self._reject(group[0], err)
            return
        for one in group:
            try:
                store([one])
            except _OF_THE_UPLOAD as its_own:
                self._reject(one, its_own)
            except Exception as other:  # noqa: BLE001 - as above
                self._fail([one], other)

    def _reject(self, one: _Waiting, err: Exception) -> None:
        info = one.upload.info
        name = info.file_name or info.component_name or "The upload"
        log.warning("%s is rejected, it holds what cannot be stored: %s", name, err)
        one.upload.payload.discard()
        self._release(one)
        one.future.set_exception(
            InvalidInput(f"{name} holds what cannot be stored: {err}", "It stays on the machine; look at it there.")
        )

    def _answer(self, one: _Waiting, answer: Indexed) -> None:
        info = one.upload.info
        one.upload.payload.discard()
        self._release(one)
        if answer.outcome is Outcome.CONFLICT:
            message = f"{info.file_name or info.component_name or 'The upload'} was stored before with other content"
            one.future.set_exception(Conflict(message, "Send it under another name."))
            return
        place = info.place
        name = f"{place.organization_id}/{place.location_id}/{info.file_id}"
        one.future.set_result(Receipt(answer.outcome, answer.row, info.file_id, name, answer.unknown_dataset_ids))

    def _fail(self, group: Sequence[_Waiting], err: Exception) -> None:
        if not self._failing:
            self._failing = True
            log.error("Uploads cannot be stored: %s", err, exc_info=not isinstance(err, (OSError, SQLAlchemyError)))
        told = (
            err if isinstance(err, AppError) else Unavailable(f"The app could not store the upload: {err}", _HINT_RETRY)
        )
        for one in group:
            if not one.future.done():
                one.upload.payload.abandon()
                self._release(one)
                one.future.set_exception(told)

    def _release(self, one: _Waiting) -> None:
        with self._lock:
            self._bytes -= one.memory


def _gather(lane: queue.SimpleQueue[_Waiting | None], first: _Waiting) -> tuple[list[_Waiting], bool]:
    """Everything that waits right now, within the bounds of one group; the flag tells that stop() was seen."""
    group, size = [first], first.upload.payload.size
    while len(group) < _GROUP_UPLOADS and size < _GROUP_BYTES:
        try:
            following = lane.get_nowait()
        except queue.Empty:
            break
        if following is None:
            return group, True
        group.append(following)
        size += following.upload.payload.size
    return group, False
