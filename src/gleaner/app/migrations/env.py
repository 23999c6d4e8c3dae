"""Run by Alembic, from `Database.create_tables` with the app's own (encrypted) engine."""

from __future__ import annotations

from alembic import context

from gleaner.app.database import metadata

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
