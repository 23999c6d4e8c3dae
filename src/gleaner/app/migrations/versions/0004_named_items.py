"""Search in file names reads an index of the items that have one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    named = sa.text("file_name != '' AND deleted_ns IS NULL")
    op.create_index("item_by_name", "item", ["file_name"], sqlite_where=named, postgresql_where=named)
