"""The tables `items` and `annotations`: pictures and files, and what models and people said about them.

They live in the metadata database; what a query can use of them is copied into its DuckDB, chosen there already by place and
time. `annotations` has a row for each box and each classification: "less than 60 % sure last night" is one WHERE.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.errors import TooLarge
from gleaner.app.lake.view import PLACES, Wanted, in_time
from gleaner.app.services.items_values import Origin
from gleaner.app.store import tables as t

if TYPE_CHECKING:
    import duckdb

ITEMS, ANNOTATIONS = "items", "annotations"
MOST_ROWS = 1_000_000
_ITEM, _BOX = t.item.c, t.item_box.c
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_ITEM_COLUMNS = {
    "origin": "BIGINT",
    "file_id": "VARCHAR",
    "captured": "BIGINT",
    "received": "BIGINT",
    "file_name": "VARCHAR",
    "size_bytes": "BIGINT",
    "width": "BIGINT",
    "height": "BIGINT",
    "tags": "VARCHAR",
}
_ANNOTATION_COLUMNS = {
    "origin": "BIGINT",
    "file_id": "VARCHAR",
    "captured": "BIGINT",
    "kind": "VARCHAR",
    "label": "VARCHAR",
    "confidence": "DOUBLE",
    **dict.fromkeys(_CORNERS, "DOUBLE"),
}
_ID = "concat_ws('/', organization_id, location_id, file_id) AS binary_data_id"
_TIME = "make_timestamp({0} // 1000) AS {1}"


@dataclass(frozen=True)
class Copied:
    """What a query can use, as it goes into its DuckDB."""

    origins: Sequence[Origin]
    rows: Mapping[str, Sequence[Sequence[Any]]]
    """By table."""


def copied(database: Database, origins: Sequence[Origin], wanted: Mapping[str, Wanted]) -> Copied:
    """The rows of the tables named in `wanted`. Raises TooLarge."""
    if not wanted:
        return Copied((), {})
    with database.read() as db:
        rows = {
            name: rows_of(db, wanted[name].origins(origins), wanted[name])
            for name, (rows_of, _, _) in _TABLES.items()
            if name in wanted
        }
    return Copied(origins, rows)


def load(connection: duckdb.DuckDBPyConnection, given: Copied) -> None:
    """Makes the tables."""
    if not given.rows:
        return
    places = {name: [getattr(one, own) for one in given.origins] for name, own in PLACES.items()}
    columns = {
        "id": [one.id for one in given.origins],
        **places,
        "mime_type": [one.mime_type for one in given.origins],
    }
    of_origins = {"id": "BIGINT", **dict.fromkeys((*PLACES, "mime_type"), "VARCHAR")}
    _table(connection, "item_origins", of_origins, list(zip(*columns.values(), strict=True)))
    for name, rows in given.rows.items():
        _, types, select = _TABLES[name]
        _table(connection, f"{name}_rows", types, rows)
        connection.execute(f"CREATE VIEW {name} AS SELECT {select} FROM {name}_rows JOIN item_origins ON id = origin")


def _table(
    connection: duckdb.DuckDBPyConnection, name: str, types: Mapping[str, str], rows: Sequence[Sequence[Any]]
) -> None:
    lists = list(map(list, zip(*rows, strict=True))) or [[] for _ in types]
    columns = ", ".join(f"unnest(?::{type_}[]) AS {column}" for column, type_ in types.items())
    connection.execute(f"CREATE TABLE {name} AS SELECT {columns}", lists)


def _items(db: sa.Connection, origins: Sequence[Origin], wanted: Wanted) -> list[Sequence[Any]]:
    columns = (
        _ITEM.row,
        _ITEM.origin_id,
        _ITEM.file_id,
        _ITEM.captured_ns,
        _ITEM.received_ns,
        _ITEM.file_name,
        _ITEM.size_bytes,
        _ITEM.width,
        _ITEM.height,
    )
    alive = _alive(db, origins, wanted)
    rows = _bounded(db.execute(sa.select(*columns).where(*alive).limit(MOST_ROWS + 1)).all(), ITEMS)
    tags: dict[int, list[str]] = {}
    if any(True for _ in rows):
        tagged = sa.select(t.item_tag.c.row, t.item_tag.c.tag).join(t.item, _ITEM.row == t.item_tag.c.row)
        for row, tag in db.execute(tagged.where(*alive, _ITEM.tag_count > 0).order_by(t.item_tag.c.tag)):
            tags.setdefault(row, []).append(tag)
    return [(*rest, json.dumps(tags.get(row, []))) for row, *rest in rows]


def _annotations(db: sa.Connection, origins: Sequence[Origin], wanted: Wanted) -> list[Sequence[Any]]:
    alive = _alive(db, origins, wanted)
    box = (_BOX.label, _BOX.confidence, *(_BOX[name] for name in _CORNERS))
    boxes = (
        sa.select(_ITEM.origin_id, _ITEM.file_id, _ITEM.captured_ns, sa.literal("box"), *box)
        .join(t.item_box, _BOX.row == _ITEM.row)
        .where(*alive)
        .limit(MOST_ROWS + 1)
    )
    found: list[Sequence[Any]] = [tuple(one) for one in _bounded(db.execute(boxes).all(), ANNOTATIONS)]
    seen = sa.select(_ITEM.origin_id, _ITEM.file_id, _ITEM.captured_ns, _ITEM.classifications)
    for origin, file_id, captured, text in db.execute(seen.where(*alive, _ITEM.classifications != "")):
        for one in json.loads(text):
            found.append(
                (origin, file_id, captured, "classification", one["label"], one["confidence"], *(None,) * len(_CORNERS))
            )
    return list(_bounded(found, ANNOTATIONS))


def _alive(db: sa.Connection, origins: Sequence[Origin], wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    ids = t.rows_in([one.id for one in origins], db.dialect.name)
    between = in_time(_ITEM.captured_ns, _ITEM.captured_ns, wanted)
    return [_ITEM.deleted_ns.is_(None), _ITEM.origin_id.in_(ids), *between]


def _bounded(rows: Sequence[Any], name: str) -> Sequence[Any]:
    if len(rows) > MOST_ROWS:
        raise TooLarge(
            f"The query would look at more than {MOST_ROWS} rows of {name}",
            "Add conditions on part_id, component_name or time_requested.",
        )
    return rows


_PLACE_LIST = ", ".join(PLACES)
_Rows = Callable[[sa.Connection, Sequence[Origin], Wanted], list[Sequence[Any]]]
_TABLES: Mapping[str, tuple[_Rows, Mapping[str, str], str]] = {
    ITEMS: (
        _items,
        _ITEM_COLUMNS,
        f"{_ID}, {_PLACE_LIST}, mime_type, {_TIME.format('captured', 'time_requested')}, "
        f"{_TIME.format('received', 'time_received')}, file_name, size_bytes, width, height, "
        "tags::JSON::VARCHAR[] AS tags",
    ),
    ANNOTATIONS: (
        _annotations,
        _ANNOTATION_COLUMNS,
        f"{_ID}, {_PLACE_LIST}, {_TIME.format('captured', 'time_requested')}, kind, label, confidence, "
        f"{', '.join(_CORNERS)}",
    ),
}
