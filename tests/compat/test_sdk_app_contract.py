"""Every public method of the unmodified `DataClient`, and every method of the services behind it, has its say here.

A method that a newer viam-sdk adds fails these tests until it is called in one of the `sdk_*_calls` files or named in
`_LEFT_OUT` with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import bson
import pytest
import sdk_data_calls
import sdk_pipeline_calls
import sdk_set_calls
import viam.gen.app.datapipelines.v1.data_pipelines_pb2  # noqa: F401 (the generated stub names it without importing)
from grpclib import GRPCError, Status
from sdk_app_world import World, app_world
from sdk_data_world import Called
from viam.app.data_client import DataClient
from viam.gen.app.data.v1 import data_pb2 as pb
from viam.gen.app.data.v1.data_grpc import DataServiceStub
from viam.gen.app.datapipelines.v1.data_pipelines_grpc import DataPipelinesServiceStub
from viam.gen.app.dataset.v1.dataset_grpc import DatasetServiceStub
from viam.gen.app.datasync.v1.data_sync_grpc import DataSyncServiceStub
from viam.gen.app.packages.v1.packages_grpc import PackageServiceStub

_LEFT_OUT: dict[str, str] = {}
_STUBS = (DataServiceStub, DatasetServiceStub, DataSyncServiceStub, PackageServiceStub, DataPipelinesServiceStub)
_UNSUPPORTED = {
    "GetDatabaseConnection": "There is no MongoDB; the answer says how to ask instead.",
    "ConfigureDatabaseUser": "There is no MongoDB; the answer says how to ask instead.",
}

Call = Callable[[Called], Awaitable[None]]


def _calls() -> dict[str, Call]:
    found: dict[str, Call] = {}
    for module in (sdk_data_calls, sdk_pipeline_calls, sdk_set_calls):
        found |= {name.removeprefix("call_"): one for name, one in vars(module).items() if name.startswith("call_")}
    # It deletes what the others made.
    return dict(sorted(found.items(), key=lambda one: (one[0] == "delete_tabular_data", one[0])))


CALLS = _calls()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with app_world(tmp_path_factory.mktemp("app")) as world:
        yield world


def test_every_method_of_the_data_client_is_called_here_or_left_out_with_a_reason() -> None:
    public = {
        name
        for name, member in inspect.getmembers(DataClient)
        if not name.startswith("_") and not inspect.isclass(member)
    }
    assert public == CALLS.keys() | _LEFT_OUT.keys()
    assert not CALLS.keys() & _LEFT_OUT.keys()


@pytest.mark.parametrize("method", CALLS)
async def test_the_method_does_what_it_says(world: World, method: str) -> None:
    async with world.client() as client:
        await CALLS[method](Called(world, client.data_client))


async def test_every_method_of_the_services_is_there_or_left_out_with_a_reason(world: World) -> None:
    """Asked with an empty request, a method says what is wrong with it, or answers."""
    missing = set()
    async with world.client() as client:
        channel, metadata = client._channel, client.data_client._metadata
        for stub in (kind(channel) for kind in _STUBS):
            for name, method in vars(stub).items():
                if await _status(method, metadata) is Status.UNIMPLEMENTED:
                    missing.add(name)
    assert missing == _UNSUPPORTED.keys()


async def _status(method: Any, metadata: Any) -> Status | None:
    try:
        async with method.open(metadata=metadata, timeout=30) as stream:
            await stream.send_message(method.request_type(), end=True)
            async for _ in stream:
                pass
    except GRPCError as error:
        return error.status
    return None


async def test_saved_queries_are_made_found_changed_and_deleted(world: World) -> None:
    """Newer clients of Viam's have them, the Python SDK not yet: through the stub."""
    async with world.client() as client:
        service, metadata = DataServiceStub(client._channel), client.data_client._metadata
        organization = world.organization_id
        await Called(world, client.data_client).readings("saved", 1, 2, 3)
        match, count = [_stage("$match", {"component_name": "saved"})], _stage("$count", "n")

        request = pb.CreateSavedQueryRequest(organization_id=organization, name="of the oven", mql_binary=match)
        made = await service.CreateSavedQuery(request, metadata=metadata)
        with pytest.raises(GRPCError) as twice:
            await service.CreateSavedQuery(request, metadata=metadata)
        assert twice.value.status is Status.ALREADY_EXISTS
        with pytest.raises(GRPCError, match=r"Stage 1, .lookup") as bad:
            lookup = pb.CreateSavedQueryRequest(
                organization_id=organization, name="x", mql_binary=[_stage("$lookup", {})]
            )
            await service.CreateSavedQuery(lookup, metadata=metadata)
        assert bad.value.status is Status.INVALID_ARGUMENT

        asked = await client.data_client.tabular_data_by_mql(
            organization, [{"$count": "n"}], query_prefix_name="of the oven"
        )
        assert asked == [{"n": 3}]
        await service.UpdateSavedQuery(
            pb.UpdateSavedQueryRequest(id=made.id, name="counted", mql_binary=[*match, count]), metadata=metadata
        )
        got = (await service.GetSavedQuery(pb.GetSavedQueryRequest(id=made.id), metadata=metadata)).saved_query
        assert (got.name, list(got.mql_binary)) == ("counted", [*match, count])
        assert got.updated_at.ToNanoseconds() > got.created_on.ToNanoseconds()
        listing = pb.ListSavedQueriesRequest(organization_id=organization, limit=10)
        listed = await service.ListSavedQueries(listing, metadata=metadata)
        assert [one.id for one in listed.queries] == [made.id]
        await service.DeleteSavedQuery(pb.DeleteSavedQueryRequest(id=made.id), metadata=metadata)
        assert list((await service.ListSavedQueries(listing, metadata=metadata)).queries) == []
        with pytest.raises(GRPCError) as gone:
            await service.GetSavedQuery(pb.GetSavedQueryRequest(id=made.id), metadata=metadata)
        assert gone.value.status is Status.NOT_FOUND


def _stage(name: str, given: Any) -> bytes:
    return bytes(bson.encode({name: given}))
