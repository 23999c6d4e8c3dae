"""Saved views. Their table is made by `Database.create_tables`, as in every new database."""

from __future__ import annotations

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    pass
