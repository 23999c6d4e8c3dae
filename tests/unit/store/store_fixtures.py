"""A store on real files: keys, encrypted SQLite, packs, ingest; and uploads to put into it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from viam.proto.app.datasync import DataType, SensorData, UploadMetadata

from gleaner.app.caller import Caller, CallerKind, Grant, Role
from gleaner.app.database import Database
from gleaner.app.events import EventBus
from gleaner.app.keys import Keys
from gleaner.app.services.datasets import DatasetService
from gleaner.app.services.fleet_values import Place
from gleaner.app.services.items import ItemService
from gleaner.app.services.readings import ReadingService
from gleaner.app.store import deletions
from gleaner.app.store.ingest import Ingest, Receipt
from gleaner.app.store.object_store import Objects
from gleaner.app.store.objects import LocalObjects
from gleaner.app.store.packs import PackStore
from gleaner.app.store.payload import MemoryPayload
from gleaner.app.store.records import Upload
from gleaner.app.store.spool import Spool
from gleaner.app.store.uploads import from_file, from_sensor_contents

#: Of a test that takes `store`. Not all of them: what packs hold is the same wherever they lie.
also_in_a_bucket = pytest.mark.parametrize("store", ["sqlite", "postgresql", "s3"], indirect=True)

NOW_NS = 1_790_000_000 * 1_000_000_000
PLACE = Place("part-1", "rover-main", "machine-1", "rover", "location-1", "Lab", "org-1")
OTHER_PLACE = Place("part-2", "arm-main", "machine-2", "arm", "location-2", "Hall", "org-1")
FOREIGN_PLACE = Place("part-3", "theirs-main", "machine-3", "theirs", "location-3", "Elsewhere", "org-2")


def user(resource_type: str, resource_id: str, role: Role, organization_id: str = "org-1") -> Caller:
    return Caller(CallerKind.USER, "user-1", "Someone", (Grant(resource_type, resource_id, role, organization_id),))


OWNER = user("organization", "org-1", Role.OWNER)
OPERATOR = user("organization", "org-1", Role.OPERATOR)
LAB_OWNER = user("location", "location-1", Role.OWNER)


@dataclass
class Clock:
    now_ns: int = NOW_NS
    _ticks: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __call__(self) -> int:
        return self.now_ns + next(self._ticks)

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


@dataclass
class Store:
    folder: Path
    keys: Keys
    database: Database
    events: EventBus
    packs: PackStore
    spool: Spool
    ingest: Ingest
    items: ItemService
    readings: ReadingService
    datasets: DatasetService
    clock: Clock

    def add(self, *uploads: Upload) -> list[Receipt]:
        futures = [self.ingest.submit(upload) for upload in uploads]
        return [future.result(30) for future in futures]

    def pack_names(self) -> list[str]:
        return sorted(self.packs.objects.names())

    def upload_packs(self) -> list[str]:
        """Without those that hold only notes of deletions."""
        return [name for name in self.pack_names() if not self._is_note(name)]

    def _is_note(self, name: str) -> bool:
        _, found = self.packs.scan(name, check_bodies=False)
        return bool(found) and all(record.header["record"] == deletions.RECORD for record in found)


def open_store(folder: Path, database_url: str = "", objects: Objects | None = None) -> Store:
    clock = Clock()
    keys = Keys.open(folder, {})
    database = (
        Database.from_url(database_url) if database_url else Database.sqlite(folder / "metadata.db", keys.database)
    )
    database.create_tables()
    events = EventBus()
    packs = PackStore(objects or LocalObjects(folder / "packs"), database, keys)
    spool = Spool(folder / "spool", keys)
    spool.start()
    ingest = Ingest(packs, database, events, clock_ns=clock)
    items = ItemService(database, packs, events, clock)
    datasets = DatasetService(database, packs, events, lambda version_id, folder: 0, clock)
    return Store(
        folder, keys, database, events, packs, spool, ingest, items, ReadingService(database, packs), datasets, clock
    )


def picture(
    number: int,
    *,
    place: Place = PLACE,
    component: str = "cam",
    tags: tuple[str, ...] = (),
    dataset_ids: tuple[str, ...] = (),
    content: bytes = b"",
) -> Upload:
    """A camera capture of second `number`, with bytes of its own."""
    content = content or b"\xff\xd8\xff picture %d" % number
    sensor = SensorData(binary=content)
    sensor.metadata.time_requested.seconds = 1_700_000_000 + number
    sensor.metadata.time_received.seconds = 1_700_000_001 + number
    metadata = UploadMetadata(
        component_type="rdk:component:camera",
        component_name=component,
        method_name="ReadImage",
        type=DataType.DATA_TYPE_BINARY_SENSOR,
        tags=tags,
        dataset_ids=dataset_ids,
        mime_type="image/jpeg",
    )
    return from_sensor_contents(metadata, [sensor], place, NOW_NS)


def readings(first: int, count: int, *, place: Place = PLACE, component: str = "sensor") -> Upload:
    contents = []
    for number in range(first, first + count):
        one = SensorData()
        one.metadata.time_requested.seconds = 1_700_000_000 + number
        one.metadata.time_received.seconds = 1_700_000_000 + number
        one.struct.update({"readings": {"value": float(number)}})
        contents.append(one)
    metadata = UploadMetadata(
        component_type="rdk:component:sensor",
        component_name=component,
        method_name="Readings",
        type=DataType.DATA_TYPE_TABULAR_SENSOR,
    )
    return from_sensor_contents(metadata, contents, place, NOW_NS)


def text_file(name: str, content: bytes, *, revive: bool = False) -> Upload:
    metadata = UploadMetadata(type=DataType.DATA_TYPE_FILE, file_name=name)
    return from_file(metadata, MemoryPayload(content), PLACE, NOW_NS, revive=revive)
