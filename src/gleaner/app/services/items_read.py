"""Finding and reading items. Everything is limited to what the caller may see."""

from __future__ import annotations

import array
import base64
import binascii
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import InvalidInput, NotFound
from gleaner.app.services import facets
from gleaner.app.services.item_columns import Columns, View
from gleaner.app.services.item_view import Chosen
from gleaner.app.services.items_filter import conditions, matching, visible_origins
from gleaner.app.services.items_values import Content, Facets, Item, ItemBox, ItemFilter, Origin, Page
from gleaner.app.store import tables as t
from gleaner.app.store.pack_format import Position
from gleaner.app.store.packs import PackStore
from gleaner.app.store.records import Box, Classification

MOST_LOOKED_UP = 2000
_DEFAULT_PAGE = 50
_ITEM = t.item.c


class ItemReader:
    def __init__(self, database: Database, packs: PackStore) -> None:
        self._database = database
        self._packs = packs
        self.columns = Columns(database)

    def index(self, caller: Caller, wanted: ItemFilter) -> bytes:
        """Rows of all matching items, newest first, as little-endian u32."""
        view = self.columns.view()
        with self._database.read() as db:
            if view is not None:
                return self._chosen(view, db, caller, wanted).index()
            query = sa.select(_ITEM.row).where(*self._where(db, caller, wanted))
            found = _first_column(db, query.order_by(_ITEM.captured_ns.desc(), _ITEM.row.desc()))
        if wanted.only is not None:
            there = set(found)
            found = [row for row in wanted.only if row in there]
        rows = array.array("I", found)
        if sys.byteorder == "big":
            rows.byteswap()
        return rows.tobytes()

    def facets(self, caller: Caller, wanted: ItemFilter) -> Facets:
        view = self.columns.view()
        with self._database.read() as db:
            if view is not None:
                return self._chosen(view, db, caller, wanted).facets()
            return facets.count(db, visible_origins(db, caller, wanted.organization_ids), wanted)

    def lookup(self, caller: Caller, rows: Sequence[int]) -> list[Item]:
        """The items of these rows in this order, without those that are gone or hidden."""
        if len(rows) > MOST_LOOKED_UP:
            raise InvalidInput(f"{len(rows)} rows were asked for at once", f"Ask for at most {MOST_LOOKED_UP}.")
        with self._database.read() as db:
            found = {item.row: item for item in self._load(db, caller, rows)}
        return [found[row] for row in rows if row in found]

    def get(self, caller: Caller, row: int) -> Item:
        """Raises NotFound."""
        found = self.lookup(caller, [row])
        if not found:
            raise _no_item(row)
        return found[0]

    def by_ids(self, caller: Caller, binary_data_ids: Sequence[str]) -> list[Item]:
        """By Viam's ids or bare file ids, in their order. Raises InvalidInput (malformed or none), NotFound."""
        return self.lookup(caller, self.rows_of_ids(caller, binary_data_ids))

    def rows_of_ids(self, caller: Caller, binary_data_ids: Sequence[str]) -> list[int]:
        """As `by_ids`, rows only."""
        if not binary_data_ids or not all(binary_data_ids):
            raise InvalidInput("No item ids were given", "Give at least one binary data id.")
        file_ids = [_file_id(one) for one in binary_data_ids]
        with self._database.read() as db:
            origins = {one.id: one for one in visible_origins(db, caller)}
            rows = {}
            for start in range(0, len(file_ids), 500):
                query = sa.select(_ITEM.file_id, _ITEM.row, _ITEM.origin_id).where(_ITEM.deleted_ns.is_(None))
                for file_id, row, origin_id in db.execute(
                    query.where(_ITEM.file_id.in_(file_ids[start : start + 500]))
                ):
                    if origin_id in origins:
                        rows[file_id] = row
        missing = [one for one, file_id in zip(binary_data_ids, file_ids, strict=True) if file_id not in rows]
        if missing:
            raise NotFound(f"There is no item {missing[0]}", "It may have been deleted, or you may not see it.")
        return [rows[file_id] for file_id in file_ids]

    def page(
        self, caller: Caller, wanted: ItemFilter, limit: int = 0, last: str = "", *, ascending: bool = False
    ) -> Page:
        """Up to `limit` items (50 by default, at most 2000) by capture time, behind the page that gave `last`."""
        time, row = _ITEM.captured_ns, _ITEM.row
        size = min(limit or _DEFAULT_PAGE, MOST_LOOKED_UP)
        with self._database.read() as db:
            query = sa.select(row, time).where(*self._where(db, caller, wanted))
            if last:
                edge, behind = sa.tuple_(time, row), sa.tuple_(*(sa.literal(value) for value in _parse_last(last)))
                query = query.where(edge > behind if ascending else edge < behind)
            order = (time, row) if ascending else (time.desc(), row.desc())
            keys = db.execute(query.order_by(*order).limit(size)).all()
            found = {item.row: item for item in self._load(db, caller, [key.row for key in keys])}
        items = [found[key.row] for key in keys if key.row in found]
        return Page(items, _format_last(keys[-1].captured_ns, keys[-1].row) if keys else last)

    def count(self, caller: Caller, wanted: ItemFilter) -> tuple[int, int]:
        """(items, bytes) that match."""
        view = self.columns.view()
        with self._database.read() as db:
            if view is not None:
                return self._chosen(view, db, caller, wanted).count()
            query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_ITEM.size_bytes), 0))
            count, size = db.execute(query.where(*self._where(db, caller, wanted))).one()
        return int(count), int(size)

    def rows(self, caller: Caller, wanted: ItemFilter) -> list[int]:
        with self._database.read() as db:
            return _first_column(db, sa.select(_ITEM.row).where(*self._where(db, caller, wanted)))

    def tags(self, caller: Caller, wanted: ItemFilter) -> list[str]:
        """Every tag of the matching items."""
        return self._values_of(caller, wanted, t.item_tag, t.item_tag.c.tag)

    def labels(self, caller: Caller, wanted: ItemFilter) -> list[str]:
        """Every box label of the matching items."""
        return self._values_of(caller, wanted, t.item_box, t.item_box.c.label)

    def content(self, caller: Caller, row: int) -> Content:
        """Raises NotFound."""
        item = self.get(caller, row)
        return Content(item, lambda start, length: self._read(row, start, length))

    def content_of(self, row: int) -> bytes:
        """An item's bytes, for code that has already checked its caller. Raises NotFound."""
        pack_id, position = self.position(row)
        return b"".join(self._packs.chunks(pack_id, position))

    def digest_of(self, row: int) -> bytes:
        """SHA-256 of an item's bytes, for code that has already checked its caller. Raises NotFound."""
        with self._database.read() as db:
            found = db.scalar(sa.select(_ITEM.digest).where(_ITEM.row == row))
        if found is None:
            raise _no_item(row)
        return bytes(found)

    def _read(self, row: int, start: int, length: int) -> Iterator[bytes]:
        pack_id, position = self.position(row)
        yield from self._packs.chunks(pack_id, position, start, length)

    def position(self, row: int) -> tuple[int, Position]:
        """Where an item's bytes are, for code that has already checked its caller. Raises NotFound."""
        columns = (_ITEM.pack_id, _ITEM.record_offset, _ITEM.body_offset, _ITEM.size_bytes)
        with self._database.read() as db:
            found = db.execute(sa.select(*columns).where(_ITEM.row == row)).one_or_none()
        if found is None or found.pack_id is None:
            raise NotFound(f"The bytes of item {row} are gone", "It was deleted more than a day ago.")
        return found.pack_id, Position(found.record_offset, found.body_offset, found.size_bytes)

    # Parts of the above

    def _chosen(self, view: View, db: sa.Connection, caller: Caller, wanted: ItemFilter) -> Chosen:
        return Chosen(view, db, visible_origins(db, caller, wanted.organization_ids), wanted)

    def _where(self, db: sa.Connection, caller: Caller, wanted: ItemFilter) -> list[sa.ColumnElement[bool]]:
        visible = visible_origins(db, caller, wanted.organization_ids)
        return conditions(db, wanted, matching(visible, wanted), visible)

    def _values_of(self, caller: Caller, wanted: ItemFilter, table: sa.Table, column: sa.Column[str]) -> list[str]:
        with self._database.read() as db:
            rows = sa.select(_ITEM.row).where(*self._where(db, caller, wanted))
            return list(db.scalars(sa.select(column).where(table.c.row.in_(rows)).distinct().order_by(column)))

    def _load(self, db: sa.Connection, caller: Caller, rows: Sequence[int]) -> Iterator[Item]:
        origins = {one.id: one for one in visible_origins(db, caller)}
        asked, given = _lookups(db.dialect.name), {"rows": t.bound_rows(rows, db.dialect.name)}
        found = db.execute(asked.items, given).all()
        details = _Details(db, asked, given)
        for one in found:
            if one.origin_id in origins:
                yield details.item(one, origins[one.origin_id])


@dataclass(frozen=True)
class _Lookups:
    """What a lookup asks, with `rows` to be bound. Made once: making a statement costs more than what it finds."""

    items: sa.Select[Any]
    tags: sa.Select[Any]
    boxes: sa.Select[Any]
    datasets: sa.Select[Any]


@cache
def _lookups(dialect: str) -> _Lookups:
    rows = t.rows_bound("rows", dialect)
    tag, box, member, dataset = t.item_tag.c, t.item_box, t.dataset_item.c, t.dataset
    names = sa.select(member.row, dataset.c.id, dataset.c.name).join(dataset, dataset.c.id == member.dataset_id)
    return _Lookups(
        sa.select(t.item).where(_ITEM.row.in_(rows), _ITEM.deleted_ns.is_(None)),
        sa.select(tag.row, tag.tag).where(tag.row.in_(rows)).order_by(tag.row, tag.tag),
        sa.select(box).where(box.c.row.in_(rows)).order_by(box.c.id),
        names.where(member.row.in_(rows)).order_by(dataset.c.name),
    )


class _Details:
    """Tags, boxes and datasets of some items, each read with one query."""

    def __init__(self, db: sa.Connection, asked: _Lookups, given: dict[str, Any]) -> None:
        self._tags: dict[int, list[str]] = {}
        self._boxes: dict[int, list[ItemBox]] = {}
        self._datasets: dict[int, list[tuple[str, str]]] = {}
        for row, name in db.execute(asked.tags, given):
            self._tags.setdefault(row, []).append(name)
        for one in db.execute(asked.boxes, given):
            drawn = Box(one.label, one.x_min, one.y_min, one.x_max, one.y_max, one.confidence)
            self._boxes.setdefault(one.row, []).append(ItemBox(one.id, drawn))
        for row, dataset_id, name in db.execute(asked.datasets, given):
            self._datasets.setdefault(row, []).append((dataset_id, name))

    def item(self, one: sa.Row[tuple[object, ...]], origin: Origin) -> Item:
        seen = json.loads(one.classifications) if one.classifications else []
        return Item(
            row=one.row,
            file_id=one.file_id,
            origin=origin,
            file_name=one.file_name,
            file_ext=one.file_ext,
            size_bytes=one.size_bytes,
            width=one.width,
            height=one.height,
            captured_ns=one.captured_ns,
            received_ns=one.received_ns,
            synced_ns=one.synced_ns,
            method_parameters=json.loads(one.method_parameters) if one.method_parameters else {},
            tags=tuple(self._tags.get(one.row, ())),
            boxes=tuple(self._boxes.get(one.row, ())),
            classifications=tuple(Classification(c["label"], c["confidence"]) for c in seen),
            datasets=tuple(self._datasets.get(one.row, ())),
        )


def _first_column(db: sa.Connection, query: sa.Select[int]) -> list[int]:
    """Straight from the driver: SQLAlchemy's row objects cost more than the query when there are 100,000 of them."""
    cursor: Any = db.execute(query).cursor
    return [row[0] for row in cursor.fetchall()]


def _no_item(row: int) -> NotFound:
    return NotFound(f"There is no item {row}", "It may have been deleted; reload the page.")


def _file_id(binary_data_id: str) -> str:
    parts = binary_data_id.split("/")
    if len(parts) not in (1, 3) or not parts[-1]:
        raise InvalidInput(f"{binary_data_id!r} is no item id", "It looks like <organization>/<location>/<file id>.")
    return parts[-1]


def _format_last(captured_ns: int, row: int) -> str:
    return base64.urlsafe_b64encode(f"{captured_ns}:{row}".encode()).decode()


def _parse_last(last: str) -> tuple[int, int]:
    try:
        captured, row = base64.urlsafe_b64decode(last).decode().split(":")
        return int(captured), int(row)
    except (ValueError, binascii.Error) as err:
        raise InvalidInput(f"{last!r} is no page marker", "Send `last` as the previous page gave it.") from err
