"""The table `readings` that queries see: lake files and what is not in any yet, of the origins the caller may see.

Both are read in one look at the metadata, so every batch counts exactly once, whatever is compacted meanwhile.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.errors import Unavailable
from gleaner.app.lake import batches, files, schema, sql
from gleaner.app.lake.batches import Batch
from gleaner.app.lake.compaction import value_of
from gleaner.app.lake.files import LakeFile
from gleaner.app.lake.schema import Columns, Path
from gleaner.app.services.items_values import Origin
from gleaner.app.store import tables as t
from gleaner.app.store.packs import PackStore

if TYPE_CHECKING:
    import duckdb

_MOST_WAITING = 1_000_000
PLACES = {
    "organization_id": "organization_id",
    "location_id": "location_id",
    "robot_id": "machine_id",
    "part_id": "part_id",
    "component_type": "component_type",
    "component_name": "component_name",
    "method_name": "method",
}
_BOUNDS = {
    "$eq": "COMPARE_EQUAL",
    "$gt": "COMPARE_GREATERTHAN",
    "$gte": "COMPARE_GREATERTHANOREQUALTO",
    "$lt": "COMPARE_LESSTHAN",
    "$lte": "COMPARE_LESSTHANOREQUALTO",
}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_JSON = ("additional_parameters", "data")


@dataclass(frozen=True)
class Wanted:
    """What a query can use at most; empty values and Nones ask for nothing."""

    places: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Viam's column name → the values it may have."""
    start_ns: int | None = None
    end_ns: int | None = None
    """Both inclusive, of the time requested."""

    def origins(self, there: Iterable[Origin]) -> list[Origin]:
        return [
            one for one in there if all(getattr(one, PLACES[name]) in values for name, values in self.places.items())
        ]


@dataclass(frozen=True)
class Source:
    """The readings of one query, found but not read yet."""

    origins: Sequence[Origin]
    lake: Sequence[LakeFile]
    waiting: Sequence[Batch]


def find(database: Database, origins: Sequence[Origin], wanted: Wanted) -> Source:
    """Raises Unavailable when more waits to be compacted than a query could read."""
    chosen = wanted.origins(origins)
    file, batch = t.lake_file.c, t.readings_batch.c
    with database.read() as db:
        ids = t.rows_in([one.id for one in chosen], db.dialect.name)
        lake = files.find(db, file.origin_id.in_(ids), *in_time(file.first_ns, file.last_ns, wanted))
        waiting = batches.waiting(db, batch.origin_id.in_(ids), *in_time(batch.first_ns, batch.last_ns, wanted))
    if sum(one.count for one in waiting) > _MOST_WAITING:
        raise Unavailable("More readings have just arrived than a query can read", "Try again in a minute.")
    return Source(chosen, lake, waiting)


def in_time(first: Any, last: Any, wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    """WHERE for what may hold something of the time wanted."""
    after = [last >= wanted.start_ns] if wanted.start_ns is not None else []
    return after + ([first <= wanted.end_ns] if wanted.end_ns is not None else [])


def wanted_by(connection: duckdb.DuckDBPyConnection, conditions: Sequence[Mapping[str, Any]]) -> Wanted:
    """What conditions of a parsed query say about places and times; those it cannot use are left to DuckDB."""
    wanted = Wanted()
    for one in conditions:
        wanted = _narrowed(connection, wanted, one)
    return wanted


def wanted_by_matches(matches: Iterable[tuple[str, Any]]) -> Wanted:
    """The same for the conditions a pipeline begins with."""
    wanted = Wanted()
    for name, one in matches:
        tests = one if isinstance(one, Mapping) else {"$eq": one}
        if name in PLACES:
            among = [tests["$eq"]] if "$eq" in tests else tests.get("$in")
            if isinstance(among, (list, tuple)) and all(isinstance(value, str) for value in among):
                values = frozenset(among)
                wanted = replace(wanted, places={**wanted.places, name: wanted.places.get(name, values) & values})
        elif name == "time_requested":
            for operator, moment in tests.items():
                if isinstance(moment, dt.datetime) and operator in _BOUNDS:
                    wanted = _bounded(wanted, _BOUNDS[operator], _since_epoch_ns(moment))
    return wanted


def _since_epoch_ns(moment: dt.datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return (aware - _EPOCH) // dt.timedelta(microseconds=1) * 1000


def _narrowed(connection: duckdb.DuckDBPyConnection, wanted: Wanted, one: Mapping[str, Any]) -> Wanted:
    kind = str(one.get("type", ""))
    if kind == "COMPARE_BETWEEN":
        lower = {"type": "COMPARE_GREATERTHANOREQUALTO", "left": one["input"], "right": one["lower"]}
        upper = {"type": "COMPARE_LESSTHANOREQUALTO", "left": one["input"], "right": one["upper"]}
        return _narrowed(connection, _narrowed(connection, wanted, lower), upper)
    left = one.get("left") or next(iter(one.get("children") or ()), None)
    if not isinstance(left, Mapping) or left.get("class") != "COLUMN_REF":
        return wanted
    name = str(left["column_names"][-1]).casefold()
    if name in PLACES and kind in ("COMPARE_EQUAL", "COMPARE_IN"):
        found = [_texts(value) for value in ([one["right"]] if kind == "COMPARE_EQUAL" else one["children"][1:])]
        if all(text is not None for text in found):
            values = frozenset(text for text in found if text is not None)
            return replace(wanted, places={**wanted.places, name: wanted.places.get(name, values) & values})
    if name == "time_requested" and kind.startswith("COMPARE_") and "right" in one:
        return _bounded(wanted, kind, _time_ns(connection, one["right"]))
    return wanted


def _bounded(wanted: Wanted, kind: str, time_ns: int | None) -> Wanted:
    if time_ns is None:
        return wanted
    # A reading's nanoseconds are cut to microseconds in SQL.
    if kind in ("COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO", "COMPARE_EQUAL"):
        wanted = replace(wanted, start_ns=max(time_ns, wanted.start_ns if wanted.start_ns is not None else time_ns))
    if kind in ("COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO", "COMPARE_EQUAL"):
        end_ns = time_ns + 999
        wanted = replace(wanted, end_ns=min(end_ns, wanted.end_ns if wanted.end_ns is not None else end_ns))
    return wanted


def _texts(node: Mapping[str, Any]) -> str | None:
    literal = node.get("literal") if node.get("class") == "CONSTANT" else None
    return str(literal["text"]) if literal and literal.get("kind") == "STRING" else None


def _time_ns(connection: duckdb.DuckDBPyConnection, node: Mapping[str, Any]) -> int | None:
    """An expression without columns, calculated; None if it is no time."""
    import duckdb

    if not sql.constants(node):
        return None
    try:
        found = connection.execute(
            f"SELECT epoch_us(CAST({sql.text_of(connection, dict(node))} AS TIMESTAMP))"
        ).fetchone()
    except duckdb.Error:
        return None
    return int(found[0]) * 1000 if found and found[0] is not None else None


def load(connection: duckdb.DuckDBPyConnection, packs: PackStore, source: Source) -> Columns:
    """Reads what waits into the connection; the answer says which typed keys all of the source has."""
    columns = batches.load(connection, packs, source.waiting)
    connection.execute(f"CREATE TABLE origins(id BIGINT, {', '.join(f'{name} VARCHAR' for name in PLACES)})")
    if source.waiting:
        rows = [[one.id, *(getattr(one, own) for own in PLACES.values())] for one in source.origins]
        connection.executemany(f"INSERT INTO origins VALUES ({', '.join('?' * (len(PLACES) + 1))})", rows)
    return schema.merged([columns, *(one.columns for one in source.lake)])


def make(connection: duckdb.DuckDBPyConnection, source: Source, columns: Columns, used: Mapping[Path, str]) -> None:
    """Makes the view `readings`, with the typed columns in `used` after Viam's."""
    groups: dict[tuple[str, ...], list[LakeFile]] = {}
    for one in source.lake:
        groups.setdefault(tuple(value_of(one, path, columns[path].type) for path in used), []).append(one)
    selects = [_waiting_rows(columns, used)]
    for typed, some in groups.items():
        addresses = ", ".join(schema.literal(one.address) for one in some)
        names = [*(f"{name}::JSON AS {name}" if name in _JSON else name for name in schema.FIXED)]
        names += [f"{value} AS {schema.identifier(name)}" for value, name in zip(typed, used.values(), strict=True)]
        deleted = [str(batch) for one in some for batch in one.deleted]
        kept = f" WHERE batch NOT IN ({', '.join(deleted)})" if deleted else ""
        selects.append(f"SELECT {', '.join(names)} FROM read_parquet([{addresses}]){kept}")
    connection.execute(f"CREATE VIEW {sql.READINGS} AS {' UNION ALL '.join(selects)}")


def _waiting_rows(columns: Columns, used: Mapping[Path, str]) -> str:
    names = [
        *PLACES,
        "requested AS time_requested",
        "received AS time_received",
        "tags",
        "parameters::JSON AS additional_parameters",
        "data",
        *(
            f"{schema.from_json('data', path, columns[path].type)} AS {schema.identifier(n)}"
            for path, n in used.items()
        ),
    ]
    return f"SELECT {', '.join(names)} FROM batch_rows JOIN origins ON origins.id = batch_rows.origin"
