"""The parts of a running app, built once in `assembly.py` and handed to both doors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.events import EventBus
from gleaner.app.keys import Keys
from gleaner.app.lately import Lately
from gleaner.app.settings import Settings

if TYPE_CHECKING:
    from gleaner.app.lake.compaction import Compactor
    from gleaner.app.leases import Leases
    from gleaner.app.live.links import MachineLinks
    from gleaner.app.services.auth import AuthService
    from gleaner.app.services.auth_keys import KeyService
    from gleaner.app.services.datasets import DatasetService
    from gleaner.app.services.datasets_export import DatasetExports
    from gleaner.app.services.datasets_import import DatasetImports
    from gleaner.app.services.deploy import DeployService
    from gleaner.app.services.embeddings import Embeddings
    from gleaner.app.services.fleet import FleetService
    from gleaner.app.services.install import InstallLinks
    from gleaner.app.services.items import ItemService
    from gleaner.app.services.items_upload import FileUploads
    from gleaner.app.services.jobs import TrainingService
    from gleaner.app.services.logs import LogService
    from gleaner.app.services.ml_models import MlModelService
    from gleaner.app.services.package_signing import PackageSigner
    from gleaner.app.services.packages import PackageService
    from gleaner.app.services.pipelines import PipelineService
    from gleaner.app.services.pipelines_run import PipelineRunner
    from gleaner.app.services.queries import QueryService
    from gleaner.app.services.query_indexes import QueryIndexes
    from gleaner.app.services.readings import ReadingService
    from gleaner.app.services.registry_items import RegistryItems
    from gleaner.app.services.saved_queries import SavedQueries
    from gleaner.app.services.sequences import SequenceService
    from gleaner.app.services.sequences_export import SequenceExports
    from gleaner.app.services.signed_links import SignedLinks
    from gleaner.app.services.similar_pictures import SimilarPictures
    from gleaner.app.services.tag_suggestions import TagSuggestions
    from gleaner.app.services.thumbnails import Thumbnails
    from gleaner.app.services.views import ViewService
    from gleaner.app.store.cleaning import Cleaner
    from gleaner.app.store.ingest import Ingest
    from gleaner.app.store.packs import PackStore
    from gleaner.app.store.spool import Spool

P = ParamSpec("P")
T = TypeVar("T")
# More that compute at once only take Python's lock from each other: seven switches of threads for a picture instead of three.
_COMPUTING = 1 if (os.cpu_count() or 1) < 4 else 2


@dataclass(frozen=True)
class Addresses:
    """Where the app is reached, known once it listens. `ca_certificate` is the PEM machines pin, empty without TLS."""

    web: str = ""
    grpc: str = ""
    ca_certificate: str = ""
    fingerprint: str = ""

    @property
    def tls(self) -> bool:
        return self.web.startswith("https:")


@dataclass
class AppContext:
    settings: Settings
    database: Database
    events: EventBus
    keys: Keys
    addresses: Addresses = field(default_factory=Addresses)
    leases: Leases | None = None
    """Where other processes may work on the same data."""
    #: Where blocking work of async handlers runs; `call` is the way in.
    workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(32, thread_name_prefix="app-worker"))
    computing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_COMPUTING, "app-compute"))
    #: Who sent such credentials a moment ago; the event loop's alone.
    callers: Lately[tuple[str | None, ...], Caller] = field(default_factory=Lately)
    auth: AuthService = field(init=False)
    api_keys: KeyService = field(init=False)
    fleet: FleetService = field(init=False)
    install: InstallLinks = field(init=False)
    logs: LogService = field(init=False)
    packs: PackStore = field(init=False)
    spool: Spool = field(init=False)
    ingest: Ingest = field(init=False)
    thumbnails: Thumbnails = field(init=False)
    embeddings: Embeddings = field(init=False)
    similar: SimilarPictures = field(init=False)
    suggestions: TagSuggestions = field(init=False)
    cleaner: Cleaner = field(init=False)
    items: ItemService = field(init=False)
    readings: ReadingService = field(init=False)
    compactor: Compactor = field(init=False)
    queries: QueryService = field(init=False)
    package_signer: PackageSigner = field(init=False)
    pipelines: PipelineService = field(init=False)
    pipeline_runner: PipelineRunner = field(init=False)
    saved_queries: SavedQueries = field(init=False)
    query_indexes: QueryIndexes = field(init=False)
    sequence_exports: SequenceExports = field(init=False)
    signed_links: SignedLinks = field(init=False)
    datasets: DatasetService = field(init=False)
    dataset_exports: DatasetExports = field(init=False)
    dataset_imports: DatasetImports = field(init=False)
    sequences: SequenceService = field(init=False)
    views: ViewService = field(init=False)
    file_uploads: FileUploads = field(init=False)
    jobs: TrainingService = field(init=False)
    packages: PackageService = field(init=False)
    registry_items: RegistryItems = field(init=False)
    ml_models: MlModelService = field(init=False)
    deploy: DeployService = field(init=False)
    links: MachineLinks = field(init=False)

    async def compute(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for what computes and hardly waits: checking and describing what comes in."""
        return await asyncio.get_running_loop().run_in_executor(self.computing, partial(function, *args, **kwargs))

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a blocking service method in a worker thread: the one way async code calls a service."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, partial(function, *args, **kwargs))
