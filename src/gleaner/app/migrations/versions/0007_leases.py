"""Leases of work in the background. Their table is made by `Database.create_tables`."""

from __future__ import annotations

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    pass
