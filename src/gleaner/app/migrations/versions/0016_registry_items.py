"""What is said about a model or a training script beside its versions. Its table is made by `Database.create_tables`."""

from __future__ import annotations

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    pass
