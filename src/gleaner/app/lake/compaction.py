"""Turns stored batches of readings into Parquet, one file per series, and small files into larger ones.

The batches in the packs stay the truth: a lake file can always be made again from them, and is what queries read.
A batch counts through exactly one door: its `lake_id` names the file that has it, or it is read from its pack. Steps of
every round: write the pack with the new file (durable), then one metadata transaction that adds the file, points the
batches at it and forgets the files it replaces. A crash before it leaves an orphan pack, removed at the next start; after
it, records nothing names any more, whose packs the cleaner (`store/cleaning.py`) retires and later removes, so that a
query that has just begun still finds them.

Readings deleted more than 24 hours ago leave the files with them: a file that holds any is written anew.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.lake import batches, files, schema
from gleaner.app.lake.batches import Batch, UnreadableBatch
from gleaner.app.lake.engine import caged
from gleaner.app.lake.files import LakeFile
from gleaner.app.lake.mending import Rounds, mend
from gleaner.app.lake.schema import Columns
from gleaner.app.leases import LeaseLost, Leases, alone, never_lost
from gleaner.app.repeating import GivingWay, Repeating
from gleaner.app.store import tables as t
from gleaner.app.store.cleaning import KEEP_DELETED_S
from gleaner.app.store.packs import PackRecord, PackStore
from gleaner.app.store.payload import CHUNK_BYTES

LEASE = "compaction"
DUE_ROWS = 20_000
DUE_AGE_S = 300.0
_EVERY_S = 15.0
_GIVES_WAY_S = 120.0
_FILE_BATCH_BYTES = 48 << 20
"""Batches of one new file: with DuckDB's copies about 300 MB."""
_MEMORY_MB = 512
FAN_IN = 8
"""So many files of one size make one of the next. A reading is rewritten about log8(readings of its series / 20,000) times."""
_TIERS = (160_000, 1_280_000, 10_000_000)
_BATCH = t.readings_batch.c

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compacted:
    readings: int
    files: int
    merged: int


class Compactor:
    """start() → running → stop()."""

    def __init__(
        self,
        database: Database,
        packs: PackStore,
        clock_ns: Callable[[], int] = time.time_ns,
        is_busy: Callable[[], bool] = lambda: False,
        leases: Leases | None = None,
    ) -> None:
        """`leases`: of several processes on one store, one compacts at a time."""
        self._holding = leases.holding if leases else alone
        self._require = leases.require if leases else never_lost
        self._database = database
        self._packs = packs
        self._clock_ns = clock_ns
        self._turn = GivingWay(is_busy, _GIVES_WAY_S)
        self._broken: set[int] = set()
        self._repeating = Repeating("lake", self._take_turn, _EVERY_S, at_start=False, what="Compacting readings")
        self._rounds = Rounds(database, packs, clock_ns)

    def start(self) -> None:
        self._repeating.start()

    def stop(self) -> None:
        self._repeating.stop()

    def compact(self, *, everything: bool = False) -> Compacted:
        """One pass over the series that are due, or over all."""
        readings = made = 0
        for origin_id in self._due(everything):
            while not self._repeating.is_stopping and (chosen := self._chosen(origin_id)):
                if not self._compact(origin_id, chosen):
                    break
                readings += sum(one.count for one in chosen)
                made += 1
        merged = 0
        while not self._repeating.is_stopping and (group := self._mergeable()):
            if self._merge(group):
                merged += len(group)
        return Compacted(readings, made, merged)

    def _take_turn(self) -> None:
        if self._turn.should_wait():
            return
        try:
            with self._holding(LEASE) as is_ours:
                if is_ours:
                    self.compact()
                    self._rounds.look_at_next()
        except LeaseLost as err:
            log.warning("%s", err)
        self._turn.done()

    # From batches

    def _due(self, everything: bool) -> list[int]:
        oldest_ns = self._clock_ns() - int(DUE_AGE_S * 1e9)
        query = (
            sa.select(_BATCH.origin_id, sa.func.sum(_BATCH.count), sa.func.min(_BATCH.synced_ns))
            .where(_BATCH.lake_id.is_(None), _BATCH.deleted_ns.is_(None))
            .group_by(_BATCH.origin_id)
        )
        with self._database.read() as db:
            found = db.execute(query).all()
        return [i for i, count, synced in found if everything or count >= DUE_ROWS or synced <= oldest_ns]

    def _chosen(self, origin_id: int) -> list[Batch]:
        with self._database.read() as db:
            there = batches.waiting(db, _BATCH.origin_id == origin_id)
        chosen, size = [], 0
        for one in there:
            if one.id not in self._broken:
                chosen.append(one)
                size += one.position.size
                if size >= _FILE_BATCH_BYTES:
                    break
        return chosen

    def _compact(self, origin_id: int, chosen: Sequence[Batch]) -> bool:
        try:
            with _memory_file() as (handle, path), caged(self._packs, memory_mb=_MEMORY_MB, written=[path]) as duck:
                columns = batches.load(duck, self._packs, chosen)
                selected = ", ".join((*self._fixed(origin_id), *_typed_from_json(columns)))
                spec = schema.literal(schema.transform_spec(columns)) if columns else ""
                shaped = (
                    f"SELECT *, json_transform(data, {spec}) AS shaped FROM batch_rows" if columns else "batch_rows"
                )
                source = f"({shaped})" if columns else shaped
                duck.execute(_copy(f"SELECT {selected} FROM {source}", path))
                self._commit(origin_id, handle, columns, _Span.of(chosen), batch_ids=[one.id for one in chosen])
        except Exception as err:
            if _is_ours_to_retry(err):
                raise
            return self._without_broken(origin_id, chosen, err)
        return True

    def _without_broken(self, origin_id: int, chosen: Sequence[Batch], err: Exception) -> bool:
        """What DuckDB cannot take is found by halving and left in its pack; the others go on."""
        if len(chosen) == 1:
            log.error("A batch of readings (%d) stays out of the lake: %s", chosen[0].id, err)
            self._broken.add(chosen[0].id)
            return True
        half = len(chosen) // 2
        return all(self._compact(origin_id, part) for part in (chosen[:half], chosen[half:]))

    def _fixed(self, origin_id: int) -> list[str]:
        with self._database.read() as db:
            origin = db.execute(sa.select(t.origin).where(t.origin.c.id == origin_id)).one()
        places = {
            "organization_id": origin.organization_id,
            "location_id": origin.location_id,
            "robot_id": origin.machine_id,
            "part_id": origin.part_id,
            "component_type": origin.component_type,
            "component_name": origin.component_name,
            "method_name": origin.method,
        }
        constant = [f"{schema.literal(value)} AS {name}" for name, value in places.items()]
        rows = [
            "requested AS time_requested",
            "received AS time_received",
            "tags",
            "parameters AS additional_parameters",
        ]
        return ["batch", *constant, *rows, "data::VARCHAR AS data"]

    # From files

    def _mergeable(self) -> list[LakeFile]:
        with self._database.read() as db:
            there = files.find(db)
            old_ns = self._clock_ns() - KEEP_DELETED_S * 1_000_000_000
            where = (_BATCH.lake_id.is_not(None), _BATCH.deleted_ns.is_not(None), _BATCH.deleted_ns < old_ns)
            outdated = set(db.scalars(sa.select(_BATCH.lake_id).where(*where)))
        for one in there:
            if one.id in outdated:
                return [one]
        tiers: dict[tuple[int, int], list[LakeFile]] = {}
        for one in there:
            if one.count < _TIERS[-1]:
                tier = next(number for number, below in enumerate(_TIERS) if one.count < below)
                tiers.setdefault((one.origin_id, tier), []).append(one)
        return next((group[:FAN_IN] for group in tiers.values() if len(group) >= FAN_IN), [])

    def _merge(self, group: Sequence[LakeFile]) -> bool:
        """False if one of them turned out to be damaged: it is forgotten, and its batches are compacted anew."""
        damaged: list[LakeFile] = []
        try:
            self._merged(group, damaged.append)
        except Exception:
            if not mend(self._database, self._packs, [one.id for one in damaged]):
                raise
            return False
        return True

    def _merged(self, group: Sequence[LakeFile], on_damage: Callable[[LakeFile], object]) -> None:
        columns = schema.merged(one.columns for one in group)
        origin_id = group[0].origin_id
        with (
            _memory_file() as (handle, path),
            caged(self._packs, group, memory_mb=_MEMORY_MB, written=[path], on_damage=on_damage) as duck,
        ):
            copied = duck.execute(_copy(" UNION ALL ".join(_rows_of(one, columns) for one in group), path)).fetchone()
            span = replace(_Span.of(group), count=copied[0] if copied else 0)
            self._commit(origin_id, handle, columns, span, replaced=group)

    # Both

    def _commit(
        self,
        origin_id: int,
        handle: int,
        columns: Columns,
        span: _Span,
        *,
        batch_ids: Sequence[int] = (),
        replaced: Sequence[LakeFile] = (),
    ) -> None:
        now_ns = self._clock_ns()
        header = {"record": "lake", "first_ns": span.first_ns, "last_ns": span.last_ns, "count": span.count}
        written = self._packs.write([PackRecord(header, MemoryFilePayload(handle))], now_ns)
        (position,) = written.positions
        pack = {
            "name": written.name,
            "wrapped_key": written.wrapped_key,
            "records": 1,
            "created_ns": written.created_ns,
        }
        with self._database.write() as db:
            self._require(db, LEASE)
            pack_id = db.execute(t.pack.insert().values(**pack).returning(t.pack.c.id)).scalar_one()
            lake_id = db.execute(
                t.lake_file.insert()
                .values(
                    origin_id=origin_id,
                    pack_id=pack_id,
                    record_offset=position.record_offset,
                    body_offset=position.body_offset,
                    size_bytes=position.size,
                    count=span.count,
                    first_ns=span.first_ns,
                    last_ns=span.last_ns,
                    columns=schema.dumped(columns),
                )
                .returning(t.lake_file.c.id)
            ).scalar_one()
            old_ids = [one.id for one in replaced]
            if old_ids:
                kept_out = [batch_id for one in replaced for batch_id in one.deleted]
                db.execute(_pointing(db, kept_out, None))
                db.execute(t.readings_batch.update().where(_BATCH.lake_id.in_(old_ids)).values(lake_id=lake_id))
                db.execute(t.lake_file.delete().where(t.lake_file.c.id.in_(old_ids)))
            db.execute(_pointing(db, batch_ids, lake_id))


def _pointing(db: sa.Connection, batch_ids: Sequence[int], lake_id: int | None) -> sa.Update:
    chosen = _BATCH.id.in_(t.rows_in(list(batch_ids), db.dialect.name))
    return t.readings_batch.update().where(chosen).values(lake_id=lake_id)


@dataclass(frozen=True)
class _Span:
    count: int
    first_ns: int
    last_ns: int

    @classmethod
    def of(cls, some: Sequence[Batch] | Sequence[LakeFile]) -> _Span:
        return cls(sum(one.count for one in some), min(one.first_ns for one in some), max(one.last_ns for one in some))


class MemoryFilePayload:
    """A file in memory as a pack record's payload: Parquet is never on the disk in plain."""

    in_memory = 0

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @property
    def size(self) -> int:
        return os.fstat(self._handle).st_size

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, self.size, CHUNK_BYTES):
            yield os.pread(self._handle, CHUNK_BYTES, start)

    def head(self, length: int) -> bytes:
        return os.pread(self._handle, length, 0)

    def discard(self) -> None:
        """Whoever made the file closes it."""

    def abandon(self) -> None:
        """As above."""


@contextmanager
def _memory_file() -> Iterator[tuple[int, str]]:
    handle = os.memfd_create("lake")
    try:
        yield handle, f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _copy(select: str, path: str) -> str:
    return f"COPY ({select}) TO {schema.literal(path)} (FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false)"


def _typed_from_json(columns: Columns) -> list[str]:
    return [
        f"shaped.{'.'.join(map(schema.identifier, path))} AS {schema.identifier(schema.column_name(path))}"
        for path in columns
    ]


def _rows_of(file: LakeFile, columns: Columns) -> str:
    typed = [
        f"{value_of(file, path, one.type)} AS {schema.identifier(schema.column_name(path))}"
        for path, one in columns.items()
    ]
    kept = f" WHERE batch NOT IN ({', '.join(map(str, file.deleted))})" if file.deleted else ""
    return f"SELECT {', '.join(('batch', *schema.FIXED, *typed))} FROM read_parquet('{file.address}'){kept}"


def value_of(file: LakeFile, path: schema.Path, type_: str) -> str:
    """SQL for the key in a lake file, as the type it has over several files."""
    own = file.columns.get(path)
    if own is not None and own.type == type_:
        return schema.identifier(schema.column_name(path))
    return schema.from_json("data::JSON", path, type_)


def _is_ours_to_retry(err: Exception) -> bool:
    """Whether a failure says nothing about the batches: the disk, the database, memory."""
    import duckdb

    is_about_data = isinstance(err, (duckdb.Error, UnicodeDecodeError, UnreadableBatch))
    return not is_about_data or isinstance(err, duckdb.OutOfMemoryException)
