"""The unmodified viam-sdk asks with SQL and MQL, and cannot ask for what is not its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpclib import GRPCError, Status
from sdk_app_world import World, app_world

from gleaner.app.services.auth_keys import KeyGrant

Ask = Callable[..., Awaitable[list[dict[str, Any]]]]
ALL = "SELECT data.readings.temp FROM readings ORDER BY data.readings.temp"
START = datetime(2026, 3, 4, 5, 0, 0, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with app_world(tmp_path) as world:
        yield world


async def upload(world: World, client: Any, first: int, *values: dict[str, Any], part_id: str = "") -> None:
    moments = [START + timedelta(minutes=10 * (first + number)) for number in range(len(values))]
    await client.data_client.tabular_data_capture_upload(
        tabular_data=[{"readings": value} for value in values],
        part_id=part_id or world.part_id,
        component_type="rdk:component:sensor",
        component_name="oven",
        method_name="Readings",
        data_request_times=[(moment, moment) for moment in moments],
        tags=["bench"],
    )


async def test_sql_over_what_is_in_the_lake_and_what_is_not_yet(world: World) -> None:
    async with world.client() as client:
        await upload(world, client, 0, {"temp": 20.5, "state": "ok"}, {"temp": 21.5, "state": "hot"})
        world.context.compactor.compact(everything=True)
        await upload(world, client, 2, {"temp": 30.0, "state": "hot", "where": {"x": 1}})
        ask = client.data_client.tabular_data_by_sql
        every = await ask(world.organization_id, "SELECT * FROM readings ORDER BY time_requested")
        assert [one["data"]["readings"]["temp"] for one in every] == [20.5, 21.5, 30.0]
        assert every[2] == {
            "organization_id": world.organization_id,
            "location_id": world.location_id,
            "robot_id": world.machine_id,
            "part_id": world.part_id,
            "component_type": "rdk:component:sensor",
            "component_name": "oven",
            "method_name": "Readings",
            "time_requested": (START + timedelta(minutes=20)).replace(tzinfo=None),
            "time_received": (START + timedelta(minutes=20)).replace(tzinfo=None),
            "tags": ["bench"],
            "additional_parameters": {},
            "data": {"readings": {"temp": 30.0, "state": "hot", "where": {"x": 1.0}}},
        }
        hot = await ask(
            world.organization_id,
            "SELECT data.readings.state, avg(data.readings.temp) AS mean FROM sensorData.readings "
            "WHERE component_name = 'oven' AND time_received >= CAST('2026-03-04T05:10:00Z' AS TIMESTAMP) GROUP BY 1",
        )
        assert hot == [{"state": "hot", "mean": 25.75}]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELEC 1", "syntax error"),
        ("DROP TABLE readings", "Only SELECT"),
        ("INSERT INTO readings SELECT * FROM readings", "Only SELECT"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT * FROM item", "no table item"),
        ("SELECT * FROM batch_rows", "no table batch_rows"),
        ("SELECT * FROM main.readings", "no table main.readings"),
        ("SELECT * FROM information_schema.tables", "no table information_schema.tables"),
        ("SELECT * FROM '/etc/passwd'", "no table /etc/passwd"),
        ("SELECT * FROM read_parquet('lake://1')", "read_parquet"),
        ("SELECT * FROM readings WHERE part_id IN (SELECT content FROM read_text('/etc/passwd'))", "read_text"),
        ("SELECT * FROM query('SELECT 1')", "query"),
        ("SELECT * FROM duckdb_secrets()", "duckdb_secrets"),
        ("WITH readings AS (SELECT 1) SELECT * FROM readings", "WITH readings"),
        ("COPY (SELECT 1) TO '/tmp/x'", "Only SELECT"),
        ("ATTACH 'x.db'", "Only SELECT"),
        ("SET memory_limit = '100GB'", "Only SELECT"),
        ("SELECT current_setting('access_mode')", "current_setting"),
        ("SELECT nothing FROM readings", "nothing"),
        ("SELECT data.readings.temp + 'x' FROM readings", "cannot be run"),
    ],
)
async def test_what_is_no_question_about_readings_is_refused_with_the_reason(
    world: World, query: str, told: str
) -> None:
    async with world.client() as client:
        await upload(world, client, 0, {"temp": 20.5})
        world.context.compactor.compact(everything=True)
        with pytest.raises(GRPCError) as refused:
            await client.data_client.tabular_data_by_sql(world.organization_id, query)
    assert refused.value.status is Status.INVALID_ARGUMENT
    assert told in str(refused.value.message)


async def test_a_key_sees_the_readings_of_its_own_places_only(world: World) -> None:
    context, owner, organization = world.context, world.owner, world.organization_id
    hall = context.fleet.create_location(owner, organization, "Hall")
    other = context.fleet.create_machine(owner, "arm", hall.id)
    key = context.api_keys.create(owner, organization, "hall", [KeyGrant("operator", "location", hall.id)])
    async with world.client() as client:
        await upload(world, client, 0, {"temp": 1.0})
        await upload(world, client, 0, {"temp": 2.0}, part_id=other.main.id)
        context.compactor.compact(everything=True)
        await upload(world, client, 1, {"temp": 10.0})
        await upload(world, client, 1, {"temp": 20.0}, part_id=other.main.id)
        every = await client.data_client.tabular_data_by_sql(organization, ALL)
    async with world.client(key.key, key.id) as client:
        own = await client.data_client.tabular_data_by_sql(organization, ALL)
        sly = f"SELECT data.readings.temp FROM readings UNION ALL SELECT data.readings.temp FROM readings WHERE part_id = '{world.part_id}' OR TRUE"
        assert {one["temp"] for one in await client.data_client.tabular_data_by_sql(organization, sly)} == {2.0, 20.0}
        with pytest.raises(GRPCError) as refused:
            await client.data_client.tabular_data_by_sql("another-organization", ALL)
    assert [one["temp"] for one in every] == [1.0, 2.0, 10.0, 20.0]
    assert [one["temp"] for one in own] == [2.0, 20.0]
    assert refused.value.status is Status.PERMISSION_DENIED


@pytest.mark.parametrize("kind", ["doubled", "repeated"])
async def test_a_query_that_takes_too_much_memory_ends_alone(world: World, kind: str) -> None:
    doubled = "SELECT 'x' || n::VARCHAR AS v FROM range(300) t(n)"
    for _ in range(26):
        doubled = f"SELECT v || v AS v FROM ({doubled})"
    query = f"SELECT max(length(v)) FROM ({doubled})"
    if kind == "repeated":
        query = "SELECT repeat('x', 100000000) FROM range(100)"
    async with world.client() as client:
        await upload(world, client, 0, {"temp": 1.0})
        with pytest.raises(GRPCError) as stopped:
            await client.data_client.tabular_data_by_sql(world.organization_id, query)
        assert stopped.value.status is Status.RESOURCE_EXHAUSTED
        assert len(await client.data_client.tabular_data_by_sql(world.organization_id, ALL)) == 1


async def test_a_query_that_takes_too_long_is_stopped(world: World) -> None:
    endless = "SELECT count(*) FROM range(100000) a, range(100000) b, range(100000) c"
    with pytest.raises(GRPCError) as stopped:
        async with world.client() as client:
            world.context.queries.seconds = 0.5
            await client.data_client.tabular_data_by_sql(world.organization_id, endless)
    assert stopped.value.status is Status.DEADLINE_EXCEEDED


@pytest.fixture
async def asked(world: World) -> AsyncIterator[Ask]:
    """Asks with MQL over ten readings, half of them in the lake."""
    async with world.client() as client:
        await upload(world, client, 0, *({"temp": float(n), "state": "ok", "list": [n, n + 1]} for n in range(5)))
        world.context.compactor.compact(everything=True)
        await upload(world, client, 5, *({"temp": float(n), "state": "hot", "deep": {"x": n}} for n in range(5, 9)))
        await upload(world, client, 9, {"temp": "lost"})

        async def ask(*stages: dict[str, Any]) -> list[dict[str, Any]]:
            return await client.data_client.tabular_data_by_mql(world.organization_id, list(stages))

        yield ask


T = "$data.readings.temp"
BY_TIME = {"$sort": {"time_requested": 1}}


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([{"$count": "n"}], [{"n": 10}]),
        ([{"$match": {"component_name": "oven", "data.readings.temp": {"$gte": 7}}}, {"$count": "n"}], [{"n": 2}]),
        ([{"$match": {"data.readings.temp": {"$ne": 3}}}, {"$count": "n"}], [{"n": 9}]),
        ([{"$match": {"data.readings.temp": "lost"}}, {"$count": "n"}], [{"n": 1}]),
        ([{"$match": {"data.readings.deep.x": {"$exists": True}}}, {"$count": "n"}], [{"n": 4}]),
        (
            [{"$match": {"$or": [{"data.readings.state": "ok"}, {"data.readings.temp": 8}]}}, {"$count": "n"}],
            [{"n": 6}],
        ),
        ([{"$match": {"data.readings.state": {"$in": ["hot", "x"]}, "tags": "bench"}}, {"$count": "n"}], [{"n": 4}]),
        ([{"$match": {"data.readings.state": {"$regex": "^H", "$options": "i"}}}, {"$count": "n"}], [{"n": 4}]),
        (
            [{"$match": {"time_requested": {"$gt": START, "$lte": START + timedelta(minutes=30)}}}, {"$count": "n"}],
            [{"n": 3}],
        ),
        ([{"$match": {"part_id": "another"}}, {"$count": "n"}], []),
        (
            [{"$group": {"_id": "$data.readings.state", "mean": {"$avg": T}, "n": {"$sum": 1}}}, {"$sort": {"n": -1}}],
            [
                {"_id": "ok", "mean": 2.0, "n": 5.0},
                {"_id": "hot", "mean": 6.5, "n": 4.0},
                {"_id": None, "mean": None, "n": 1.0},
            ],
        ),
        (
            [
                {
                    "$group": {
                        "_id": {"h": {"$dateTrunc": {"date": "$time_requested", "unit": "hour"}}},
                        "top": {"$max": T},
                    }
                },
                {"$sort": {"_id.h": -1}},
                {"$limit": 1},
            ],
            [{"_id": {"h": datetime(2026, 3, 4, 6)}, "top": 8.0}],
        ),
        (
            [
                BY_TIME,
                {"$skip": 8},
                {"$project": {"data.readings.temp": 1, "f": {"$add": [{"$multiply": [T, 1.8]}, 32]}}},
            ],
            [{"data": {"readings": {"temp": 8.0}}, "f": 46.4}, {"data": {"readings": {"temp": "lost"}}}],
        ),
        (
            [
                BY_TIME,
                {"$limit": 1},
                {"$unwind": "$data.readings.list"},
                {"$project": {"_id": 0, "v": "$data.readings.list"}},
            ],
            [{"v": 0.0}, {"v": 1.0}],
        ),
        (
            [
                BY_TIME,
                {"$limit": 2},
                {"$addFields": {"data.readings.warm": {"$cond": [{"$gt": [T, 0]}, "yes", "no"]}}},
                {"$project": {"data": 1}},
                {"$unset": "data.readings.list"},
            ],
            [
                {"data": {"readings": {"temp": 0.0, "state": "ok", "warm": "no"}}},
                {"data": {"readings": {"temp": 1.0, "state": "ok", "warm": "yes"}}},
            ],
        ),
        ([{"$sortByCount": "$component_name"}], [{"_id": "oven", "count": 10.0}]),
        (
            [BY_TIME, {"$group": {"_id": None, "first": {"$first": T}, "last": {"$last": T}}}],
            [{"_id": None, "first": 0.0, "last": "lost"}],
        ),
        ([{"$sample": {"size": 3}}, {"$count": "n"}], [{"n": 3}]),
    ],
)
async def test_mql(asked: Ask, stages: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert await asked(*stages) == expected


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ({"$lookup": {"from": "x"}}, "$lookup"),
        ({"$out": "x"}, "$out"),
        ({"$match": {"$where": "1"}}, "$where"),
        ({"$group": {"n": {"$sum": 1}}}, "_id"),
        ({"$project": {"x": {"$function": {}}}}, "$function"),
        ({"$limit": -1}, "$limit"),
        ({"$count": "$x"}, "$count"),
        ({"$match": 5}, "$match"),
    ],
)
async def test_a_stage_that_cannot_be_run_is_named(asked: Ask, stage: dict[str, Any], told: str) -> None:
    with pytest.raises(GRPCError) as refused:
        await asked({"$match": {}}, stage)
    assert refused.value.status is Status.INVALID_ARGUMENT
    assert told in str(refused.value.message)
    assert "Stage 2" in str(refused.value.message)


async def test_names_and_values_in_mql_never_become_sql(asked: Ask) -> None:
    evil = "x'); DROP TABLE origins; --"
    assert await asked({"$match": {f"data.readings.{evil}": evil}}, {"$count": evil}) == []
    [one] = await asked({"$group": {"_id": evil, 'a"b': {"$first": {"$literal": evil}}}})
    assert one == {"_id": evil, 'a"b': evil}


async def test_deleted_readings_are_gone_from_every_answer(world: World) -> None:
    old, kept = {"temp": 1.0}, {"temp": 2.0}
    async with world.client() as client:
        data = client.data_client
        await upload(world, client, 0, old)
        world.context.compactor.compact(everything=True)
        await upload(world, client, 1, old)
        late = datetime.now(UTC) - timedelta(minutes=5)
        await data.tabular_data_capture_upload(
            tabular_data=[{"readings": kept}],
            part_id=world.part_id,
            component_type="rdk:component:sensor",
            component_name="oven",
            method_name="Readings",
            data_request_times=[(late, late)],
        )
        assert await data.delete_tabular_data(world.organization_id, 2) == 2
        found = await data.tabular_data_by_sql(world.organization_id, ALL)
        exported = await data.export_tabular_data(world.part_id, "oven", "rdk:component:sensor", "Readings")
        latest = await data.get_latest_tabular_data(world.part_id, "oven", "rdk:component:sensor", "Readings")
        await upload(world, client, 0, old)  # sent again, it stays deleted
        again = await data.tabular_data_by_sql(world.organization_id, ALL)
        assert await data.delete_tabular_data(world.organization_id, 0) == 1
        nothing = await data.tabular_data_by_sql(world.organization_id, ALL)
    assert found == again == [{"temp": 2.0}]
    assert [one.payload for one in exported] == [{"readings": kept}]
    assert latest is not None
    assert latest[2] == {"readings": kept}
    assert nothing == []


def query_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [one for one in children if one.is_running() and "gleaner.app.lake.worker" in one.cmdline()]


async def test_a_query_whose_client_is_gone_is_stopped(world: World) -> None:
    endless = "SELECT count(*) FROM range(100000) a, range(100000) b, range(100000) c"

    async def until(is_true: Callable[[], bool]) -> None:
        for _ in range(600):
            if is_true():
                return
            await asyncio.sleep(0.05)
        pytest.fail("nothing came of it in 30 s")

    async with world.client() as client:
        asking = asyncio.create_task(client.data_client.tabular_data_by_sql(world.organization_id, endless))
        await until(lambda: any(one.cpu_times().user > 0.5 for one in query_processes()))
        asking.cancel()
        await until(lambda: not query_processes())
        assert len(await client.data_client.tabular_data_by_sql(world.organization_id, "SELECT 1 AS one")) == 1
