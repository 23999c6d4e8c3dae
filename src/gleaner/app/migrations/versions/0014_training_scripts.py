"""A training job may run a script of the registry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("training_job", sa.Column("script", sa.JSON))
