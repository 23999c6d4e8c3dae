"""The parts of a running app, built once in `server.py` and handed to both doors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gleaner.app.database import Database
from gleaner.app.events import EventBus
from gleaner.app.settings import Settings

if TYPE_CHECKING:
    from gleaner.app.live.links import MachineLinks
    from gleaner.app.services.auth import AuthService
    from gleaner.app.services.datasets import DatasetService
    from gleaner.app.services.fleet import FleetService
    from gleaner.app.services.items import ItemService
    from gleaner.app.services.jobs import TrainingService
    from gleaner.app.services.logs import LogService
    from gleaner.app.services.packages import PackageService
    from gleaner.app.services.readings import ReadingService
    from gleaner.app.store.ingest import Ingest
    from gleaner.app.store.packs import PackStore


@dataclass
class AppContext:
    settings: Settings
    database: Database
    events: EventBus
    auth: AuthService = field(init=False)
    fleet: FleetService = field(init=False)
    logs: LogService = field(init=False)
    packs: PackStore = field(init=False)
    ingest: Ingest = field(init=False)
    items: ItemService = field(init=False)
    readings: ReadingService = field(init=False)
    datasets: DatasetService = field(init=False)
    jobs: TrainingService = field(init=False)
    packages: PackageService = field(init=False)
    links: MachineLinks = field(init=False)
