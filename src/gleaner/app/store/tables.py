"""The metadata of captured data. `row` is an item's number in lists and pages; `file_id` its name outside.

What few items differ in (where and how it was captured, what kind it is) is one row of `origin`; items carry its number.
Filters and facets over those columns are decided on `origin`, which is small, and then read one covering index of `item`.
Times are nanoseconds since the epoch. An item is alive while `deleted_ns` is null; its row outlives its bytes
(`pack_id` null), so that a machine that sends the same capture again is told it is a duplicate.
"""

from __future__ import annotations

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
    sa.Index("readings_by_origin", "origin_id", "last_ns", "first_ns", "count"),
    sqlite_autoincrement=True,
)

dataset = sa.Table(
    "dataset",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("organization_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_ns", _Ns, nullable=False),
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


def insert_ignoring(table: sa.Table, dialect: str) -> sa.Insert:
    """INSERT … ON CONFLICT DO NOTHING, which both databases have under the same words."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table).on_conflict_do_nothing()


def rows_in(rows: list[int], dialect: str) -> sa.Select[tuple[int]]:
    """A list of row numbers of any length as a subquery, in one bound value."""
    import json

    text = json.dumps(rows)
    if dialect == "postgresql":
        values = sa.func.json_array_elements_text(sa.cast(text, sa.JSON)).table_valued("value")
        return sa.select(sa.cast(values.c.value, sa.BigInteger))
    return sa.select(sa.func.json_each(text).table_valued("value").c.value)
