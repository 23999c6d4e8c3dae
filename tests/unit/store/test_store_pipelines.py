"""Data pipelines: each period once, whatever happens in between, and what they found can be asked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import bson
import pytest
import sqlalchemy as sa
from store_fixtures import FOREIGN_PLACE, OPERATOR, OWNER, Store, readings

from gleaner.app.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from gleaner.app.services import fleet_tables
from gleaner.app.services.items_values import ItemFilter
from gleaner.app.services.pipelines import (
    NewPipeline,
    Pipeline,
    PipelineRun,
    PipelineService,
    RunStatus,
    checked_schedule,
    period_after,
    period_before,
)
from gleaner.app.services.pipelines_run import SETTLING_S, PipelineRunner
from gleaner.app.services.queries import QueryService
from gleaner.app.store.ingest import Receipt
from gleaner.app.store.records import Upload

SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND  # 22:13:20, when the readings of the fixtures begin
MINUTE_NS = 60 * SECOND
COUNT = {"$group": {"_id": "$component_name", "n": {"$sum": 1}, "most": {"$max": "$data.readings.value"}}}
EVERYTHING = {"$project": {"_id": 0, "value": "$data.readings.value", "time": "$time_requested"}}


@dataclass
class World:
    store: Store
    queries: QueryService
    pipelines: PipelineService
    runner: PipelineRunner

    def made(self, *stages: dict[str, Any], schedule: str = "* * * * *", backfill: bool = True) -> Pipeline:
        encoded = [bson.encode(one) for one in stages or (COUNT,)]
        name = f"p{len(self.pipelines.of_organization(OWNER, 'org-1'))}"
        return self.pipelines.create(OWNER, NewPipeline("org-1", name, encoded, schedule, backfill, 1))

    def sink(self, one: Pipeline, *stages: dict[str, Any]) -> list[dict[str, Any]]:
        rows = self.queries.mql_of_sink(OWNER, "org-1", one.id, [bson.encode(stage) for stage in stages])
        return [bson.decode(row) for row in rows]

    def runs(self, one: Pipeline) -> list[PipelineRun]:
        return self.pipelines.runs(OWNER, one.id, 100)[0]


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    store.clock.now_ns = START_NS + 3600 * SECOND
    with store.database.write() as db:
        for organization_id in ("org-1", "org-2"):
            same = sa.select(fleet_tables.organization.c.id).where(fleet_tables.organization.c.id == organization_id)
            if db.scalar(same) is None:
                columns = {"id": organization_id, "name": organization_id, "created_ns": 0}
                names = fleet_tables.organization.c.keys()
                values = {name: columns.get(name, "") for name in names if name in columns}
                db.execute(fleet_tables.organization.insert().values(**values))
    queries = QueryService(store.database, store.packs)
    runner = PipelineRunner(store.database, queries, store.ingest, store.clock)
    try:
        yield World(store, queries, PipelineService(store.database, store.packs, store.clock), runner)
    finally:
        queries.stop()


def test_each_period_with_readings_is_run_once(world: World) -> None:
    world.store.add(readings(0, 100), readings(400, 10), readings(0, 5, place=FOREIGN_PLACE))
    one = world.made()
    assert world.runner.run_due() == 3
    assert world.runner.run_due() == 0
    found = world.sink(one, {"$sort": {"_viam_pipeline_run.interval.start": 1}})
    assert [(row["_id"], row["n"], row["most"]) for row in found] == [
        ("sensor", 40, 39.0),  # from 22:13:20 on: the minutes of the schedule, not those of the readings
        ("sensor", 60, 99.0),
        ("sensor", 10, 409.0),
    ]
    run = found[0]["_viam_pipeline_run"]
    assert run["organization_id"] == "org-1"
    assert run["interval"] == {"start": "2023-11-14T22:13:00Z", "end": "2023-11-14T22:14:00Z"}
    runs = world.runs(one)
    assert {each.status for each in runs} == {RunStatus.COMPLETED}
    assert run["id"] in {each.id for each in runs}


def test_results_are_no_readings(world: World) -> None:
    world.store.add(readings(0, 100))
    world.made()
    world.runner.run_due()
    assert world.store.readings.count(OWNER, ItemFilter()) == 100
    [row] = world.queries.mql(OWNER, "org-1", [bson.encode({"$count": "n"})])
    assert bson.decode(row) == {"n": 100}
    [row] = world.queries.sql(OWNER, "org-1", "SELECT count(*) AS n FROM readings").rows
    assert bson.decode(row) == {"n": 100}


def test_a_period_is_asked_when_its_readings_have_arrived(world: World) -> None:
    world.store.add(readings(0, 10))
    one = world.made(schedule="0 * * * *", backfill=False)
    end_ns = period_after("0 * * * *", one.next_ns)
    assert one.next_ns <= world.store.clock() < end_ns
    world.store.clock.now_ns = end_ns + (SETTLING_S - 1) * SECOND
    assert world.runner.run_due() == 0
    world.store.clock.now_ns = end_ns + SETTLING_S * SECOND
    assert world.runner.run_due() == 1
    [run] = world.runs(one)
    assert (run.data_start_ns, run.data_end_ns, run.status) == (one.next_ns, end_ns, RunStatus.COMPLETED)
    assert world.sink(one) == []


def test_times_in_results_sort_as_times(world: World) -> None:
    world.store.add(readings(0, 3))
    one = world.made(EVERYTHING)
    world.runner.run_due()
    found = world.sink(one, {"$match": {"value": {"$gte": 1}}}, {"$sort": {"time": -1}}, {"$project": {"value": 1}})
    assert [row["value"] for row in found] == [2.0, 1.0]


def test_a_run_that_fails_says_why_and_the_next_goes_on(world: World) -> None:
    world.store.add(readings(0, 100))
    bucket = {"groupBy": "$data.readings.value", "boundaries": [0, 45]}  # later values are in no bucket
    one = world.made({"$bucket": bucket})
    world.runner.run_due()
    worst, best = world.runs(one)
    assert (best.status, worst.status) == (RunStatus.COMPLETED, RunStatus.FAILED)
    assert "default" in worst.error
    assert [row["count"] for row in world.sink(one)] == [40]


def test_a_run_that_was_cut_off_is_done_again_and_nothing_is_there_twice(world: World) -> None:
    """Killed after the results were stored and before that was noted; more readings of the period came in between."""
    world.store.add(readings(0, 30))
    one = world.made()

    class Killed(BaseException):
        pass

    submit = world.store.ingest.submit

    def stored_and_killed(upload: Upload) -> Future[Receipt]:
        submit(upload).result(30)
        raise Killed

    world.store.ingest.submit = stored_and_killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        world.runner.run_due()
    world.store.ingest.submit = submit  # type: ignore[method-assign]
    assert [each.status for each in world.runs(one)] == [RunStatus.STARTED]
    world.store.add(readings(30, 5))
    assert world.runner.run_due() == 1
    assert [row["n"] for row in world.sink(one)] == [30]
    assert [each.status for each in world.runs(one)] == [RunStatus.COMPLETED]


def test_what_cannot_be_stored_now_is_run_again_and_holds_up_no_other(world: World) -> None:
    world.store.add(readings(0, 30))
    one, other = world.made(), world.made({"$match": {"component_name": "nobody"}})
    world.store.ingest.stop()
    world.runner.run_due()
    [waiting] = world.runs(one)
    assert waiting.status is RunStatus.STARTED
    assert waiting.error.startswith("It is tried again: The app is stopping")
    assert [each.status for each in world.runs(other)] == [RunStatus.COMPLETED]
    world.store.ingest.start()
    world.runner.run_due()
    assert [(each.status, each.error) for each in world.runs(one)] == [(RunStatus.COMPLETED, "")]
    assert [row["n"] for row in world.sink(one)] == [30]


def test_a_pipeline_that_breaks_holds_up_no_other(world: World) -> None:
    world.store.add(readings(0, 30))
    broken, other = world.made(), world.made()
    catch_up = world.runner._catch_up

    def breaking(one: Pipeline) -> int:
        if one.id == broken.id:
            raise RuntimeError("not thought of")
        return catch_up(one)

    world.runner._catch_up = breaking  # type: ignore[method-assign]
    assert world.runner.run_due() == 1
    assert [each.status for each in world.runs(other)] == [RunStatus.COMPLETED]


def test_a_disabled_pipeline_rests(world: World) -> None:
    world.store.add(readings(0, 10))
    one = world.made(backfill=False)
    world.pipelines.disable(OWNER, one.id)
    world.store.clock.now_ns += 600 * SECOND
    assert world.runner.run_due() == 0
    world.pipelines.enable(OWNER, one.id)
    world.store.clock.now_ns += MINUTE_NS + SETTLING_S * SECOND
    world.runner.run_due()
    assert min(run.data_start_ns for run in world.runs(one)) > one.next_ns + 500 * SECOND


def test_a_deleted_pipeline_takes_its_results_with_it(world: World) -> None:
    world.store.add(readings(0, 10))
    one, other = world.made(), world.made()
    world.runner.run_due()
    world.pipelines.delete(OWNER, one.id)
    assert world.sink(one) == [] and len(world.sink(other)) == 1
    with pytest.raises(NotFound):
        world.pipelines.get(OWNER, one.id)
    with world.store.database.read() as db:
        assert db.scalar(sa.text("SELECT count(*) FROM data_pipeline_run")) == 1


def test_runs_come_in_pages(world: World) -> None:
    world.store.add(*(readings(60 * n, 1) for n in range(7)))
    one = world.made()
    world.runner.run_due()
    seen, token = [], ""
    while True:
        page, token = world.pipelines.runs(OWNER, one.id, 3, token)
        seen += [run.data_start_ns for run in page]
        if not token:
            break
    assert len(seen) == len(set(seen)) == 7


def test_who_may_do_what(world: World) -> None:
    one = world.made()
    with pytest.raises(Conflict):
        world.pipelines.create(OWNER, NewPipeline("org-1", one.name, list(one.stages), "* * * * *", False, 1))
    assert [each.id for each in world.pipelines.of_organization(OPERATOR, "org-1")] == [one.id]
    for act in (world.pipelines.delete, world.pipelines.disable, world.pipelines.enable):
        with pytest.raises(PermissionDenied):
            act(OPERATOR, one.id)
    with pytest.raises(PermissionDenied):
        world.pipelines.of_organization(OWNER, "org-9")


@pytest.mark.parametrize("schedule", ["", "soon", "* * * *", "* * * * * *", "61 * * * *", "0 0 31 2 *"])
def test_what_is_no_schedule_is_refused(schedule: str) -> None:
    with pytest.raises(InvalidInput, match="is no schedule"):
        checked_schedule(schedule)


def test_periods_touch() -> None:
    for schedule in ("* * * * *", "*/15 * * * *", "0 6 * * 1-5", "0 0 1 * *"):
        start_ns = period_before(schedule, START_NS)
        end_ns = period_after(schedule, start_ns)
        assert start_ns <= START_NS < end_ns
        assert period_before(schedule, end_ns) == end_ns
        assert period_before(schedule, end_ns - 1) == start_ns
