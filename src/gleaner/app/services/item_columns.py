"""The living items as columns in memory: what lists, counts and facets of a million items are answered from.

A pass over an encrypted database takes a second for a million items; over these arrays, milliseconds. About 80 bytes an item.
SQLite only, where this process is the only writer: `Database.watch` tells which rows each commit changed, new ones are those
behind the last row. What is answered is never older than the newest commit at the time of asking. Until the first load
has ended, and on PostgreSQL, `view` is None and the caller asks the database itself (`items_filter`, `facets`), which means
the same; a property test holds the two together.
Threads: views are immutable; `Columns` replaces its view under a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.store import tables as t

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
_ITEM = t.item.c
_HASH = t.item_hash.c
_COLUMNS = (
    *(_ITEM.row, _ITEM.captured_ns, _ITEM.origin_id, _ITEM.size_bytes, _ITEM.tag_count),
    *(sa.func.coalesce(_HASH.hash, 0), sa.func.coalesce(_HASH.alike, 0)),
)
_CHUNK = 5_000


@dataclass(frozen=True)
class Values:
    """What items can have several of. Entry i says that the item at `positions[i]` has `names[values[i]]`."""

    names: tuple[str, ...]
    positions: npt.NDArray[np.int32]
    values: npt.NDArray[np.int32]

    def having(self, wanted: Callable[[str], bool], count: int) -> Mask:
        """Of `count` items, those with any value that is wanted."""
        chosen = np.fromiter((wanted(name) for name in self.names), np.bool_, len(self.names))
        mask = np.zeros(count, np.bool_)
        mask[self.positions[chosen[self.values]]] = True
        return mask

    def counts(self, mask: Mask) -> dict[str, int]:
        """How many items of the mask have each value; without those nobody has."""
        numbers = np.bincount(self.values[mask[self.positions]], minlength=len(self.names))
        return {name: int(n) for name, n in zip(self.names, numbers, strict=True) if n}


@dataclass(frozen=True)
class View:
    """The items in the order of their rows, all arrays equally long."""

    rows: Ints
    captured_ns: Ints
    origins: Ints
    origin_ids: frozenset[int]
    """Those that occur."""
    sizes: Ints
    tag_counts: Ints
    hashes: Ints
    """What pictures look like (`picture_hash`), as signed numbers."""
    alike: Ints
    """The row that stands for all that look like it; 0: not a picture, or not looked at yet."""
    newest_first: Ints
    """Positions by (capture time, row), descending."""
    rows_newest_first: npt.NDArray[np.uint32]
    """Little-endian on every computer."""
    tags: Values
    labels: Values
    datasets: Values
    last_row: int
    """Every row up to here has been looked at."""

    def __len__(self) -> int:
        return len(self.rows)


class Columns:
    """start() loads in a thread of its own; stop() waits for it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._view: View | None = None
        self._changed: set[int] = set()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """After the tables were made."""
        if self._database.watch(self._touched):
            self._thread = threading.Thread(target=self.load, name="item columns")
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def load(self) -> None:
        with self._database.read() as db:
            view = _grown(_empty(), db, changed=())
        with self._lock:
            self._view = view

    def view(self) -> View | None:
        """As of now: everything that was committed before this call. None: ask the database."""
        with self._lock:
            if self._view is None:
                return None
            changed, self._changed = self._changed, set()
            try:
                with self._database.read() as db:  # begins after `changed` was taken: it sees at least that
                    self._view = _grown(self._view, db, changed)
            except BaseException:
                self._changed |= changed
                raise
            return self._view

    def _touched(self, rows: set[int]) -> None:
        """Told by the database after each commit."""
        with self._lock:
            self._changed |= rows


def _empty() -> View:
    none, nothing = np.empty(0, np.int64), Values((), np.empty(0, np.int32), np.empty(0, np.int32))
    return View(
        none, none, none, frozenset(), none, none, none, none, none, none.astype("<u4"), nothing, nothing, nothing, 0
    )


def _grown(view: View, db: sa.Connection, changed: Sequence[int] | set[int]) -> View:
    """The view with the rows that are new or changed as they are now."""
    known = sorted(row for row in changed if row <= view.last_row)
    newest = db.scalar(sa.select(sa.func.max(_ITEM.row))) or 0
    if not known and newest <= view.last_row:
        return view
    is_old = np.ones(len(view), np.bool_)
    places = np.searchsorted(view.rows, known)
    is_old[
        [place for place, row in zip(places, known, strict=True) if place < len(view) and view.rows[place] == row]
    ] = False
    fresh = _items(db, known, view.last_row)
    columns = [
        np.concatenate((old[is_old], new))
        for old, new in zip(
            (view.rows, view.captured_ns, view.origins, view.sizes, view.tag_counts, view.hashes, view.alike),
            fresh,
            strict=True,
        )
    ]
    if known:
        order = np.argsort(columns[0], kind="stable")
        columns = [column[order] for column in columns]
    rows, captured_ns, origins, sizes, tag_counts, hashes, alike = columns
    # Stable, and nearly sorted already: capture times follow the rows.
    newest_first = np.argsort(captured_ns, kind="stable")[::-1]
    place = _Places(view.rows[is_old], rows, is_old)
    ask = (db, known, view.last_row)
    return View(
        rows,
        captured_ns,
        origins,
        frozenset(np.flatnonzero(np.bincount(origins)).tolist()) if len(origins) else frozenset(),
        sizes,
        tag_counts,
        hashes,
        alike,
        newest_first,
        rows[newest_first].astype("<u4"),
        _merged(view.tags, place, _pairs(*ask, sa.select(t.item_tag.c.row, t.item_tag.c.tag))),
        _merged(view.labels, place, _pairs(*ask, sa.select(t.item_box.c.row, t.item_box.c.label).distinct())),
        _merged(view.datasets, place, _pairs(*ask, sa.select(t.dataset_item.c.row, t.dataset_item.c.dataset_id))),
        int(newest),
    )


class _Places:
    """Where the items of an older view are in a newer one."""

    def __init__(self, kept: Ints, rows: Ints, is_old: Mask) -> None:
        self._rows = rows
        self.moved = np.full(len(is_old), -1, np.int32)
        """Old position → new one; -1 for those that are looked at anew."""
        self.moved[is_old] = np.searchsorted(rows, kept)

    def of(self, rows: Ints) -> tuple[Ints, Mask]:
        """Their positions, and which of them are alive."""
        found = np.searchsorted(self._rows, rows)
        found[found == len(self._rows)] = 0
        return found, (self._rows[found] == rows) if len(self._rows) else np.zeros(len(rows), np.bool_)


def _merged(old: Values, places: _Places, chunks: Iterator[list[Any]]) -> Values:
    """The values of the items that stayed, and those of the (row, name) in `chunks`."""
    numbers = {name: number for number, name in enumerate(old.names)}
    moved = places.moved[old.positions] if len(old.positions) else old.positions
    stays = moved >= 0
    positions, values = [moved[stays]], [old.values[stays]]
    for chunk in chunks:
        found, alive = places.of(np.fromiter((row for row, _ in chunk), np.int64, len(chunk)))
        named = (numbers.setdefault(name, len(numbers)) for _, name in chunk)
        positions.append(found[alive].astype(np.int32))
        values.append(np.fromiter(named, np.int32, len(chunk))[alive])
    return Values(tuple(numbers), np.concatenate(positions), np.concatenate(values))


def _items(db: sa.Connection, known: list[int], last_row: int) -> list[Ints]:
    """The living ones among the known rows and behind the last, as the columns of a view."""
    source = t.item.outerjoin(t.item_hash, _HASH.row == _ITEM.row)
    query = sa.select(*_COLUMNS).select_from(source).where(_ITEM.deleted_ns.is_(None)).order_by(_ITEM.row)
    found: list[list[Ints]] = [[np.empty(0, np.int64)] for _ in _COLUMNS]
    for chunk in _chunks(db, query, _ITEM.row, known, last_row):
        for column, values in zip(found, zip(*chunk, strict=True), strict=True):
            column.append(np.fromiter(values, np.int64, len(values)))
    return [np.concatenate(column) for column in found]


def _pairs(db: sa.Connection, known: list[int], last_row: int, query: sa.Select[Any]) -> Iterator[list[Any]]:
    """(row, name) of the known rows and of those behind the last, in chunks."""
    return _chunks(db, query, query.selected_columns[0], known, last_row)


def _chunks(
    db: sa.Connection, query: sa.Select[Any], column: sa.ColumnElement[int], known: list[int], last_row: int
) -> Iterator[list[Any]]:
    """Straight from the driver: SQLAlchemy's row objects cost more than the query when there are a million of them."""
    for where in ([column.in_(t.rows_in(known, db.dialect.name))] if known else []) + [column > last_row]:
        cursor: Any = db.execute(query.where(where)).cursor
        while chunk := cursor.fetchmany(_CHUNK):
            yield chunk
