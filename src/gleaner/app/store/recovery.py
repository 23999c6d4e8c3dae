"""Packs the metadata does not know: taken in after a crash, and the whole index made again from packs.

What the packs hold is what was uploaded, and notes of what was deleted. Tags and boxes that people added later and datasets
live only in the metadata: a rebuild after losing it brings back pictures, readings and the tags they arrived with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.store import deletions, index
from gleaner.app.store import tables as t
from gleaner.app.store.index import Entry, Indexed, Outcome
from gleaner.app.store.pack_format import FoundRecord
from gleaner.app.store.packs import PackStore, WrittenPack
from gleaner.app.store.records import RecordInfo

SHARED_ORPHAN_S = 24 * 3600
"""So old a pack that nobody committed is an orphan where several processes write: no put and no commit takes as long."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovered:
    packs: int
    records: int
    removed: int


def adopt_orphans(
    packs: PackStore, database: Database, *, check_bodies: bool = True, before_ns: int | None = None
) -> Recovered:
    """Takes in every pack the metadata does not know and removes those that hold nothing new. Before uploads start.

    `before_ns`: only packs written before then, where other processes may be about to commit younger ones.
    """
    with database.read() as db:
        known = set(db.scalars(sa.select(t.pack.c.name)))
    orphans = sorted(name for name in packs.objects.names() if name not in known)
    if before_ns is not None:
        orphans = [name for name in orphans if _created_ns(name) < before_ns]
    return _adopt(packs, database, orphans, check_bodies=check_bodies, progress=lambda done: None)


def rebuild(packs: PackStore, database: Database, progress: Callable[[float], None]) -> Recovered:
    """Reads every pack's headers into an empty or partial index. `progress` is told the fraction done."""
    with database.read() as db:
        known = set(db.scalars(sa.select(t.pack.c.name)))
    names = sorted(name for name in packs.objects.names() if name not in known)
    total = max(len(names), 1)
    return _adopt(packs, database, names, check_bodies=False, progress=lambda done: progress(done / total), keep=True)


def _adopt(
    packs: PackStore,
    database: Database,
    names: list[str],
    *,
    check_bodies: bool,
    progress: Callable[[int], None],
    keep: bool = False,
) -> Recovered:
    records = removed = 0
    notes: list[deletions.Note] = []
    for done, name in enumerate(names):
        added = _adopt_one(packs, database, name, notes, check_bodies=check_bodies)
        if added == 0 and not keep:
            packs.delete(name)
            removed += 1
        records += added
        progress(done + 1)
    deletions.carry_out(packs, database, notes)
    if names:
        log.info("Recovered %d records from %d packs; %d packs held nothing new", records, len(names), removed)
    return Recovered(len(names), records, removed)


def _adopt_one(
    packs: PackStore, database: Database, name: str, notes: list[deletions.Note], *, check_bodies: bool
) -> int:
    wrapped_key, found = packs.scan(name, check_bodies=check_bodies)
    thumbs = [record for record in found if record.header.get("record") == "thumbnail"]
    records = [record for record in found if record.header.get("record") in ("item", "readings")]
    pack = WrittenPack(name, wrapped_key, tuple(r.position for r in found), _created_ns(name))
    with database.write() as db:
        added = 0
        if records:
            entries = [Entry(RecordInfo.from_header(r.header), r.position) for r in records]
            answers = index.insert(db, pack, entries)
            added = sum(a.outcome is Outcome.STORED for a in answers)
            _mark_newer(db, entries, answers)
        if thumbs:
            added += insert_thumbnails(db, pack, thumbs)
        noted = deletions.take_in(db, pack, found)
        notes += noted
    return added + len(noted)


def _mark_newer(db: sa.Connection, entries: Sequence[Entry], answers: Sequence[Indexed]) -> None:
    """One that was uploaded again after it was deleted may be there twice: the later upload is the one that counts."""
    for entry, answer in zip(entries, answers, strict=True):
        if answer.outcome is Outcome.DUPLICATE and entry.info.readings is None:
            same = t.item.c.row == answer.row, t.item.c.synced_ns < entry.info.synced_ns
            db.execute(t.item.update().where(*same).values(synced_ns=entry.info.synced_ns))


def insert_thumbnails(db: sa.Connection, pack: WrittenPack, thumbs: list[FoundRecord]) -> int:
    """Adds a pack of thumbnails; those of items that are gone or have one already are left out."""
    by_file = {record.header["of"]: record.position for record in thumbs}
    items = sa.select(t.item.c.row, t.item.c.file_id).outerjoin(t.thumbnail, t.thumbnail.c.row == t.item.c.row)
    wanted = items.where(t.item.c.file_id.in_(by_file), t.thumbnail.c.row.is_(None))
    rows = {row: by_file[file_id] for row, file_id in db.execute(wanted)}
    if not rows:
        return 0
    pack_id = db.execute(
        t.pack.insert()
        .values(name=pack.name, wrapped_key=pack.wrapped_key, records=len(rows), created_ns=pack.created_ns)
        .returning(t.pack.c.id)
    ).scalar_one()
    values = [
        {
            "row": row,
            "pack_id": pack_id,
            "record_offset": position.record_offset,
            "body_offset": position.body_offset,
            "size_bytes": position.size,
        }
        for row, position in rows.items()
    ]
    db.execute(t.insert_ignoring(t.thumbnail, db.dialect.name), values)
    return len(rows)


def _created_ns(name: str) -> int:
    return int(name.rsplit("/", 1)[-1].split("-", 1)[0], 16)
