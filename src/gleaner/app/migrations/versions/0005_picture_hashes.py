"""Perceptual hashes. Their table is made by `Database.create_tables`; hashes of older pictures in the background."""

from __future__ import annotations

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    pass
