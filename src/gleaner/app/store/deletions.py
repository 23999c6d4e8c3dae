"""What people deleted, beside what they uploaded: a record in a pack like any other, so that a rebuild leaves it deleted.

Written and synced before the transaction that hides the items commits, in the same order as uploads. A deletion whose
transaction never committed was not acknowledged; taking its pack in at start carries it out, as the person wanted.
A note is dropped once no pack on the disk holds what it is about any more (`forget`).

    header  = {"record": "deletions", "at_ns": …, "undone": true if they were brought back}
    payload = file ids of items and of batches of readings, 16 bytes each
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.store import tables as t
from gleaner.app.store.pack_format import FoundRecord, Position
from gleaner.app.store.packs import PackRecord, PackStore, WrittenPack
from gleaner.app.store.payload import MemoryPayload

log = logging.getLogger(__name__)

RECORD = "deletions"
_ID_BYTES = 16
_AT_ONCE = 10_000
_STORED = (t.item, t.readings_batch)


@dataclass(frozen=True)
class Note:
    """One note in a pack, found by a scan."""

    pack_id: int
    position: Position
    at_ns: int
    is_undone: bool


def note(packs: PackStore, db: sa.Connection, file_ids: Sequence[str], at_ns: int, *, undone: bool = False) -> None:
    """Inside the transaction that deletes them or brings them back. Deleting is what people do about a full disk, so where
    a note cannot be written it is done without one, and said."""
    if not file_ids:
        return
    header = {"record": RECORD, "at_ns": at_ns, "undone": undone}
    try:
        written = packs.write([PackRecord(header, MemoryPayload(b"".join(map(bytes.fromhex, file_ids))))], at_ns)
    except OSError as err:
        what = "brought back" if undone else "deleted"
        log.warning("%d items are %s, but a rebuild will not know: the note failed: %s", len(file_ids), what, err)
        return
    _insert(db, _new_pack(db, written), at_ns, written.positions[0])


def take_in(db: sa.Connection, pack: WrittenPack, found: Sequence[FoundRecord]) -> list[Note]:
    """The notes of a pack that the metadata did not know, to be carried out once every pack has been read."""
    notes = [record for record in found if record.header.get("record") == RECORD]
    if not notes:
        return []
    pack_id = db.scalar(sa.select(t.pack.c.id).where(t.pack.c.name == pack.name)) or _new_pack(db, pack)
    for record in notes:
        _insert(db, pack_id, int(record.header["at_ns"]), record.position)
    # What else is in the pack has been counted already.
    db.execute(t.pack.update().where(t.pack.c.id == pack_id).values(records=_records(db, pack_id)))
    return [Note(pack_id, r.position, int(r.header["at_ns"]), bool(r.header.get("undone"))) for r in notes]


def carry_out(packs: PackStore, database: Database, notes: Iterable[Note]) -> int:
    """Hides what the notes say is deleted; how many items and batches. What was uploaded again since then stays."""
    latest: dict[str, Note] = {}
    for one in sorted(notes, key=lambda one: one.at_ns):
        ids = packs.read(one.pack_id, one.position).hex()
        latest.update((ids[start : start + 2 * _ID_BYTES], one) for start in range(0, len(ids), 2 * _ID_BYTES))
    gone: dict[int, list[str]] = {}
    for file_id, one in latest.items():
        if not one.is_undone:
            gone.setdefault(one.at_ns, []).append(file_id)
    hidden = 0
    for at_ns, file_ids in gone.items():
        for start in range(0, len(file_ids), _AT_ONCE):
            with database.write() as db:
                hidden += _hide(db, file_ids[start : start + _AT_ONCE], at_ns)
    return hidden


def forget(db: sa.Connection, before_ns: int) -> int:
    """Drops notes from before then whose bytes are gone from every pack; how many. Their own bytes are freed next."""
    if db.scalar(sa.select(sa.func.count()).select_from(t.pack).where(t.pack.c.records == 0)):
        return 0  # packs that retired still hold what was deleted
    held = [
        sa.select(sa.func.min(table.c.deleted_ns)).where(table.c.deleted_ns.is_not(None), table.c.pack_id.is_not(None))
        for table in _STORED
    ]
    oldest = min((at for query in held if (at := db.scalar(query)) is not None), default=before_ns)
    dropped = db.execute(t.deletion.delete().where(t.deletion.c.at_ns < min(before_ns, oldest)))
    return int(dropped.rowcount)


def file_ids_of(db: sa.Connection, table: sa.Table, rows: Sequence[int]) -> list[str]:
    """`table` is `item` or `readings_batch`."""
    (key,) = table.primary_key.columns
    return list(db.scalars(sa.select(table.c.file_id).where(key.in_(t.rows_in(list(rows), db.dialect.name)))))


def _hide(db: sa.Connection, file_ids: Sequence[str], at_ns: int) -> int:
    hidden = 0
    for table in _STORED:
        chosen = table.c.file_id.in_(file_ids) if len(file_ids) <= 500 else _any_of(db, table, file_ids)
        alive = (table.c.deleted_ns.is_(None), table.c.synced_ns < at_ns)
        hidden += db.execute(table.update().where(chosen, *alive).values(deleted_ns=at_ns)).rowcount
    return hidden


def _any_of(db: sa.Connection, table: sa.Table, file_ids: Sequence[str]) -> sa.ColumnElement[bool]:
    """More ids than a statement has parameters for: by their row numbers."""
    (key,) = table.primary_key.columns
    rows: list[int] = []
    for start in range(0, len(file_ids), 500):
        part = table.c.file_id.in_(file_ids[start : start + 500])
        rows += db.scalars(sa.select(key).where(part))
    return key.in_(t.rows_in(rows, db.dialect.name))


def _new_pack(db: sa.Connection, pack: WrittenPack) -> int:
    values = {"name": pack.name, "wrapped_key": pack.wrapped_key, "records": 1, "created_ns": pack.created_ns}
    return int(db.execute(t.pack.insert().values(**values).returning(t.pack.c.id)).scalar_one())


def _insert(db: sa.Connection, pack_id: int, at_ns: int, position: Position) -> None:
    place = {"record_offset": position.record_offset, "body_offset": position.body_offset, "size_bytes": position.size}
    db.execute(t.deletion.insert().values(pack_id=pack_id, at_ns=at_ns, **place))


def _records(db: sa.Connection, pack_id: int) -> int:
    tables = (t.item, t.readings_batch, t.lake_file, t.thumbnail, t.deletion)
    counts = (sa.select(sa.func.count()).select_from(table).where(table.c.pack_id == pack_id) for table in tables)
    return sum(int(db.scalar(count) or 0) for count in counts)
