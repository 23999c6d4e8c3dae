"""A training job may start from somebody else's backbone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("training_job", sa.Column("backbone", sa.JSON))
