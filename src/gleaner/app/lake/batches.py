"""Stored batches of readings as rows in DuckDB, parsed there: Python's own parser would hold up the app's other threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from gleaner.app.lake import as_sent, schema
from gleaner.app.lake.schema import Columns
from gleaner.app.store import tables as t
from gleaner.app.store.pack_format import Position
from gleaner.app.store.packs import PackStore

if TYPE_CHECKING:
    import duckdb

_BATCH = t.readings_batch.c
_INSERT_BYTES = 4 << 20
_EMPTY = "{}"


@dataclass(frozen=True)
class Batch:
    id: int
    origin_id: int
    pack_id: int
    position: Position
    count: int
    first_ns: int
    last_ns: int
    tags: str
    """A JSON list."""
    method_parameters: str


class UnreadableBatch(Exception):
    """Its pack is gone or damaged; `gleaner app fsck` says more."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(f"the batch of readings {batch.id} cannot be read from its pack")
        self.batch = batch


def waiting(db: sa.Connection, *where: sa.ColumnElement[bool]) -> list[Batch]:
    """Batches that are in no lake file yet, oldest readings first."""
    alive = (_BATCH.lake_id.is_(None), _BATCH.deleted_ns.is_(None), _BATCH.pack_id.is_not(None))
    rows = db.execute(sa.select(t.readings_batch).where(*alive, *where).order_by(_BATCH.first_ns, _BATCH.id))
    return [
        Batch(
            one.id,
            one.origin_id,
            one.pack_id,
            Position(one.record_offset, one.body_offset, one.size_bytes),
            one._mapping["count"],
            one.first_ns,
            one.last_ns,
            one.tags,
            one.method_parameters or _EMPTY,
        )
        for one in rows
    ]


def load(connection: duckdb.DuckDBPyConnection, packs: PackStore, batches: Sequence[Batch]) -> Columns:
    """Makes the table `batch_rows` and says which keys have which types. Raises UnreadableBatch."""
    connection.execute(
        "CREATE TABLE batch_rows(batch BIGINT, origin BIGINT, requested TIMESTAMP, received TIMESTAMP, "
        "tags VARCHAR[], parameters VARCHAR, data JSON)"
    )
    connection.execute("CREATE TABLE batch_heads(id BIGINT, origin BIGINT, tags VARCHAR[], parameters VARCHAR)")
    for group in _groups(batches):
        payloads = [(one, _payload(packs, one)) for one in group]
        _load_json(connection, [one for one in payloads if not as_sent.is_as_sent(one[1])])
        _load_as_sent(connection, [one for one in payloads if as_sent.is_as_sent(one[1])])
    structures = connection.execute("SELECT DISTINCT json_structure(data)::VARCHAR FROM batch_rows").fetchall()
    return schema.columns_of(one for (one,) in structures)


def _load_json(connection: duckdb.DuckDBPyConnection, some: Sequence[tuple[Batch, bytes]]) -> None:
    if some:
        connection.execute(
            "INSERT INTO batch_rows SELECT batch, origin, make_timestamp((r ->> 0)::BIGINT // 1000), "
            "make_timestamp((r ->> 1)::BIGINT // 1000), tags::JSON::VARCHAR[], parameters, r -> 2 "
            "FROM (SELECT batch, origin, tags, parameters, unnest(json_extract(payload, '$[*]')) AS r "
            "FROM (SELECT unnest(?::BIGINT[]) AS batch, unnest(?::BIGINT[]) AS origin, unnest(?::VARCHAR[]) AS tags, "
            "unnest(?::VARCHAR[]) AS parameters, unnest(?::VARCHAR[]) AS payload))",
            [*_heads([one for one, _ in some]), [payload.decode() for _, payload in some]],
        )


def _load_as_sent(connection: duckdb.DuckDBPyConnection, some: Sequence[tuple[Batch, bytes]]) -> None:
    if some:
        connection.execute(
            "INSERT INTO batch_heads SELECT id, origin, tags::JSON::VARCHAR[], parameters FROM (SELECT "
            "unnest(?::BIGINT[]) AS id, unnest(?::BIGINT[]) AS origin, unnest(?::VARCHAR[]) AS tags, "
            "unnest(?::VARCHAR[]) AS parameters)",
            _heads([one for one, _ in some]),
        )
        try:
            as_sent.load(connection, [(one.id, payload) for one, payload in some])
        except ValueError as err:
            broken = next(one for one, payload in some if not as_sent.is_whole(payload))
            raise UnreadableBatch(broken) from err
        connection.execute("DELETE FROM batch_heads")


def _heads(some: Sequence[Batch]) -> list[list[Any]]:
    columns = ("id", "origin_id", "tags", "method_parameters")
    return [[getattr(one, name) for one in some] for name in columns]


def _payload(packs: PackStore, batch: Batch) -> bytes:
    try:
        return packs.read(batch.pack_id, batch.position)
    except (OSError, InvalidTag) as err:
        raise UnreadableBatch(batch) from err


def _groups(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    size = 0
    for one in batches:
        group.append(one)
        size += one.position.size
        if size >= _INSERT_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
