"""A call of each of DataClient's methods about data pipelines: `call_<method>`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from grpclib import GRPCError, Status
from sdk_data_world import START, Called
from viam.app.data_client import DataClient
from viam.proto.app.data import TabularDataSourceType
from viam.proto.app.datapipelines import (
    DataPipelineRunStatus,
    DisableDataPipelineRequest,
)

SINK = TabularDataSourceType.TABULAR_DATA_SOURCE_TYPE_PIPELINE_SINK
EVERY_MINUTE = "* * * * *"


def most_of(component: str) -> list[dict[str, Any]]:
    grouped = {"_id": "$component_name", "n": {"$sum": 1}}
    return [{"$match": {"component_name": component}}, {"$group": grouped}]


async def made(c: Called, name: str, *, backfill: bool = False) -> str:
    return await c.data.create_data_pipeline(c.organization_id, name, most_of(name), EVERY_MINUTE, backfill)


async def completed(c: Called, pipeline: str) -> list[DataClient.DataPipelineRun]:
    """Waits until a run has been completed."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        runs = (await c.data.list_data_pipeline_runs(pipeline)).runs
        if any(one.status == DataPipelineRunStatus.DATA_PIPELINE_RUN_STATUS_COMPLETED for one in runs):
            return runs
        await asyncio.sleep(0.05)
    raise AssertionError(f"no run of the pipeline was completed; the last seen: {runs}")


async def call_create_data_pipeline(c: Called) -> None:
    """Its results are asked like readings, and are none."""
    await c.readings("milled", 1, 2, 3)
    pipeline = await made(c, "milled", backfill=True)
    await completed(c, pipeline)
    found = await c.data.tabular_data_by_mql(
        c.organization_id,
        [{"$match": {"n": {"$gt": 0}}}],
        tabular_data_source_type=SINK,
        pipeline_id=pipeline,
    )
    assert [(one["_id"], one["n"]) for one in found] == [("milled", 3)]
    assert found[0]["_viam_pipeline_run"]["organization_id"] == c.organization_id
    with pytest.raises(GRPCError, match="five fields") as refused:
        await c.data.create_data_pipeline(c.organization_id, "never", most_of("x"), "every day", False)
    assert refused.value.status is Status.INVALID_ARGUMENT
    await c.data.delete_data_pipeline(pipeline)


async def call_get_data_pipeline(c: Called) -> None:
    pipeline = await made(c, "got")
    found = await c.data.get_data_pipeline(pipeline)
    assert (found.name, found.schedule, found.enabled) == ("got", EVERY_MINUTE, True)
    assert found.mql_binary == most_of("got")
    await c.data.delete_data_pipeline(pipeline)


async def call_list_data_pipelines(c: Called) -> None:
    both = [await made(c, name) for name in ("listed-b", "listed-a")]
    found = [one.id for one in await c.data.list_data_pipelines(c.organization_id) if one.name.startswith("listed-")]
    assert found == both[::-1]
    for one in both:
        await c.data.delete_data_pipeline(one)


async def call_rename_data_pipeline(c: Called) -> None:
    pipeline, other = await made(c, "before"), await made(c, "taken")
    await c.data.rename_data_pipeline(pipeline, "after")
    assert (await c.data.get_data_pipeline(pipeline)).name == "after"
    with pytest.raises(GRPCError) as refused:
        await c.data.rename_data_pipeline(pipeline, "taken")
    assert refused.value.status is Status.ALREADY_EXISTS
    for one in (pipeline, other):
        await c.data.delete_data_pipeline(one)


async def call_delete_data_pipeline(c: Called) -> None:
    pipeline = await made(c, "gone")
    await c.data.delete_data_pipeline(pipeline)
    with pytest.raises(GRPCError) as gone:
        await c.data.get_data_pipeline(pipeline)
    assert gone.value.status is Status.NOT_FOUND


async def call_list_data_pipeline_runs(c: Called) -> None:
    await c.readings("ran", 1, 2)
    pipeline = await made(c, "ran", backfill=True)
    await completed(c, pipeline)
    await c.data._data_pipelines_client.DisableDataPipeline(
        DisableDataPipelineRequest(id=pipeline), metadata=c.data._metadata
    )
    page, runs = await c.data.list_data_pipeline_runs(pipeline, page_size=1), []
    while page.runs:
        assert len(page.runs) == 1
        runs += page.runs
        page = await page.next_page()
    assert {one.error_message for one in runs} == {""}
    assert {(one.data_end_time - one.data_start_time).total_seconds() for one in runs} == {60}
    moment = START.replace(tzinfo=None)
    assert [one.data_start_time <= moment < one.data_end_time for one in runs].count(True) == 1
    await c.data.delete_data_pipeline(pipeline)
