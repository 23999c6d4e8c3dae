"""The unmodified viam-sdk manages organizations, locations, machines, parts and keys."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from sdk_app_world import World, app_world, running_app
from viam.app.app_client import APIKeyAuthorization
from viam.app.viam_client import ViamClient
from viam.rpc.dial import DialOptions

from gleaner.app.services.logs import NewLine

CONFIG = {"components": [{"name": "cam", "api": "rdk:component:camera", "model": "rdk:builtin:fake"}], "services": []}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with app_world(tmp_path) as world:
        yield world


async def test_machines_are_made_found_renamed_and_deleted(world: World) -> None:
    async with world.client() as client:
        app = client.app_client
        [organization] = await app.list_organizations()
        assert organization.id == world.organization_id
        place = await app.create_location(world.organization_id, "barn")
        robot = await app.new_robot("tractor", place.id)
        assert [one.name for one in await app.list_robots(place.id)] == ["tractor"]
        await app.update_robot(robot, "harvester", place.id)
        assert (await app.get_robot(robot)).name == "harvester"
        [part] = await app.get_robot_parts(robot)
        assert part.main_part
        await app.delete_robot(robot)
        with pytest.raises(GRPCError) as told:
            await app.get_robot(robot)
        assert told.value.status is Status.NOT_FOUND


async def test_a_configuration_is_saved_read_and_remembered(world: World) -> None:
    async with world.client() as client:
        app = client.app_client
        await app.update_robot_part(world.part_id, "rover-main", CONFIG)
        saved = await app.get_robot_part(world.part_id)
        assert saved.robot_config == CONFIG
        await app.update_robot_part(world.part_id, "rover-main", {"components": [], "services": []})
        history = await app.get_robot_part_history(world.part_id)
        assert history[0].old.robot_config == CONFIG
        with pytest.raises(GRPCError, match=r"components\[0\]\.name"):
            await app.update_robot_part(world.part_id, "rover-main", {"components": [{"name": "a b", "api": "x:y:z"}]})


async def test_logs_are_newest_first_and_paged(world: World) -> None:
    lines = [NewLine(0, "error" if n % 2 else "info", "rdk", f"line {n}") for n in range(5)]
    secret = world.context.fleet.new_secret(world.owner, world.part_id)
    part = world.context.auth.part_caller(world.part_id, secret)
    world.context.logs.append(part, world.part_id, lines)
    async with world.client() as client:
        every = await client.app_client.get_robot_part_logs(world.part_id)
        errors = await client.app_client.get_robot_part_logs(world.part_id, log_levels=["error"])
    assert [line.message for line in every] == [f"line {n}" for n in (4, 3, 2, 1, 0)]
    assert [line.message for line in errors] == ["line 3", "line 1"]


async def test_keys_open_what_they_were_given_and_nothing_more(world: World) -> None:
    async with world.client() as client:
        app = client.app_client
        wish = APIKeyAuthorization(role="operator", resource_type="robot", resource_id=world.machine_id)
        key, key_id = await app.create_key(world.organization_id, [wish], "reader")
        assert {one.api_key.name for one in await app.list_keys(world.organization_id)} == {"script", "reader"}
        options = DialOptions.with_api_key(key, key_id)
        options.insecure = True
        reader = await ViamClient.create_from_dial_options(options, app_url=world.context.addresses.grpc)
        try:
            assert (await reader.app_client.get_robot(world.machine_id)).name == "rover"
            with pytest.raises(GRPCError) as told:
                await reader.app_client.delete_robot(world.machine_id)
            assert told.value.status is Status.PERMISSION_DENIED
            await app.delete_key(key_id)
            with pytest.raises(GRPCError) as told:
                await reader.app_client.get_robot(world.machine_id)
            assert told.value.status is Status.UNAUTHENTICATED
        finally:
            reader.close()


async def test_a_wrong_key_is_refused(world: World) -> None:
    status = None
    with warnings.catch_warnings():
        # The SDK does not close its channel when it is refused.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            async with world.client("wrong"):
                pass
        except GRPCError as error:
            status = error.status
        gc.collect()
    assert status is Status.UNAUTHENTICATED


async def test_what_is_missing_says_its_name(world: World) -> None:
    async with world.client() as client:
        with pytest.raises(GRPCError, match=r"viam\.app\.v1\.AppService/GetFragment") as fragment:
            await client.app_client.get_fragment("some")
        with pytest.raises(GRPCError, match="GetCurrentMonthUsage") as billing:
            await client.billing_client.get_current_month_usage(world.organization_id)
    assert {fragment.value.status, billing.value.status} == {Status.UNIMPLEMENTED}


async def test_a_token_outlives_a_restart_of_the_app(tmp_path: Path) -> None:
    with app_world(tmp_path) as world:
        token = world.context.auth.authenticate("api-key", world.key_id, world.key)
    with running_app(tmp_path) as context:
        assert context.auth.bearer_caller(token).id == world.key_id
