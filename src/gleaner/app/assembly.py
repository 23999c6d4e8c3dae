"""Which parts make a running app, in the order they are built, started and stopped."""

from __future__ import annotations

import os
import time

from gleaner.app.context import AppContext
from gleaner.app.database import Database
from gleaner.app.events import EventBus
from gleaner.app.keys import Keys
from gleaner.app.services.datasets import DatasetService
from gleaner.app.services.fleet_assembly import build_fleet, build_training, start_fleet, stop_fleet
from gleaner.app.services.items import ItemService
from gleaner.app.services.items_upload import FileUploads
from gleaner.app.services.readings import ReadingService
from gleaner.app.services.thumbnails import Thumbnails
from gleaner.app.settings import Settings
from gleaner.app.store.cleaning import Cleaner
from gleaner.app.store.ingest import Ingest
from gleaner.app.store.objects import LocalObjects
from gleaner.app.store.packs import PackStore
from gleaner.app.store.recovery import adopt_orphans
from gleaner.app.store.spool import Spool


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
    """Makes the tables, takes in what a crash left, starts threads. Runs in a worker thread; blocking is fine."""
    context.database.create_tables()
    context.packs.objects.start()
    context.spool.start()
    adopt_orphans(context.packs, context.database)
    context.ingest.start()
    context.thumbnails.start()
    context.cleaner.start()
    start_fleet(context)


def stop_parts(context: AppContext) -> None:
    """The reverse; every upload already taken is committed and acknowledged first."""
    stop_fleet(context)
    context.cleaner.stop()
    context.ingest.stop()
    context.thumbnails.stop()


def _build_store(context: AppContext) -> None:
    settings, database, events = context.settings, context.database, context.events
    context.packs = packs = PackStore(LocalObjects(settings.data_dir / "packs"), database, context.keys)
    context.spool = Spool(settings.data_dir / "spool", context.keys)
    context.ingest = Ingest(packs, database, events, max_bytes_in_flight=settings.max_bytes_in_flight)
    context.items = ItemService(database, packs, events)
    context.readings = ReadingService(database, packs)
    context.datasets = DatasetService(database, packs, events)
    context.file_uploads = FileUploads(context.ingest, context.items, context.datasets, context.fleet, time.time_ns)
    context.thumbnails = Thumbnails(database, packs, context.items, is_busy=lambda: context.ingest.is_crowded)
    context.ingest.on_stored = context.thumbnails.stored
    context.cleaner = Cleaner(database, packs)


def _open_database(settings: Settings, keys: Keys) -> Database:
    if settings.database_url:
        return Database.from_url(settings.database_url)
    return Database.sqlite(settings.data_dir / "metadata.db", keys.database)
