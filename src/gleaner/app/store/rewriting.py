"""Moves living records out of packs into a new one: for the cleaner (others in them are gone) and the merger (they are small).

Packs are never changed. The new pack is written whole and synced, one transaction points the metadata at it, and the old
packs *retire*: their rows stay with `records` 0, which nothing names any more. They are removed `RETIRED_S` later, so that
whoever has just looked up where a record lies still finds it there.
A crash before the transaction leaves the new pack as an orphan that holds nothing new, removed at start; after it, retired
packs, removed by the next process `RETIRED_S` after it first saw them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from gleaner.app.database import Database
from gleaner.app.store import tables as t
from gleaner.app.store.pack_format import Position
from gleaner.app.store.packs import PackRecord, PackStore, WrittenPack

RETIRED_S = 10 * 60.0
HOLDERS = (t.item, t.readings_batch, t.lake_file, t.deletion, t.thumbnail)
"""The tables whose rows name a record in a pack."""

log = logging.getLogger(__name__)


class DamagedPack(Exception):
    """A pack does not hold what the metadata says. It is left as it is: nothing is moved out of it or removed."""

    def __init__(self, pack_id: int, name: str, damaged: int) -> None:
        super().__init__(
            f"The pack {name} is damaged: at least {damaged} records in it cannot be read. It is left as it is. "
            "`gleaner app fsck` says what is affected; put the file back from a backup."
        )
        self.pack_id = pack_id


@dataclass(frozen=True)
class _Moved:
    """Where a record was."""

    pack_id: int
    record_offset: int


class Rewriter:
    """Used by one thread at a time."""

    def __init__(
        self,
        database: Database,
        packs: PackStore,
        clock_ns: Callable[[], int],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._packs = packs
        self._clock_ns = clock_ns
        self._now = now
        self._retired: dict[int, float] = {}

    def rewrite(self, pack_ids: Sequence[int]) -> bool:
        """Moves what lives in these packs into one new pack; they retire. False if nothing living was left.

        Raises DamagedPack and OSError; then nothing has changed.
        """
        living: list[_Moved] = []
        records: list[PackRecord] = []
        for pack_id in pack_ids:
            for record, position in self._living(pack_id):
                living.append(_Moved(pack_id, position.record_offset))
                records.append(record)
        new = self._packs.write(records, self._clock_ns()) if records else None
        with self._database.write() as db:
            if new is not None:
                self._move(db, pack_ids, new, living)
            # A thumbnail the pack turned out not to hold (its write was not synced) is made again on demand.
            db.execute(t.thumbnail.delete().where(t.thumbnail.c.pack_id.in_(pack_ids)))
            db.execute(t.pack.update().where(t.pack.c.id.in_(pack_ids)).values(records=0))
        for pack_id in pack_ids:
            self._retired[pack_id] = self._now()
        return new is not None

    def remove_retired(self) -> int:
        """Removes the packs that retired long enough ago; how many."""
        with self._database.read() as db:
            names = {
                i: str(n) for i, n in db.execute(sa.select(t.pack.c.id, t.pack.c.name).where(t.pack.c.records == 0))
            }
        for pack_id in names:
            self._retired.setdefault(pack_id, self._now())
        due = [i for i, since in self._retired.items() if self._now() - since >= RETIRED_S]
        for pack_id in due:
            # The row first: what a crash leaves then is an orphan, not a row that promises bytes.
            with self._database.write() as db:
                db.execute(t.pack.delete().where(t.pack.c.id == pack_id, t.pack.c.records == 0))
            if name := names.get(pack_id):
                self._packs.delete(name)
            del self._retired[pack_id]
        return len(due)

    def _living(self, pack_id: int) -> Iterator[tuple[PackRecord, Position]]:
        with self._database.read() as db:
            name = str(db.scalar(sa.select(t.pack.c.name).where(t.pack.c.id == pack_id)))
            thumbnails, needed = _offsets(db, t.thumbnail, pack_id), set[int]()
            for table in HOLDERS:
                if table is not t.thumbnail:
                    needed |= _offsets(db, table, pack_id)
        wanted = needed | thumbnails
        if not wanted:
            return
        try:
            found = self._packs.scan(name, check_bodies=False)[1]
        except FileNotFoundError:
            found = []
        if missing := needed - {record.position.record_offset for record in found}:
            raise DamagedPack(pack_id, name, len(missing))
        for record in found:
            if record.position.record_offset in wanted:
                yield (
                    PackRecord(record.header, StoredPayload(self._packs, pack_id, name, record.position)),
                    record.position,
                )

    def _move(self, db: sa.Connection, old_ids: Sequence[int], new: WrittenPack, living: list[_Moved]) -> None:
        values = {"name": new.name, "wrapped_key": new.wrapped_key, "records": 0, "created_ns": new.created_ns}
        new_id = db.execute(t.pack.insert().values(**values).returning(t.pack.c.id)).scalar_one()
        places = dict(zip(living, new.positions, strict=True))
        moved = 0
        for table in HOLDERS:
            (key,) = table.primary_key.columns
            held = sa.select(key, table.c.pack_id, table.c.record_offset).where(table.c.pack_id.in_(old_ids))
            # By primary key: by pack and offset each update would look through the whole pack.
            changes = [
                {"key": number, "offset": place.record_offset, "body": place.body_offset}
                for number, pack_id, offset in db.execute(held)
                if (place := places.get(_Moved(pack_id, offset)))
            ]
            if changes:
                update = table.update().where(key == sa.bindparam("key"))
                update = update.values(record_offset=sa.bindparam("offset"), body_offset=sa.bindparam("body"))
                db.execute(update.values(pack_id=new_id), changes)
                moved += len(changes)
        db.execute(t.pack.update().where(t.pack.c.id == new_id).values(records=moved))


def _offsets(db: sa.Connection, table: sa.Table, pack_id: int) -> set[int]:
    return set(db.scalars(sa.select(table.c.record_offset).where(table.c.pack_id == pack_id)))


class StoredPayload:
    """A record's bytes in a pack, as the payload of another."""

    in_memory = 0

    def __init__(self, packs: PackStore, pack_id: int, name: str, position: Position) -> None:
        self._packs, self._pack_id, self._name, self._position = packs, pack_id, name, position

    @property
    def size(self) -> int:
        return self._position.size

    def chunks(self) -> Iterator[bytes]:
        try:
            yield from self._packs.chunks(self._pack_id, self._position)
        except InvalidTag:
            raise DamagedPack(self._pack_id, self._name, 1) from None

    def head(self, length: int) -> bytes:
        return self._packs.read(self._pack_id, self._position, 0, length)

    def discard(self) -> None:
        """Nothing is held."""

    def abandon(self) -> None:
        """As above."""
