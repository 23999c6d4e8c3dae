"""Notes of deletions beside the packs. Their table is made by `Database.create_tables`."""

from __future__ import annotations

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    pass
