"""The tables of Gleaner 0.1. New databases are made from the declared tables directly and stamped with this revision."""

from __future__ import annotations

from alembic import op

from gleaner.app.database import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    metadata.create_all(op.get_bind())
