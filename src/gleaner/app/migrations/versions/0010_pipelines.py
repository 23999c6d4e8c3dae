"""Data pipelines and their runs. Their tables are made by `Database.create_tables`."""

from __future__ import annotations

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    pass
