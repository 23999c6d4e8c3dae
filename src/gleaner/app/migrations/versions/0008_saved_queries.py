"""Saved queries and the indexes clients asked for. Their tables are made by `Database.create_tables`."""

from __future__ import annotations

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    pass
