"""The metadata of captured data. `row` is an item's number in lists and pages; `file_id` its name outside.

What few items differ in (where and how it was captured, what kind it is) is one row of `origin`; items carry its number.
Filters and facets over those columns are decided on `origin`, which is small, and then read one covering index of `item`.
Times are nanoseconds since the epoch. An item is alive while `deleted_ns` is null; its row outlives its bytes
(`pack_id` null), so that a machine that sends the same capture again is told it is a duplicate.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from gleaner.app.database import metadata

_Ns = sa.BigInteger
# SQLite gives row numbers only to INTEGER primary keys.
_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")

ORIGIN_KEY = (
    "organization_id",
    "location_id",
    "machine_id",
    "part_id",
    "component_type",
    "component_name",
    "method",
    "mime_type",
    "kind",
)
ORIGIN_NAMES = ("location_name", "machine_name", "part_name")

origin = sa.Table(
    "origin",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ORIGIN_KEY + ORIGIN_NAMES),
    sa.UniqueConstraint(*ORIGIN_KEY),
)

pack = sa.Table(
    "pack",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
    sa.Column("records", sa.Integer, nullable=False),
    sa.Column("created_ns", _Ns, nullable=False),
)


def _stored_columns() -> list[sa.Column[object]]:
    """Where a record's bytes are, and what makes it the same upload as another."""
    return [
        sa.Column("file_id", sa.Text, nullable=False, unique=True),
        sa.Column("idempotency_key", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("origin_id", _Id, sa.ForeignKey("origin.id"), nullable=False),
        sa.Column("pack_id", _Id, sa.ForeignKey("pack.id"), index=True),
        sa.Column("record_offset", _Ns, nullable=False),
        sa.Column("body_offset", _Ns, nullable=False),
        sa.Column("size_bytes", _Ns, nullable=False),
        sa.Column("synced_ns", _Ns, nullable=False),
        sa.Column("deleted_ns", _Ns),
        sa.Column("method_parameters", sa.Text, nullable=False),
    ]


item = sa.Table(
    "item",
    metadata,
    sa.Column("row", _Id, primary_key=True),
    *_stored_columns(),
    sa.Column("captured_ns", _Ns, nullable=False),
    sa.Column("received_ns", _Ns, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("file_name", sa.Text, nullable=False),
    sa.Column("file_ext", sa.Text, nullable=False),
    sa.Column("tag_count", sa.Integer, nullable=False),
    sa.Column("classifications", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
_alive = item.c.deleted_ns.is_(None)
sa.Index(
    "item_by_time",
    item.c.captured_ns,
    item.c.row,
    item.c.origin_id,
    item.c.tag_count,
    item.c.size_bytes,
    sqlite_where=_alive,
    postgresql_where=_alive,
)
sa.Index(
    "item_by_origin",
    item.c.origin_id,
    item.c.captured_ns,
    item.c.row,
    item.c.tag_count,
    item.c.size_bytes,
    sqlite_where=_alive,
    postgresql_where=_alive,
)
_deleted = item.c.deleted_ns.is_not(None)
_named = sa.and_(item.c.file_name != "", _alive)
sa.Index("item_by_name", item.c.file_name, sqlite_where=_named, postgresql_where=_named)
sa.Index("item_deleted", item.c.deleted_ns, item.c.pack_id, sqlite_where=_deleted, postgresql_where=_deleted)

item_tag = sa.Table(
    "item_tag",
    metadata,
    sa.Column("row", _Id, sa.ForeignKey("item.row", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag", sa.Text, primary_key=True),
    sa.Index("item_tag_by_tag", "tag", "row"),
    sqlite_with_rowid=False,
)

item_box = sa.Table(
    "item_box",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("row", _Id, sa.ForeignKey("item.row", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("label", sa.Text, nullable=False),
    *(sa.Column(name, sa.Double, nullable=False) for name in ("x_min", "y_min", "x_max", "y_max")),
    sa.Column("confidence", sa.Double),
    sa.Index("item_box_by_label", "label", "row"),
)

thumbnail = sa.Table(
    "thumbnail",
    metadata,
    sa.Column("row", _Id, sa.ForeignKey("item.row", ondelete="CASCADE"), primary_key=True),
    sa.Column("pack_id", _Id, sa.ForeignKey("pack.id"), nullable=False, index=True),
    sa.Column("record_offset", _Ns, nullable=False),
    sa.Column("body_offset", _Ns, nullable=False),
    sa.Column("size_bytes", _Ns, nullable=False),
)

# What a picture looks like: `services/picture_hash.py`, and the row that stands for all that look alike there.
item_hash = sa.Table(
    "item_hash",
    metadata,
    sa.Column("row", _Id, sa.ForeignKey("item.row", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    # The bits as a signed number. `alike` 0: the picture could not be decoded, the hash says nothing.
    sa.Column("hash", sa.BigInteger, nullable=False),
    sa.Column("alike", _Id, nullable=False),
)

# What a picture looks like to the backbone, as float16: `services/embeddings.py`. Of another version: made anew.
item_embedding = sa.Table(
    "item_embedding",
    metadata,
    sa.Column("row", _Id, sa.ForeignKey("item.row", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
    sa.Index("item_embedding_by_version", "version", "row"),  # which there are, without reading them
)

readings_batch = sa.Table(
    "readings_batch",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    *_stored_columns(),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("first_ns", _Ns, nullable=False),
    sa.Column("last_ns", _Ns, nullable=False),
    sa.Column("latest", sa.Text, nullable=False),
    sa.Column("tags", sa.Text, nullable=False),
    # The lake file that has it too; no foreign key, so that a file can be replaced in any order.
    sa.Column("lake_id", _Id),
    sa.Index("readings_by_origin", "origin_id", "last_ns", "first_ns", "count"),
    sa.Index("readings_by_lake", "lake_id", "deleted_ns"),
    sqlite_autoincrement=True,
)
_waiting = sa.and_(readings_batch.c.lake_id.is_(None), readings_batch.c.deleted_ns.is_(None))
sa.Index(
    "readings_waiting",
    readings_batch.c.origin_id,
    readings_batch.c.synced_ns,
    readings_batch.c.count,
    sqlite_where=_waiting,
    postgresql_where=_waiting,
)

# Readings of one origin as Parquet, in a pack like everything else. `columns`: `lake/schema.py`, as JSON.
lake_file = sa.Table(
    "lake_file",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("origin_id", _Id, sa.ForeignKey("origin.id"), nullable=False, index=True),
    sa.Column("pack_id", _Id, sa.ForeignKey("pack.id"), nullable=False, index=True),
    sa.Column("record_offset", _Ns, nullable=False),
    sa.Column("body_offset", _Ns, nullable=False),
    sa.Column("size_bytes", _Ns, nullable=False),
    sa.Column("count", _Ns, nullable=False),
    sa.Column("first_ns", _Ns, nullable=False),
    sa.Column("last_ns", _Ns, nullable=False),
    sa.Column("columns", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)

# What was deleted or brought back, in a pack like everything else (`store/deletions.py`).
deletion = sa.Table(
    "deletion",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("pack_id", _Id, sa.ForeignKey("pack.id"), nullable=False, index=True),
    sa.Column("record_offset", _Ns, nullable=False),
    sa.Column("body_offset", _Ns, nullable=False),
    sa.Column("size_bytes", _Ns, nullable=False),
    sa.Column("at_ns", _Ns, nullable=False),
    sqlite_autoincrement=True,
)

dataset = sa.Table(
    "dataset",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("organization_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_ns", _Ns, nullable=False),
    sa.Column("type", sa.Text, nullable=False, server_default="binary"),
    sa.UniqueConstraint("organization_id", "name"),
)

dataset_item = sa.Table(
    "dataset_item",
    metadata,
    sa.Column("dataset_id", sa.Text, sa.ForeignKey("dataset.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("row", _Id, sa.ForeignKey("item.row", ondelete="CASCADE"), primary_key=True),
    sa.Index("dataset_item_by_row", "row"),
    sqlite_with_rowid=False,
)

# A filter of the data pages under a name: the query string of the page's address.
saved_view = sa.Table(
    "saved_view",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("organization_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("query", sa.Text, nullable=False),
    sa.Column("created_ns", _Ns, nullable=False),
    sa.UniqueConstraint("organization_id", "name"),
)

# A question about the data under a name. `stages`: a pipeline's BSON documents, one behind the other, or empty; `text`: SQL,
# or the pipeline as somebody typed it.
saved_query = sa.Table(
    "saved_query",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("organization_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("stages", sa.LargeBinary, nullable=False),
    sa.Column("created_ns", _Ns, nullable=False),
    sa.Column("updated_ns", _Ns, nullable=False),
    sa.UniqueConstraint("organization_id", "name"),
)

# Indexes that clients of Viam's asked for: recorded and listed; nothing is built (`services/query_indexes.py`).
query_index = sa.Table(
    "query_index",
    metadata,
    sa.Column("organization_id", sa.Text, primary_key=True),
    sa.Column("collection", sa.Text, primary_key=True),
    sa.Column("pipeline_name", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("fields", sa.Text, nullable=False),
    sa.Column("options", sa.Text, nullable=False),
    sa.Column("created_ns", _Ns, nullable=False),
)

# A stretch of time of one part. Like an item's, its row outlives its deletion: sent again, it is a duplicate.
sequence = sa.Table(
    "sequence",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("organization_id", "location_id", "machine_id", "part_id")),
    sa.Column("resources", sa.Text, nullable=False),
    sa.Column("tags", sa.Text, nullable=False),
    *(sa.Column(name, _Ns, nullable=False) for name in ("start_ns", "end_ns", "created_ns", "updated_ns")),
    sa.Column("deleted_ns", _Ns),
    sa.Index("sequence_by_time", "organization_id", "start_ns", "id"),
)

dataset_sequence = sa.Table(
    "dataset_sequence",
    metadata,
    sa.Column("dataset_id", sa.Text, sa.ForeignKey("dataset.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("sequence_id", sa.Text, sa.ForeignKey("sequence.id", ondelete="CASCADE"), primary_key=True),
    sa.Index("dataset_sequence_by_sequence", "sequence_id"),
)

# A version is written once and never changed. It outlives its dataset, because models name it.
dataset_version = sa.Table(
    "dataset_version",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("dataset_id", sa.Text, nullable=False),
    sa.Column("dataset_name", sa.Text, nullable=False),
    sa.Column("organization_id", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_ns", _Ns, nullable=False),
    sa.Column("item_count", sa.Integer, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.UniqueConstraint("dataset_id", "version"),
)

dataset_version_item = sa.Table(
    "dataset_version_item",
    metadata,
    sa.Column("version_id", sa.Text, sa.ForeignKey("dataset_version.id"), primary_key=True),
    sa.Column("row", _Id, primary_key=True),
    sa.Column("annotations", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

# Of a dataset of sequences: what each covered then, as JSON. It outlives the sequence, like an item's row.
dataset_version_sequence = sa.Table(
    "dataset_version_sequence",
    metadata,
    sa.Column("version_id", sa.Text, sa.ForeignKey("dataset_version.id"), primary_key=True),
    sa.Column("sequence_id", sa.Text, primary_key=True),
    sa.Column("covers", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)


def insert_ignoring(table: sa.Table, dialect: str) -> sa.Insert:
    """INSERT … ON CONFLICT DO NOTHING, which both databases have under the same words."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table).on_conflict_do_nothing()


def rows_in(rows: list[int], dialect: str) -> sa.Select[tuple[int]]:
    """A list of row numbers of any length as a subquery, in one bound value."""
    return rows_bound(None, dialect, bound_rows(rows, dialect))


def rows_bound(name: str | None, dialect: str, value: Any = None) -> sa.Select[tuple[int]]:
    """As `rows_in`, of `bound_rows` that are given when the statement is run."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import ARRAY

        array = sa.bindparam(name, value, ARRAY(sa.BigInteger), unique=name is None)
        return sa.select(sa.func.unnest(array).column_valued("value"))
    text = sa.bindparam(name, value, sa.Text, unique=name is None)
    return sa.select(sa.func.json_each(text).table_valued("value").c.value)


def bound_rows(rows: Sequence[int], dialect: str) -> Any:
    return list(rows) if dialect == "postgresql" else json.dumps(list(rows))
