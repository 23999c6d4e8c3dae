"""Writes records into the metadata, inside a transaction of the caller. Used by ingest, adoption and rebuild alike.

The unique idempotency key decides what is new: `INSERT … ON CONFLICT DO NOTHING`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import sqlalchemy as sa

from gleaner.app.store import tables as t
from gleaner.app.store.origins import Origins, key_of
from gleaner.app.store.pack_format import Position
from gleaner.app.store.packs import WrittenPack
from gleaner.app.store.records import READINGS_AS_SENT, RecordInfo
from gleaner.app.store.sqlite_driver import driver_of

_INSERT_PACK = t.pack.insert().returning(t.pack.c.id)


class Outcome(Enum):
    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True)
class Entry:
    info: RecordInfo
    position: Position
    revive: bool = False


@dataclass(frozen=True)
class Indexed:
    """`row` is the item's row or the readings batch's id, also of the earlier upload for a duplicate."""

    outcome: Outcome
    row: int
    unknown_dataset_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """What the index has under an idempotency key."""

    row: int
    digest: bytes
    deleted: bool


def find(db: sa.Connection, keys: Sequence[bytes]) -> dict[bytes, Known]:
    """Which of the keys are stored already, as items or readings."""
    found: dict[bytes, Known] = {}
    for table, number in ((t.item, t.item.c.row), (t.readings_batch, t.readings_batch.c.id)):
        for start in range(0, len(keys), 500):
            for key, row, digest, deleted in _with_keys(db, table, number, keys[start : start + 500]):
                found[bytes(key)] = Known(row, digest, deleted is not None)
    return found


def _with_keys(db: sa.Connection, table: sa.Table, number: sa.Column[int], keys: Sequence[bytes]) -> Iterable[Any]:
    if (driver := driver_of(db)) is not None:
        names = f"idempotency_key, {number.name}, digest, deleted_ns"
        marks = ",".join("?" * len(keys))
        query = f'SELECT {names} FROM "{table.name}" WHERE idempotency_key IN ({marks})'
        return driver.rows(query, tuple(keys))
    columns = (table.c.idempotency_key, number, table.c.digest, table.c.deleted_ns)
    return db.execute(sa.select(*columns).where(table.c.idempotency_key.in_(keys)))


def judge(info: RecordInfo, known: Known) -> Outcome:
    # Earlier versions stored the same readings in other words; a machine may send them once more.
    is_same = known.digest == info.digest or info.mime_type == READINGS_AS_SENT
    return Outcome.DUPLICATE if is_same else Outcome.CONFLICT


def insert(
    db: sa.Connection, pack: WrittenPack, entries: Sequence[Entry], origins: Origins | None = None
) -> list[Indexed]:
    """Adds a pack and its records; the answer follows the order of `entries`. `origins`: the caller's, kept between calls."""
    pack_id = _insert_pack(db, pack)
    origin_ids = (origins or Origins()).ids(db, [entry.info for entry in entries])
    new = _insert_records(db, entries, origin_ids, pack_id)
    missing = [entry.info.idempotency_key for entry in entries if entry.info.idempotency_key not in new]
    known = find(db, missing) if missing else {}
    answers: list[Indexed] = []
    fresh: list[tuple[Entry, int]] = []
    count = 0
    for entry in entries:
        key = entry.info.idempotency_key
        if key in new:
            row, is_new = new.pop(key), True
        else:
            earlier = known.get(key)
            if earlier is None:  # twice in one group: the first one of them was new
                row, is_new = next(row for other, row in fresh if other.info.idempotency_key == key), False
            elif earlier.deleted and entry.revive and judge(entry.info, earlier) is Outcome.DUPLICATE:
                _revive(db, earlier.row, entry, pack_id)
                row, is_new = earlier.row, True
            else:
                answers.append(Indexed(judge(entry.info, earlier), earlier.row))
                continue
        if is_new:
            fresh.append((entry, row))
            count += 1
        answers.append(Indexed(Outcome.STORED if is_new else Outcome.DUPLICATE, row))
    unknown = _insert_details(db, [(e, row) for e, row in fresh if e.info.readings is None])
    if count == 0:  # everything was known: the caller removes the pack
        db.execute(t.pack.delete().where(t.pack.c.id == pack_id))
    elif count != len(entries):
        db.execute(t.pack.update().where(t.pack.c.id == pack_id).values(records=count))
    return [Indexed(a.outcome, a.row, unknown.get(a.row, ())) for a in answers]


def _insert_pack(db: sa.Connection, pack: WrittenPack) -> int:
    values = {
        "name": pack.name,
        "wrapped_key": pack.wrapped_key,
        "records": len(pack.positions),
        "created_ns": pack.created_ns,
    }
    if (driver := driver_of(db)) is not None:
        return driver.insert(t.pack, values)
    return int(db.execute(_INSERT_PACK, values).scalar_one())


def _insert_records(
    db: sa.Connection, entries: Sequence[Entry], origins: dict[tuple[str, ...], int], pack_id: int
) -> dict[bytes, int]:
    """New ones only: idempotency key → row."""
    items = [e for e in entries if e.info.readings is None]
    batches = [e for e in entries if e.info.readings is not None]
    new: dict[bytes, int] = {}
    for chosen, table, number, values in (
        (items, t.item, t.item.c.row, _item_values),
        (batches, t.readings_batch, t.readings_batch.c.id, _batch_values),
    ):
        if not chosen:
            continue
        # RETURNING would make SQLAlchemy build one long statement per group; what is new is what names this pack.
        rows = [_stored_values(e, origins[key_of(e.info)], pack_id) | values(e.info) for e in chosen]
        new.update({bytes(key): row for row, key in _inserted(db, table, number, rows, pack_id)})
    return new


def _inserted(
    db: sa.Connection, table: sa.Table, number: sa.Column[int], rows: Sequence[dict[str, Any]], pack_id: int
) -> Iterable[Any]:
    """(number, idempotency key) of those that were not there yet."""
    if (driver := driver_of(db)) is not None:
        driver.insert_all(table, rows, ignoring=True)
        # One text: a row of an answer costs a fight for Python's lock each.
        pairs = f"group_concat({number.name} || ' ' || hex(idempotency_key))"
        [(text,)] = driver.rows(f'SELECT {pairs} FROM "{table.name}" WHERE pack_id = ?', (pack_id,))
        return [
            (int(row), bytes.fromhex(key)) for row, key in (pair.split() for pair in (text or "").split(",") if pair)
        ]
    db.execute(t.insert_ignoring(table, db.dialect.name), rows)
    return db.execute(sa.select(number, table.c.idempotency_key).where(table.c.pack_id == pack_id))


def _stored_values(entry: Entry, origin_id: int, pack_id: int) -> dict[str, Any]:
    info, position = entry.info, entry.position
    return {
        "file_id": info.file_id,
        "idempotency_key": info.idempotency_key,
        "digest": info.digest,
        "origin_id": origin_id,
        "pack_id": pack_id,
        "record_offset": position.record_offset,
        "body_offset": position.body_offset,
        "size_bytes": position.size,
        "synced_ns": info.synced_ns,
        "method_parameters": json.dumps(info.method_parameters) if info.method_parameters else "",
    }


def _item_values(info: RecordInfo) -> dict[str, Any]:
    found = [{"label": one.label, "confidence": one.confidence} for one in info.classifications]
    return {
        "captured_ns": info.captured_ns,
        "received_ns": info.received_ns,
        "width": info.width,
        "height": info.height,
        "file_name": info.file_name,
        "file_ext": info.file_ext,
        "tag_count": len(info.tags),
        "classifications": json.dumps(found) if found else "",
    }


def _batch_values(info: RecordInfo) -> dict[str, Any]:
    summary = info.readings
    assert summary is not None
    return {
        "count": summary.count,
        "first_ns": summary.first_ns,
        "last_ns": summary.last_ns,
        "latest": summary.latest,
        "tags": json.dumps(info.tags),
    }


def _revive(db: sa.Connection, row: int, entry: Entry, pack_id: int) -> None:
    where = {
        "pack_id": pack_id,
        "record_offset": entry.position.record_offset,
        "body_offset": entry.position.body_offset,
    }
    db.execute(t.item_tag.delete().where(t.item_tag.c.row == row))
    db.execute(t.item_box.delete().where(t.item_box.c.row == row))
    db.execute(
        t.item.update().where(t.item.c.row == row).values(deleted_ns=None, tag_count=len(entry.info.tags), **where)
    )


def _insert_details(db: sa.Connection, fresh: Iterable[tuple[Entry, int]]) -> dict[int, tuple[str, ...]]:
    """Tags, boxes and dataset memberships of new items; the answer names datasets that do not exist, by row."""
    tags, boxes, wanted = [], [], []
    for entry, row in fresh:
        info = entry.info
        tags += [{"row": row, "tag": tag} for tag in info.tags]
        for box in info.boxes:
            boxes.append({"id": str(uuid.uuid4()), "row": row, **box.__dict__})
        wanted += [(dataset_id, row, info.place.organization_id) for dataset_id in info.dataset_ids]
    _insert_all(db, t.item_tag, tags)
    _insert_all(db, t.item_box, boxes)
    if not wanted:
        return {}
    known = {
        (row.id, row.organization_id)
        for row in db.execute(
            sa.select(t.dataset.c.id, t.dataset.c.organization_id).where(t.dataset.c.id.in_({d for d, _, _ in wanted}))
        )
    }
    members = [{"dataset_id": d, "row": row} for d, row, org in wanted if (d, org) in known]
    if members:
        db.execute(t.insert_ignoring(t.dataset_item, db.dialect.name), members)
    unknown: dict[int, tuple[str, ...]] = {}
    for dataset_id, row, org in wanted:
        if (dataset_id, org) not in known:
            unknown[row] = (*unknown.get(row, ()), dataset_id)
    return unknown


def _insert_all(db: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    if (driver := driver_of(db)) is not None:
        driver.insert_all(table, rows)
    else:
        db.execute(table.insert(), rows)
