"""Runs data pipelines: each period of a pipeline's schedule once, in their order.

A period is asked `SETTLING_S` after its end, so that what was captured in it has arrived. What a run finds is stored like
readings: encrypted in a pack, under an idempotency key of the pipeline and the period. A process that dies between storing
and noting does it again and stores nothing twice. Of several processes the one that holds the lease runs them all.

With backfill a pipeline begins with the oldest readings there are and leaves out periods without any. Readings that arrive
later than their period was asked are not made up for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import bson
import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.errors import AppError, Conflict, TooLarge, Unavailable
from gleaner.app.leases import alone
from gleaner.app.repeating import Repeating
from gleaner.app.services.pipelines import Pipeline, RunStatus, due, period_after, period_before, pipeline, pipeline_run
from gleaner.app.services.queries import SINK, QueryService, sink_name
from gleaner.app.store import sniff
from gleaner.app.store import tables as t
from gleaner.app.store.ingest import Ingest
from gleaner.app.store.payload import MemoryPayload
from gleaner.app.store.places import organization_place
from gleaner.app.store.records import ReadingsSummary, RecordInfo, Upload, derived_key

LEASE = "pipelines"
MOST_DOCUMENTS = 10_000
SETTLING_S = 120
LONGEST_S = 300.0
_EVERY_S = 10.0
_AT_ONCE = 50
"""Periods of one pipeline in a pass: a long backfill lets the others have their turn."""
_STORED_S = 60.0
_RUN, _BATCH = pipeline_run.c, t.readings_batch.c

log = logging.getLogger(__name__)


class PipelineRunner:
    """start() → running → stop()."""

    def __init__(
        self,
        database: Database,
        queries: QueryService,
        ingest: Ingest,
        clock_ns: Callable[[], int] = time.time_ns,
        holding: Callable[[str], AbstractContextManager[bool]] = alone,
    ) -> None:
        self._database = database
        self._queries = queries
        self._ingest = ingest
        self._clock_ns = clock_ns
        self._holding = holding
        self._repeating = Repeating(
            "pipelines", self._take_turn, _EVERY_S, at_start=True, what="Running data pipelines"
        )

    def start(self) -> None:
        self._repeating.start()

    def stop(self) -> None:
        self._repeating.stop()

    def soon(self) -> None:
        """There is a new one, or one is enabled again."""
        self._repeating.soon()

    def run_due(self) -> int:
        """One pass; how many runs."""
        with self._database.read() as db:
            waiting = due(db)
        return sum(self._catch_up_alone(one) for one in waiting)

    def _catch_up_alone(self, one: Pipeline) -> int:
        try:
            return self._catch_up(one)
        except (
            Exception
        ):  # what is wrong with one must not hold up the others; it has its turn again with the next pass
            log.exception("The data pipeline %s could not be run and is tried again", one.name)
            return 0

    def _take_turn(self) -> None:
        with self._holding(LEASE) as is_ours:
            if is_ours:
                self.run_due()

    def _catch_up(self, one: Pipeline) -> int:
        start_ns, runs = one.next_ns, 0
        while runs < _AT_ONCE and not self._repeating.is_stopping:
            if one.backfill and (start_ns := self._next_with_readings(one, start_ns)) < 0:
                return runs
            end_ns = period_after(one.schedule, start_ns)
            if end_ns + SETTLING_S * 1_000_000_000 > self._clock_ns():
                return runs
            if not self._run(one, start_ns, end_ns):
                return runs
            start_ns, runs = end_ns, runs + 1
        return runs

    def _next_with_readings(self, one: Pipeline, start_ns: int) -> int:
        """The beginning of the first period from there on that has readings; −1 without any."""
        same = t.origin.c.organization_id == one.organization_id, t.origin.c.kind == sniff.READING
        mine = sa.select(t.origin.c.id).where(*same)
        alive = _BATCH.deleted_ns.is_(None), _BATCH.pack_id.is_not(None)
        query = sa.select(sa.func.min(_BATCH.first_ns)).where(_BATCH.origin_id.in_(mine), *alive)
        with self._database.read() as db:
            first_ns = db.scalar(query.where(_BATCH.last_ns >= start_ns))
        if first_ns is None:
            return -1
        return max(start_ns, period_before(one.schedule, int(first_ns)))

    def _run(self, one: Pipeline, start_ns: int, end_ns: int) -> bool:
        """False if it has to be done again: the pipeline is gone or disabled, or the results could not be stored."""
        run_id = str(uuid.uuid4())
        with self._database.write() as db:
            db.execute(
                pipeline_run.delete().where(_RUN.pipeline_id == one.id, _RUN.status == RunStatus.STARTED)
            )  # of a process that ended in the middle
            if not db.scalar(sa.select(pipeline.c.enabled).where(pipeline.c.id == one.id)):
                return False
            times = {"data_start_ns": start_ns, "data_end_ns": end_ns, "started_ns": self._clock_ns()}
            values = {"id": run_id, "pipeline_id": one.id, "status": RunStatus.STARTED, "error": ""}
            db.execute(pipeline_run.insert().values(values | times))
        error = ""
        try:
            found = self._queries.mql_of_organization(one.organization_id, _within(start_ns, end_ns, one), LONGEST_S)
            if len(found) > MOST_DOCUMENTS:
                raise TooLarge(
                    f"The run found {len(found):,} documents, more than {MOST_DOCUMENTS:,}", "Group or limit them."
                )
            try:
                self._store(one, run_id, (start_ns, end_ns), found)
            except (Unavailable, TimeoutError) as err:
                # Only this: a question that fails may fail for ever, and its period must not hold up the later ones.
                self._postpone(one, run_id, err)
                return False
        except AppError as err:
            error = f"{err.message}. {err.hint}".strip()
        if error:
            log.warning("A run of the data pipeline %s failed: %s", one.name, error)
        with self._database.write() as db:
            done = {"status": RunStatus.FAILED if error else RunStatus.COMPLETED, "error": error}
            db.execute(pipeline_run.update().where(_RUN.id == run_id).values(done | {"ended_ns": self._clock_ns()}))
            db.execute(pipeline.update().where(pipeline.c.id == one.id).values(next_ns=end_ns))
        return True

    def _postpone(self, one: Pipeline, run_id: str, err: Exception) -> None:
        """The run stays open, with the reason; the next pass does it again."""
        why = err.message if isinstance(err, AppError) else str(err) or "storing it took too long"
        log.warning("A run of the data pipeline %s is tried again: %s", one.name, why)
        with self._database.write() as db:
            db.execute(pipeline_run.update().where(_RUN.id == run_id).values(error=f"It is tried again: {why}."))

    def _store(self, one: Pipeline, run_id: str, period: tuple[int, int], found: list[bytes]) -> None:
        if not found:
            return
        interval = {name: _iso(time_ns) for name, time_ns in zip(("start", "end"), period, strict=True)}
        about = {"id": run_id, "organization_id": one.organization_id, "interval": interval}
        start_ns, _ = period
        documents = [_plain(bson.decode(one)) | {"_viam_pipeline_run": about} for one in found]
        content = json.dumps([[start_ns, start_ns, document] for document in documents], separators=(",", ":")).encode()
        key = derived_key("pipeline", one.id, *period)
        info = RecordInfo(
            place=organization_place(one.organization_id),
            idempotency_key=key,
            digest=hashlib.sha256(content).digest(),
            size=len(content),
            component_type=SINK,
            component_name=sink_name(one.id),
            method="Run",
            kind=SINK,
            captured_ns=start_ns,
            received_ns=start_ns,
            synced_ns=self._clock_ns(),
            readings=ReadingsSummary(len(found), start_ns, start_ns, json.dumps(documents[-1], separators=(",", ":"))),
        )
        try:
            self._ingest.submit(Upload(info, MemoryPayload(content))).result(_STORED_S)
        except Conflict:  # stored by a process that ended before it could note it; more readings have come since
            log.info("The period from %s of the data pipeline %s had been stored already", interval["start"], one.name)


def _within(start_ns: int, end_ns: int, one: Pipeline) -> tuple[bytes, ...]:
    limits = {"$gte": _moment(start_ns), "$lt": _moment(end_ns)}
    return (bson.encode({"$match": {"time_received": limits}}), *one.stages)


def _moment(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / 1e9, UTC)


def _iso(time_ns: int) -> str:
    return _moment(time_ns).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of a result as readings are kept: times are texts, which sort as times do."""
    made: dict[str, Any] = json.loads(json.dumps(document, default=_as_text, allow_nan=True))
    return made


def _as_text(value: Any) -> Any:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return str(value)
