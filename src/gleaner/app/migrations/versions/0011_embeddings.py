"""What pictures look like to the backbone. Its table is made by `Database.create_tables`."""

from __future__ import annotations

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    pass
