"""Which parts make a running app, in the order they are built, started and stopped."""

from __future__ import annotations

import os
import socket
import time
import uuid

from gleaner.app.context import AppContext
from gleaner.app.database import Database
from gleaner.app.events import EventBus
from gleaner.app.keys import Keys
from gleaner.app.lake.compaction import Compactor
from gleaner.app.leases import Leases, alone
from gleaner.app.services.datasets import DatasetService
from gleaner.app.services.datasets_export import DatasetExports
from gleaner.app.services.datasets_import import DatasetImports
from gleaner.app.services.embeddings import Embeddings
from gleaner.app.services.fleet_assembly import build_fleet, build_training, start_fleet, stop_fleet
from gleaner.app.services.items import ItemService
from gleaner.app.services.items_upload import FileUploads
from gleaner.app.services.pipelines import PipelineService
from gleaner.app.services.pipelines_run import PipelineRunner
from gleaner.app.services.queries import QueryService
from gleaner.app.services.query_indexes import QueryIndexes
from gleaner.app.services.readings import ReadingService
from gleaner.app.services.retention import Retention
from gleaner.app.services.saved_queries import SavedQueries
from gleaner.app.services.sequences import SequenceService
from gleaner.app.services.sequences_export import SequenceExports
from gleaner.app.services.signed_links import SignedLinks
from gleaner.app.services.similar_pictures import SimilarPictures
from gleaner.app.services.tag_suggestions import TagSuggestions
from gleaner.app.services.thumbnails import Thumbnails
from gleaner.app.services.views import ViewService
from gleaner.app.settings import Settings
from gleaner.app.store.cleaning import Cleaner
from gleaner.app.store.ingest import Ingest
from gleaner.app.store.object_store import open_objects
from gleaner.app.store.packs import PackStore
from gleaner.app.store.recovery import SHARED_ORPHAN_S, adopt_orphans
from gleaner.app.store.spool import Spool


def build_context(settings: Settings) -> AppContext:
    """Opens keys and database and builds every service. Nothing runs yet. Raises KeyProblem."""
    keys = Keys.open(settings.data_dir, os.environ, settings.key_command)
    database = _open_database(settings, keys)
    context = AppContext(settings, database, EventBus(), keys)
    if database.engine.dialect.name != "sqlite":  # which one process has for itself
        context.leases = Leases(database, f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    build_fleet(context)
    _build_store(context)
    build_training(context)
    return context


def start_parts(context: AppContext) -> None:
    """Makes the tables, takes in what a crash left, starts threads. Runs in a worker thread; blocking is fine."""
    context.database.create_tables()
    context.packs.objects.start()
    context.spool.start()
    shared_before_ns = time.time_ns() - SHARED_ORPHAN_S * 1_000_000_000 if context.packs.objects.is_shared else None
    adopt_orphans(context.packs, context.database, before_ns=shared_before_ns)
    context.ingest.start()
    context.thumbnails.start()
    context.items.columns.start()
    if context.settings.background:
        context.cleaner.start()
        context.compactor.start()
        context.pipeline_runner.start()
        context.embeddings.start()
    start_fleet(context)


def stop_parts(context: AppContext) -> None:
    """The reverse; every upload already taken is committed and acknowledged first."""
    stop_fleet(context)
    context.pipeline_runner.stop()
    context.queries.stop()
    context.embeddings.stop()
    context.compactor.stop()
    context.cleaner.stop()
    context.items.columns.stop()
    context.ingest.stop()
    context.thumbnails.stop()


def _build_store(context: AppContext) -> None:
    settings, database, events = context.settings, context.database, context.events
    objects = open_objects(settings.store or str(settings.data_dir / "packs"), os.environ, settings.store_cache_bytes)
    context.packs = packs = PackStore(objects, database, context.keys)
    context.spool = Spool(settings.data_dir / "spool", context.keys)
    context.ingest = Ingest(packs, database, events, max_bytes_in_flight=settings.max_bytes_in_flight)
    context.items = ItemService(database, packs, events)
    context.readings = ReadingService(database, packs)
    context.compactor = Compactor(database, packs, is_busy=lambda: context.ingest.is_crowded, leases=context.leases)
    context.queries = QueryService(
        database,
        packs,
        seconds=settings.query_seconds,
        memory_mb=settings.query_memory_mb,
        at_once=settings.queries_at_once,
    )
    holding = context.leases.holding if context.leases else alone
    context.pipelines = PipelineService(database, packs)
    context.pipeline_runner = PipelineRunner(database, context.queries, context.ingest, holding=holding)
    context.saved_queries = SavedQueries(database)
    context.query_indexes = QueryIndexes(database)
    context.sequences = SequenceService(database, context.fleet)
    context.sequence_exports = sequence_exports = SequenceExports(context.sequences, context.items, context.readings)
    context.datasets = DatasetService(database, packs, events, sequence_exports.write_version)
    context.signed_links = SignedLinks(context.keys.tokens, context.items, sequence_exports)
    context.views = ViewService(database)
    context.file_uploads = FileUploads(context.ingest, context.items, context.datasets, context.fleet, time.time_ns)
    context.dataset_exports = DatasetExports(database, context.datasets, context.items)
    context.dataset_imports = DatasetImports(
        context.ingest, context.items, context.datasets, context.file_uploads, time.time_ns
    )
    context.thumbnails = Thumbnails(database, packs, context.items, is_busy=lambda: context.ingest.is_rushed)
    context.ingest.on_stored = context.thumbnails.stored
    context.embeddings = Embeddings(
        database,
        context.thumbnails,
        settings.data_dir / "embedding",
        is_busy=lambda: context.ingest.is_crowded,
        holding=context.leases.holding if context.leases else alone,
    )
    context.thumbnails.on_seen = context.embeddings.seen
    context.similar = SimilarPictures(database, context.items, context.embeddings)
    context.suggestions = TagSuggestions(database, context.embeddings, context.thumbnails)
    retention = Retention(database, packs, events, time.time_ns)
    context.cleaner = Cleaner(
        database,
        packs,
        is_busy=lambda: context.ingest.is_crowded,
        expire=retention.apply,
        holding=holding,
    )


def _open_database(settings: Settings, keys: Keys) -> Database:
    if settings.database_url:
        return Database.from_url(settings.database_url)
    return Database.sqlite(settings.data_dir / "metadata.db", keys.database)
