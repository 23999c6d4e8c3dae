"""The lake of readings. Its table is made by `Database.create_tables`, as in every new database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("readings_batch", sa.Column("lake_id", sa.BigInteger))
    op.create_index(
        "readings_waiting",
        "readings_batch",
        ["origin_id", "synced_ns", "count"],
        sqlite_where=sa.text("lake_id IS NULL AND deleted_ns IS NULL"),
        postgresql_where=sa.text("lake_id IS NULL AND deleted_ns IS NULL"),
    )
    op.create_index("readings_by_lake", "readings_batch", ["lake_id", "deleted_ns"])
