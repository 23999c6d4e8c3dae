"""Frees the bytes of deleted items, 24 hours after their deletion.

A freed item keeps its row, without bytes, tags, boxes and datasets, so that the machine's next sending of the same capture
is still a duplicate. Packs are never changed: one that holds freed bytes is written anew without them, the metadata is
pointed at the new one in one transaction, then the old one is removed. A crash before that transaction leaves the new pack
as an orphan that holds nothing new; a crash after it leaves the old one in the same state. Both are removed at start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.store import tables as t
from gleaner.app.store.pack_format import FoundRecord, Position
from gleaner.app.store.packs import PackRecord, PackStore, WrittenPack

KEEP_DELETED_S = 24 * 3600
_EVERY_S = 15 * 60.0
_ITEM = t.item.c
_HOLDERS = (t.item, t.readings_batch, t.thumbnail)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cleaned:
    items: int
    packs_removed: int
    packs_rewritten: int


class Cleaner:
    """start() → running → stop(): looks for freed bytes every quarter of an hour, beginning at start."""

    def __init__(self, database: Database, packs: PackStore, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._packs = packs
        self._clock_ns = clock_ns
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="cleaner")
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def clean(self) -> Cleaned:
        """One pass."""
        items, touched = self._forget(self._clock_ns() - KEEP_DELETED_S * 1_000_000_000)
        removed = rewritten = 0
        for pack_id in touched:
            if self._stop.is_set():
                break
            if self._rewrite(pack_id):
                rewritten += 1
            else:
                removed += 1
        if items:
            log.info("Freed %d deleted items: %d packs removed, %d written anew", items, removed, rewritten)
        return Cleaned(items, removed, rewritten)

    def _run(self) -> None:
        while True:
            try:
                self.clean()
            except Exception:
                log.exception("Freeing deleted items failed; it is tried again in 15 minutes")
            if self._stop.wait(_EVERY_S):
                return

    def _forget(self, before_ns: int) -> tuple[int, list[int]]:
        """Takes the bytes' address off items deleted before then; the answer names every pack with freed bytes."""
        with self._database.write() as db:
            old = sa.and_(_ITEM.deleted_ns < before_ns, _ITEM.deleted_ns.is_not(None), _ITEM.pack_id.is_not(None))
            gone = list(db.scalars(sa.select(_ITEM.row).where(old)))
            if gone:
                rows = t.rows_in(gone, db.dialect.name)
                for table in (t.item_tag, t.item_box, t.dataset_item, t.thumbnail):
                    db.execute(table.delete().where(table.c.row.in_(rows)))
                db.execute(t.item.update().where(_ITEM.row.in_(rows)).values(pack_id=None, tag_count=0))
            # Also packs whose rewriting a crash cut off: what they hold and what is counted differ.
            living = sum(
                (
                    sa.select(sa.func.count()).where(table.c.pack_id == t.pack.c.id).scalar_subquery()
                    for table in _HOLDERS
                ),
                start=sa.literal(0),
            )
            touched = list(db.scalars(sa.select(t.pack.c.id).where(t.pack.c.records != living)))
        return len(gone), touched

    def _rewrite(self, pack_id: int) -> bool:
        """False if nothing living was left and the pack is gone."""
        with self._database.read() as db:
            name = str(db.scalar(sa.select(t.pack.c.name).where(t.pack.c.id == pack_id)))
            offsets = {offset for table in _HOLDERS for offset in _offsets(db, table, pack_id)}
        living: list[FoundRecord] = []
        new: WrittenPack | None = None
        if offsets:
            living = [r for r in self._packs.scan(name, check_bodies=False)[1] if r.position.record_offset in offsets]
            records = [PackRecord(r.header, _Stored(self._packs, pack_id, r.position)) for r in living]
            new = self._packs.write(records, self._clock_ns())
        with self._database.write() as db:
            if new is not None:
                self._move(db, pack_id, new, living)
            # A thumbnail the pack turned out not to hold (its write was not synced) is made again on demand.
            db.execute(t.thumbnail.delete().where(t.thumbnail.c.pack_id == pack_id))
            db.execute(t.pack.delete().where(t.pack.c.id == pack_id))
        self._packs.delete(name)
        return new is not None

    def _move(self, db: sa.Connection, old_id: int, new: WrittenPack, living: list[FoundRecord]) -> None:
        values = {"name": new.name, "wrapped_key": new.wrapped_key, "records": 0, "created_ns": new.created_ns}
        new_id = db.execute(t.pack.insert().values(**values).returning(t.pack.c.id)).scalar_one()
        moved = 0
        for record, position in zip(living, new.positions, strict=True):
            for table in _HOLDERS:
                same = table.c.pack_id == old_id, table.c.record_offset == record.position.record_offset
                where = {"record_offset": position.record_offset, "body_offset": position.body_offset}
                moved += db.execute(table.update().where(*same).values(pack_id=new_id, **where)).rowcount
        db.execute(t.pack.update().where(t.pack.c.id == new_id).values(records=moved))


def _offsets(db: sa.Connection, table: sa.Table, pack_id: int) -> list[int]:
    return list(db.scalars(sa.select(table.c.record_offset).where(table.c.pack_id == pack_id)))


class _Stored:
    """A record's bytes in another pack, as a payload."""

    def __init__(self, packs: PackStore, pack_id: int, position: Position) -> None:
        self._packs, self._pack_id, self._position = packs, pack_id, position

    @property
    def size(self) -> int:
        return self._position.size

    @property
    def in_memory(self) -> int:
        return 0

    def chunks(self) -> Iterator[bytes]:
        return self._packs.chunks(self._pack_id, self._position)

    def head(self, length: int) -> bytes:
        return self._packs.read(self._pack_id, self._position, 0, length)

    def discard(self) -> None:
        """Nothing is held."""

    def abandon(self) -> None:
        """As above."""
