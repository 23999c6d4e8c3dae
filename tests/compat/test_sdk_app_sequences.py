"""The unmodified viam-sdk creates, finds, changes and groups sequences; asked twice, the app has one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel
from sdk_app_world import World, app_world
from viam.gen.app.data.v1.data_grpc import DataServiceStub
from viam.proto.app.data import CreateSequenceRequest, SequenceResourceFilter, UpdateSequenceRequest
from viam.proto.app.dataset import DatasetType

from gleaner.app.services.auth_keys import KeyGrant

START = datetime(2026, 3, 4, 5, 6, 7, 123456, tzinfo=UTC)
CAMERA = SequenceResourceFilter(resource_name="cam", method_name="GetImages")
METER = SequenceResourceFilter(resource_name="meter", method_name="Readings")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with app_world(tmp_path_factory.mktemp("app")) as world:
        yield world


def seconds(number: float) -> datetime:
    return START + timedelta(seconds=number)


async def made(world: World, data: object, at: float, tags: list[str] | None = None) -> str:
    create = data.create_sequence  # type: ignore[attr-defined]
    return str(await create(world.part_id, [CAMERA, METER], seconds(at), seconds(at + 10), tags))


async def refused(call: object) -> tuple[Status, str]:
    with pytest.raises(GRPCError) as error:
        await call  # type: ignore[misc]
    return error.value.status, str(error.value.message)


async def test_a_sequence_is_created_once_read_changed_and_deleted(world: World) -> None:
    async with world.client() as client:
        data = client.data_client
        first = await made(world, data, 0, ["pick", "left"])
        assert await made(world, data, 0, ["left", "pick"]) == first  # the order of tags is not part of it
        assert await made(world, data, 1, ["pick", "left"]) != first
        got = await data.get_sequence(first)
        assert (got.id, got.part_id, list(got.sequence_tags)) == (first, world.part_id, ["pick", "left"])
        assert list(got.resources) == [CAMERA, METER]
        assert got.start_time.ToDatetime(UTC) == START
        assert got.end_time.ToDatetime(UTC) == seconds(10)

        await data.update_sequence(first, sequence_tags=[], end_time=seconds(20))
        changed = await data.get_sequence(first)
        assert (list(changed.sequence_tags), changed.end_time.ToDatetime(UTC)) == ([], seconds(20))
        assert list(changed.resources) == [CAMERA, METER]
        assert changed.updated_at.ToNanoseconds() > changed.created_at.ToNanoseconds()
        assert await made(world, data, 0, ["pick", "left"]) == first  # what was sent stays the same one
        assert list((await data.get_sequence(first)).sequence_tags) == []

        await data.delete_sequence(first)
        assert (await refused(data.get_sequence(first)))[0] is Status.NOT_FOUND
        assert await made(world, data, 0, ["pick", "left"]) == first
        assert list((await data.get_sequence(first)).sequence_tags) == ["pick", "left"]


async def test_pages_hold_every_sequence_once_the_newest_first(world: World) -> None:
    async with world.client() as client:
        data = client.data_client
        made_here = {await made(world, data, 1000 + number, ["page"]) for number in range(5)}
        seen: list[str] = []
        token: str | None = None
        while token != "":
            page, token = await data.list_sequences(world.organization_id, token, 2)
            seen += [one.id for one in page if list(one.sequence_tags) == ["page"]]
    assert len(seen) == 5
    assert set(seen) == made_here


async def test_the_items_of_a_sequence_are_those_of_its_resources_in_its_time(world: World) -> None:
    async def upload(at: float, name: str, method: str = "GetImages") -> str:
        return await data.binary_data_capture_upload(
            b"\xff\xd8\xff%d %s" % (int(at * 10), name.encode()),
            part_id=world.part_id,
            component_type="rdk:component:camera",
            component_name=name,
            method_name=method,
            file_extension=".jpg",
            data_request_times=(seconds(at), seconds(at)),
        )

    async with world.client() as client:
        data = client.data_client
        sequence = await data.create_sequence(world.part_id, [CAMERA], seconds(5000), seconds(5002))
        inside = [await upload(5000 + at, "cam") for at in (0, 1, 2)]
        for at, name, method in (
            (4999.9, "cam", "GetImages"),
            (5002.1, "cam", "GetImages"),
            (5001, "other", "GetImages"),
        ):
            await upload(at, name, method)
        await upload(5001.5, "cam", "GetPointCloud")
        first, token = await data.get_sequence_binary_data(sequence, page_size=2)
        rest, end = await data.get_sequence_binary_data(sequence, page_token=token, page_size=2)
    assert [one.metadata.binary_data_id for one in (*first, *rest)] == inside
    assert end == ""


async def test_datasets_of_sequences_hold_sequences_only(world: World) -> None:
    async with world.client() as client:
        data = client.data_client
        kind = DatasetType.DATASET_TYPE_SEQUENCE_DATA
        dataset = await data.create_dataset("runs", world.organization_id, kind)
        pictures = await data.create_dataset("pictures", world.organization_id)
        ids = [await made(world, data, 9000 + number) for number in range(3)]
        await data.add_sequences_to_dataset(dataset, ids)
        await data.add_sequences_to_dataset(dataset, ids[:1])
        await data.remove_sequences_from_dataset(dataset, ids[2:])
        page, token, count = await data.sequences_by_dataset_id(dataset, page_size=1)
        assert ([one.id for one in page], count) == (ids[1:2], 2)
        page, token, _ = await data.sequences_by_dataset_id(dataset, page_token=token, page_size=1)
        assert ([one.id for one in page], token) == (ids[:1], "")
        assert list(page[0].dataset_ids) == [dataset]
        assert (await data.sequences_by_dataset_id(dataset, count_only=True))[::2] == ([], 2)
        await data.delete_sequence(ids[0])
        assert (await data.sequences_by_dataset_id(dataset, count_only=True))[2] == 1

        by_type = {one.name: one.type for one in await data.list_datasets_by_organization_id(world.organization_id)}
        assert by_type == {"runs": kind, "pictures": DatasetType.DATASET_TYPE_BINARY_DATA}
        item = await data.file_upload(world.part_id, b"hello", file_name="a.txt")
        status, message = await refused(data.add_binary_data_to_dataset_by_ids([item], dataset))
        assert (status, "holds sequences" in message) == (Status.INVALID_ARGUMENT, True)
        status, message = await refused(data.add_sequences_to_dataset(pictures, ids))
        assert (status, "not sequences" in message) == (Status.INVALID_ARGUMENT, True)


async def test_what_is_wrong_is_said_precisely(world: World) -> None:
    async with world.client() as client:
        data = client.data_client
        good = await made(world, data, 20)
        cases = [
            (data.create_sequence(world.part_id, [], START, START), Status.INVALID_ARGUMENT, "at least one resource"),
            (data.create_sequence(world.part_id, [CAMERA], seconds(2), START), Status.INVALID_ARGUMENT, "ends before"),
            (data.create_sequence("nobody", [CAMERA], START, START), Status.NOT_FOUND, "no machine part 'nobody'"),
            (data.get_sequence("x"), Status.NOT_FOUND, "no sequence 'x'"),
            (data.delete_sequence("x"), Status.NOT_FOUND, "no sequence 'x'"),
            (data.update_sequence(good, resources=[]), Status.INVALID_ARGUMENT, "at least one resource"),
            (data.list_sequences(world.organization_id, "?"), Status.INVALID_ARGUMENT, "no page token"),
            (data.list_sequences("elsewhere"), Status.NOT_FOUND, "no organization elsewhere"),
            (data.sequences_by_dataset_id("x"), Status.NOT_FOUND, "no dataset x"),
            (data.add_sequences_to_dataset("x", [good]), Status.NOT_FOUND, "no dataset x"),
        ]
        for call, status, words in cases:
            got, message = await refused(call)
            assert (got, words in message) == (status, True), message
        stub: DataServiceStub = data._data_client
        mask = UpdateSequenceRequest(id=good)
        mask.field_mask.paths.append("part_id")
        status, message = await refused(stub.UpdateSequence(mask, metadata=data._metadata))
        assert (status, "'part_id'" in message) == (Status.INVALID_ARGUMENT, True)


async def test_a_machine_creates_its_own_sequences_and_deletion_outlives_its_repetition(world: World) -> None:
    """As viam-server does, which repeats a call whose answer was lost."""
    context = world.context
    secret = context.fleet.new_secret(world.owner, world.part_id)
    other = context.fleet.create_machine(world.owner, "other", world.location_id)
    host, _, port = context.addresses.grpc.rpartition("//")[2].rpartition(":")
    request = CreateSequenceRequest(part_id=world.part_id, resources=[CAMERA], sequence_tags=["own"])
    request.start_time.FromDatetime(seconds(30))
    request.end_time.FromDatetime(seconds(31))
    channel = Channel(host, int(port))
    try:
        token = await asyncio.to_thread(context.auth.authenticate, "robot-secret", world.part_id, secret)
        stub, metadata = DataServiceStub(channel), {"authorization": f"Bearer {token}"}
        first = (await stub.CreateSequence(request, metadata=metadata)).id
        assert (await stub.CreateSequence(request, metadata=metadata)).id == first
        async with world.client() as client:
            await client.data_client.delete_sequence(first)
            await stub.CreateSequence(request, metadata=metadata)
            assert (await refused(client.data_client.get_sequence(first)))[0] is Status.NOT_FOUND
        request.part_id = other.main.id
        status, _ = await refused(stub.CreateSequence(request, metadata=metadata))
        assert status is Status.PERMISSION_DENIED
    finally:
        channel.close()


async def test_operators_read_sequences_and_strangers_see_none(world: World) -> None:
    context, owner = world.context, world.owner
    elsewhere = context.fleet.create_machine(owner, "elsewhere", world.location_id)
    operator = context.api_keys.create(
        owner, world.organization_id, "op", [KeyGrant("operator", "organization", world.organization_id)]
    )
    stranger = context.api_keys.create(
        owner, world.organization_id, "other machine", [KeyGrant("owner", "robot", elsewhere.id)]
    )
    async with world.client() as client:
        sequence = await made(world, client.data_client, 40)
    async with world.client(operator.key, operator.id) as client:
        assert (await client.data_client.get_sequence(sequence)).id == sequence
        assert (await refused(client.data_client.delete_sequence(sequence)))[0] is Status.PERMISSION_DENIED
    async with world.client(stranger.key, stranger.id) as client:
        assert (await refused(client.data_client.get_sequence(sequence)))[0] is Status.NOT_FOUND
        assert await client.data_client.list_sequences(world.organization_id) == ([], "")
