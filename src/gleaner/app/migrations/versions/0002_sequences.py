"""Sequences, and datasets of them. The new tables are made by `Database.create_tables`, as in every new database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("dataset", sa.Column("type", sa.Text, nullable=False, server_default="binary"))
