"""Data pipelines: a question in Mongo's language that is asked again and again, each time of one more period of the readings.

What they are and what became of their runs. `pipelines_run.py` runs them, `queries.py` asks what they found.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import sqlalchemy as sa
from cronsim import CronSim, CronSimError

from gleaner.app.caller import Caller
from gleaner.app.database import Database, metadata
from gleaner.app.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from gleaner.app.services.datasets import require_maker
from gleaner.app.services.queries import SINK, sink_name
from gleaner.app.services.query_text import checked_stages, split
from gleaner.app.store import deletions
from gleaner.app.store import tables as t
from gleaner.app.store.packs import PackStore

_LONGEST_NAME = 100
_MOST = 100
_MOST_RUNS = 100
_EXAMPLE = 'For example "0 * * * *", every hour, or "*/15 * * * *", every quarter of one. Times are UTC.'

pipeline = sa.Table(
    "data_pipeline",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("organization_id", sa.Text, sa.ForeignKey("organization.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    #: BSON documents, one behind the other.
    sa.Column("stages", sa.LargeBinary, nullable=False),
    sa.Column("schedule", sa.Text, nullable=False),
    sa.Column("source", sa.Integer, nullable=False),
    sa.Column("backfill", sa.Boolean, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.Column("updated_ns", sa.BigInteger, nullable=False),
    #: Everything received before then has been asked.
    sa.Column("next_ns", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("organization_id", "name"),
)
pipeline_run = sa.Table(
    "data_pipeline_run",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("pipeline_id", sa.Text, sa.ForeignKey("data_pipeline.id", ondelete="CASCADE"), nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("started_ns", sa.BigInteger, nullable=False),
    sa.Column("ended_ns", sa.BigInteger),
    sa.Column("data_start_ns", sa.BigInteger, nullable=False),
    sa.Column("data_end_ns", sa.BigInteger, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Index("data_pipeline_run_by_pipeline", "pipeline_id", "started_ns"),
)
_PIPELINE, _RUN = pipeline.c, pipeline_run.c


class RunStatus(IntEnum):
    """Numbers as in Viam's `DataPipelineRunStatus`."""

    STARTED = 2
    COMPLETED = 3
    FAILED = 4


@dataclass(frozen=True)
class Pipeline:
    id: str
    organization_id: str
    name: str
    stages: tuple[bytes, ...]
    schedule: str
    source: int
    """Viam's `TabularDataSourceType`, as it was sent: standard and hot storage are the same here."""
    backfill: bool
    enabled: bool
    created_ns: int
    updated_ns: int
    next_ns: int


@dataclass(frozen=True)
class PipelineRun:
    id: str
    status: RunStatus
    started_ns: int
    ended_ns: int | None
    data_start_ns: int
    data_end_ns: int
    error: str


@dataclass(frozen=True)
class NewPipeline:
    organization_id: str
    name: str
    stages: Sequence[bytes]
    schedule: str
    backfill: bool
    source: int


class PipelineService:
    def __init__(self, database: Database, packs: PackStore, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._packs = packs
        self._clock_ns = clock_ns

    def create(self, caller: Caller, new: NewPipeline) -> Pipeline:
        """Its first run is of the period that goes on now, or, with `backfill`, of the oldest readings."""
        require_maker(caller, new.organization_id)
        now_ns = self._clock_ns()
        made = Pipeline(
            id=str(uuid.uuid4()),
            organization_id=new.organization_id,
            name=_checked_name(new.name),
            stages=checked_stages(new.stages),
            schedule=checked_schedule(new.schedule),
            source=new.source,
            backfill=new.backfill,
            enabled=True,
            created_ns=now_ns,
            updated_ns=now_ns,
            next_ns=0 if new.backfill else period_before(new.schedule, now_ns),
        )
        with self._database.write() as db:
            _require_free(db, new.organization_id, made.name)
            number = sa.select(sa.func.count()).where(_PIPELINE.organization_id == new.organization_id)
            if (db.scalar(number) or 0) >= _MOST:
                raise InvalidInput(f"There are {_MOST} data pipelines already", "Delete those nobody needs.")
            db.execute(pipeline.insert().values(vars(made) | {"stages": b"".join(made.stages)}))
        return made

    def get(self, caller: Caller, pipeline_id: str) -> Pipeline:
        """Raises NotFound, also for those of organizations that the caller does not know."""
        with self._database.read() as db:
            return _visible(db, caller, pipeline_id)

    def of_organization(self, caller: Caller, organization_id: str) -> list[Pipeline]:
        """By name."""
        if organization_id not in caller.organization_ids():
            raise PermissionDenied(
                "You may not see the data pipelines of this organization", "Ask one of its owners for a role there."
            )
        query = sa.select(pipeline).where(_PIPELINE.organization_id == organization_id).order_by(_PIPELINE.name)
        with self._database.read() as db:
            return [_pipeline(row) for row in db.execute(query).mappings()]

    def rename(self, caller: Caller, pipeline_id: str, name: str) -> None:
        name = _checked_name(name)
        with self._database.write() as db:
            old = _owned(db, caller, pipeline_id)
            if name != old.name:
                _require_free(db, old.organization_id, name)
            self._change(db, pipeline_id, name=name)

    def enable(self, caller: Caller, pipeline_id: str) -> None:
        """What went by while it was disabled is made up for only with backfill."""
        with self._database.write() as db:
            old = _owned(db, caller, pipeline_id)
            if not old.enabled:
                now = period_before(old.schedule, self._clock_ns())
                self._change(db, pipeline_id, enabled=True, next_ns=old.next_ns if old.backfill else now)

    def disable(self, caller: Caller, pipeline_id: str) -> None:
        with self._database.write() as db:
            _owned(db, caller, pipeline_id)
            self._change(db, pipeline_id, enabled=False)

    def delete(self, caller: Caller, pipeline_id: str) -> None:
        """Its results go, too: their bytes are freed in a day, as of all that is deleted."""
        with self._database.write() as db:
            old = _owned(db, caller, pipeline_id)
            self._delete_results(db, old)
            db.execute(pipeline_run.delete().where(_RUN.pipeline_id == pipeline_id))
            db.execute(pipeline.delete().where(_PIPELINE.id == pipeline_id))

    def _delete_results(self, db: sa.Connection, old: Pipeline) -> None:
        origin, batch, now_ns = t.origin.c, t.readings_batch.c, self._clock_ns()
        same = origin.organization_id == old.organization_id, origin.component_name == sink_name(old.id)
        mine = sa.select(origin.id).where(*same, origin.kind == SINK)
        rows = list(db.scalars(sa.select(batch.id).where(batch.origin_id.in_(mine), batch.deleted_ns.is_(None))))
        deletions.note(self._packs, db, deletions.file_ids_of(db, t.readings_batch, rows), now_ns)
        chosen = batch.id.in_(t.rows_in(rows, db.dialect.name))
        db.execute(t.readings_batch.update().where(chosen).values(deleted_ns=now_ns))

    def runs(self, caller: Caller, pipeline_id: str, size: int = 0, token: str = "") -> tuple[list[PipelineRun], str]:
        """Newest first, and what to send for the next page (empty after the last)."""
        size = min(size or 10, _MOST_RUNS)
        if token and not token.isdecimal():
            raise InvalidInput(f"{token!r} is not what a page gave", "Send next_page_token as the page before gave it.")
        begin = int(token or 0)
        with self._database.read() as db:
            _visible(db, caller, pipeline_id)
            query = sa.select(pipeline_run).where(_RUN.pipeline_id == pipeline_id)
            query = query.order_by(_RUN.started_ns.desc(), _RUN.data_end_ns.desc(), _RUN.id)
            found = [_run(row) for row in db.execute(query.offset(begin).limit(size + 1)).mappings()]
        return found[:size], str(begin + size) if len(found) > size else ""

    def _change(self, db: sa.Connection, pipeline_id: str, **values: Any) -> None:
        changed = pipeline.update().where(_PIPELINE.id == pipeline_id)
        db.execute(changed.values(values | {"updated_ns": self._clock_ns()}))


def due(db: sa.Connection) -> list[Pipeline]:
    """Every enabled one, the longest waiting first."""
    query = sa.select(pipeline).where(_PIPELINE.enabled).order_by(_PIPELINE.next_ns)
    return [_pipeline(row) for row in db.execute(query).mappings()]


def checked_schedule(schedule: str) -> str:
    """Raises InvalidInput for what is no cron expression of five fields, or never comes."""
    schedule = " ".join(schedule.split())
    try:
        if len(schedule.split()) != 5:
            raise CronSimError
        next(CronSim(schedule, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as err:
        raise InvalidInput(
            f"{schedule!r} is no schedule", f"Send a cron expression of five fields. {_EXAMPLE}"
        ) from err
    return schedule


def period_after(schedule: str, time_ns: int) -> int:
    """The first moment of the schedule behind this one, in nanoseconds."""
    return int(next(CronSim(schedule, _moment(time_ns))).timestamp()) * 1_000_000_000


def period_before(schedule: str, time_ns: int) -> int:
    """The last moment of the schedule that is not behind this one."""
    found = next(CronSim(schedule, _moment(time_ns + 60_000_000_000), reverse=True))
    while int(found.timestamp()) * 1_000_000_000 > time_ns:
        found = next(CronSim(schedule, found, reverse=True))
    return int(found.timestamp()) * 1_000_000_000


def _moment(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)


def _pipeline(row: sa.RowMapping) -> Pipeline:
    return Pipeline(**{**row, "stages": split(bytes(row["stages"]))})


def _run(row: sa.RowMapping) -> PipelineRun:
    values = {name: value for name, value in row.items() if name != "pipeline_id"}
    return PipelineRun(**{**values, "status": RunStatus(row["status"])})


def _visible(db: sa.Connection, caller: Caller, pipeline_id: str) -> Pipeline:
    found = db.execute(sa.select(pipeline).where(_PIPELINE.id == pipeline_id)).mappings().one_or_none()
    if found is None or found["organization_id"] not in caller.organization_ids():
        raise NotFound(f"There is no data pipeline {pipeline_id!r}", "It may have been deleted; list them again.")
    return _pipeline(found)


def _owned(db: sa.Connection, caller: Caller, pipeline_id: str) -> Pipeline:
    found = _visible(db, caller, pipeline_id)
    caller.require(found.organization_id, owner=True, what=f"the data pipeline {found.name}")
    return found


def _require_free(db: sa.Connection, organization_id: str, name: str) -> None:
    same = _PIPELINE.organization_id == organization_id, _PIPELINE.name == name
    if db.scalar(sa.select(_PIPELINE.id).where(*same)):
        raise Conflict(f"There is a data pipeline named {name!r} already", "Choose another name.")


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > _LONGEST_NAME or any(ord(c) < 32 for c in name):
        raise InvalidInput(f"{name[:40]!r} cannot name a data pipeline", f"Use 1 to {_LONGEST_NAME} characters.")
    return name
