"""A store on real files for the fault tests, and the works whose every step is a moment to be killed at.

A number is one picture or one batch of readings; its bytes follow from it, so what comes back is checked to the byte.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from viam.proto.app.datasync import DataType, SensorData, UploadMetadata

from gleaner.app.caller import Caller, CallerKind, Grant, Role
from gleaner.app.database import Database
from gleaner.app.events import EventBus
from gleaner.app.keys import Keys
from gleaner.app.lake.compaction import Compactor
from gleaner.app.services.fleet_values import Place
from gleaner.app.services.items import ItemService
from gleaner.app.services.items_values import ItemFilter, Selection
from gleaner.app.store import tables as t
from gleaner.app.store.backup import Source, back_up, choose, restore, snapshots, verify
from gleaner.app.store.cleaning import KEEP_DELETED_S, Cleaner
from gleaner.app.store.fsck import check
from gleaner.app.store.ingest import Ingest
from gleaner.app.store.merging import FAN_IN
from gleaner.app.store.objects import LocalObjects
from gleaner.app.store.pack_format import Position
from gleaner.app.store.packs import PackStore
from gleaner.app.store.records import Upload
from gleaner.app.store.recovery import adopt_orphans, rebuild
from gleaner.app.store.rewriting import RETIRED_S
from gleaner.app.store.uploads import decode_readings, from_sensor_contents

NOW_NS = 1_790_000_000 * 1_000_000_000
NOW = dt.datetime(2026, 11, 22, 8, 30, tzinfo=dt.UTC)
PLACE = Place("part-1", "main", "machine-1", "rover", "location-1", "Lab", "org-1")
OWNER = Caller(CallerKind.USER, "user-1", "Someone", (Grant("organization", "org-1", Role.OWNER, "org-1"),))
READINGS_FROM = 1_000_000
"""Numbers from here on are batches of readings."""
Say = Callable[[int], None]


def picture_bytes(number: int) -> bytes:
    return b"\xff\xd8\xff" + number.to_bytes(8, "big") + random.Random(number).randbytes(3000 + number % 7 * 20_000)


def upload(number: int) -> Upload:
    is_readings = number >= READINGS_FROM
    metadata = UploadMetadata(
        component_type="rdk:component:sensor" if is_readings else "rdk:component:camera",
        component_name="imu" if is_readings else "cam",
        method_name="Readings" if is_readings else "ReadImage",
        type=DataType.DATA_TYPE_TABULAR_SENSOR if is_readings else DataType.DATA_TYPE_BINARY_SENSOR,
        tags=[f"tag-{number % 3}"],
    )
    one = SensorData()
    one.metadata.time_requested.seconds = 1_700_000_000 + number
    if is_readings:
        one.struct.update({"readings": {"n": number}})
    else:
        one.binary = picture_bytes(number)
    return from_sensor_contents(metadata, [one], PLACE, NOW_NS)


@dataclass
class World:
    folder: Path
    keys: Keys
    database: Database
    packs: PackStore
    ingest: Ingest
    items: ItemService

    def add(self, numbers: Sequence[int], say: Say = lambda _: None) -> None:
        futures = [(number, self.ingest.submit(upload(number))) for number in numbers]
        for number, future in futures:
            future.result(30)
            say(number)

    def cleaner(self, later_s: float = 0.0) -> tuple[Cleaner, Callable[[float], None]]:
        """With a clock that much later, and what moves its stopwatch on."""
        watch = [0.0]
        cleaner = Cleaner(
            self.database, self.packs, lambda: NOW_NS + int(later_s * 1e9), lambda: watch[0], is_busy=lambda: False
        )
        return cleaner, lambda seconds: watch.__setitem__(0, watch[0] + seconds)

    def numbers(self) -> list[int]:
        """Of everything stored, each read and compared to the byte."""
        found = []
        for row in self.items.rows(OWNER, ItemFilter()):
            content = self.items.content(OWNER, row).all()
            number = int.from_bytes(content[3:11], "big")
            assert content == picture_bytes(number)
            found.append(number)
        with self.database.read() as db:
            batch = t.readings_batch
            places = db.execute(
                sa.select(batch.c.pack_id, batch.c.record_offset, batch.c.body_offset, batch.c.size_bytes).where(
                    batch.c.deleted_ns.is_(None)
                )
            ).all()
        for pack_id, *position in places:
            [(_, _, data)] = decode_readings(self.packs.read(pack_id, Position(*position)))
            found.append(int(data["readings"]["n"]))
        return sorted(found)

    def check(self) -> None:
        report = check(self.packs, self.database, deep=True)
        assert report.is_healthy, report.findings
        with self.database.read() as db:
            lake = db.execute(sa.select(sa.func.sum(t.lake_file.c.count))).scalar() or 0
            of_batches = db.scalar(
                sa.select(sa.func.sum(t.readings_batch.c.count)).where(t.readings_batch.c.lake_id.is_not(None))
            )
        assert lake == (of_batches or 0), "a reading is in the lake twice or is missing from it"


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[World]:
    """As the app starts: schema, leftovers, orphans, ingest."""
    keys = Keys.open(folder, {})
    database = Database.sqlite(folder / "metadata.db", keys.database)
    try:
        database.create_tables()
        packs = PackStore(LocalObjects(folder / "packs"), database, keys)
        packs.objects.start()
        adopt_orphans(packs, database)
        ingest = Ingest(packs, database, EventBus(), clock_ns=lambda: NOW_NS)
        ingest.start()
        try:
            items = ItemService(database, packs, EventBus(), lambda: NOW_NS)
            yield World(folder, keys, database, packs, ingest, items)
        finally:
            ingest.stop()
    finally:
        database.close()


@dataclass(frozen=True)
class Work:
    """`prepare` makes the store it begins with; `run` is killed at some step, and again until it has ended.

    `stored` says what must be there afterwards, given the numbers that were acknowledged, and what may be.
    """

    prepare: Callable[[World], None]
    run: Callable[[Path, Say], None]
    must: frozenset[int]
    may: frozenset[int] = frozenset()


SMALL = range(10)
BATCHES = range(READINGS_FROM, READINGS_FROM + 6)
DELETED = frozenset({1, 4, 5})
MANY = range(FAN_IN)


def _nothing(_: World) -> None:
    """An empty store."""


def _some(world: World) -> None:
    world.add([*SMALL[:5], *BATCHES[:3]])
    world.add([*SMALL[5:], *BATCHES[3:]])


def _with_deleted(world: World) -> None:
    _some(world)
    rows = world.items.rows(OWNER, ItemFilter())
    number_of = {row: int.from_bytes(world.items.content(OWNER, row).all()[3:11], "big") for row in rows}
    world.items.delete(OWNER, Selection(rows=tuple(row for row, number in number_of.items() if number in DELETED)))


def _many_packs(world: World) -> None:
    for number in MANY:
        world.add([number])
    world.add(BATCHES)


def _ingest(folder: Path, say: Say) -> None:
    with opened(folder) as world:
        for start in range(0, 12, 4):
            world.add([*range(start, start + 4), READINGS_FROM + start], say)


def _clean(folder: Path, say: Say) -> None:
    with opened(folder) as world:
        cleaner, wait = world.cleaner(KEEP_DELETED_S + 60)
        cleaner.clean()
        wait(RETIRED_S)
        cleaner.clean()


def _compact(folder: Path, say: Say) -> None:
    with opened(folder) as world:
        Compactor(world.database, world.packs, lambda: NOW_NS).compact(everything=True)


def _back_up(folder: Path, say: Say) -> None:
    with opened(folder) as world:
        for _ in range(2):
            source = Source(
                world.folder, world.database, world.packs.objects, world.keys, LocalObjects(world.folder / "packages")
            )
            taken = [dt.datetime.strptime(name, "%Y-%m-%dT%H%M%S.%f%z") for name in snapshots(backup_of(folder))]
            back_up(source, backup_of(folder), max([NOW, *taken]) + dt.timedelta(minutes=1), keep=1)


def _restore(folder: Path, say: Say) -> None:
    """The store is lost; only its backup and its key are there."""
    backup, lost = backup_of(folder), folder.with_name("lost")
    if not snapshots(backup):
        with opened(folder) as world:
            back_up(
                Source(
                    world.folder,
                    world.database,
                    world.packs.objects,
                    world.keys,
                    LocalObjects(world.folder / "packages"),
                ),
                backup,
                NOW,
            )
    if not lost.exists():
        folder.rename(lost)
    if not folder.exists():
        restore(backup, choose(backup), folder)
    shutil.copy(lost / "keys" / "kek", folder / "keys" / "kek")


def _rotate(folder: Path, say: Say) -> None:
    keys = Keys.open(folder, {})
    keys.rotated(folder, bytes(range(32))).take_over(folder)
    with opened(folder) as world:
        world.add([max(SMALL) + 1], say)


def _rebuild(folder: Path, say: Say) -> None:
    """The metadata is lost."""
    done = folder / "lost.db"
    if not done.exists():
        (folder / "metadata.db").rename(done)
        for left in folder.glob("metadata.db-*"):
            left.unlink()
    keys = Keys.open(folder, {})
    database = Database.sqlite(folder / "metadata.db", keys.database)
    try:
        database.create_tables()
        rebuild(PackStore(LocalObjects(folder / "packs"), database, keys), database, lambda _: None)
    finally:
        database.close()


ALL = frozenset({*SMALL, *BATCHES})
WORKS = {
    "ingest": Work(_nothing, _ingest, frozenset(), frozenset({*range(12), *(READINGS_FROM + s for s in (0, 4, 8))})),
    "free": Work(_with_deleted, _clean, ALL - DELETED),
    "merge": Work(_many_packs, _clean, frozenset({*MANY, *BATCHES})),
    "compact": Work(_some, _compact, ALL),
    "backup": Work(_some, _back_up, ALL),
    "restore": Work(_some, _restore, ALL),
    "rotate": Work(_some, _rotate, ALL, frozenset({max(SMALL) + 1})),
    "rebuild": Work(_some, _rebuild, ALL),
}


def backup_of(folder: Path) -> Path:
    return folder.with_name("backup")


def check_backup(folder: Path, target: Path) -> None:
    """Every snapshot is whole, and the newest comes back."""
    backup = backup_of(folder)
    for name in snapshots(backup):
        assert verify(backup, choose(backup, name)) == []
    if snapshots(backup):
        restore(backup, choose(backup), target)
        shutil.copy(folder / "keys" / "kek", target / "keys" / "kek")
        with opened(target) as world:
            assert set(world.numbers()) == ALL
            world.check()
        shutil.rmtree(target)


def as_line(**values: object) -> bytes:
    return json.dumps(values).encode() + b"\n"
