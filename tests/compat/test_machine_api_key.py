"""A machine with Viam's newer machine.json: an API key in place of a secret, and the app's gRPC address only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from machine_process import running_machine
from sdk_app_world import World, app_world

from gleaner.app.services.auth_keys import ApiKey, KeyGrant
from gleaner.app.services.items_values import ItemFilter

CAPTURE = {"capture_methods": [{"method": "Readings", "capture_frequency_hz": 20}]}
CONFIG: dict[str, Any] = {
    "network": {"bind_address": "localhost:0"},
    "components": [
        {
            "name": "meter",
            "api": "rdk:component:sensor",
            "model": "fake",
            "service_configs": [{"type": "data_manager", "attributes": CAPTURE}],
        }
    ],
    "services": [
        {"name": "dm", "api": "rdk:service:data_manager", "attributes": {"maximum_capture_file_size_bytes": 200}}
    ],
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with app_world(tmp_path / "app") as world:
        world.context.fleet.put_config(world.owner, world.part_id, CONFIG, None)
        yield world


def key_for(world: World, role: str) -> ApiKey:
    return world.context.api_keys.create(
        world.owner, world.organization_id, role, [KeyGrant(role, "robot", world.machine_id)]
    )


def machine_json(world: World, key: ApiKey) -> dict[str, Any]:
    return {
        "cloud": {
            "id": world.part_id,
            "api_key": {"id": key.id, "key": key.key},
            "app_address": world.context.addresses.grpc,
        },
        "network": {"bind_address": "localhost:0"},
    }


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 (the condition is in another process)
            await asyncio.sleep(0.05)


def readings(world: World) -> int:
    return int(world.context.readings.count(world.owner, ItemFilter(part_ids=(world.part_id,))))


async def test_a_machine_with_an_api_key_is_configured_shown_and_syncs(world: World, tmp_path: Path) -> None:
    def shown() -> Any:
        """What only the link brings."""
        headers = {"key_id": world.key_id, "key": world.key}
        address = f"{world.context.addresses.web}/api/parts/{world.part_id}/status"
        return httpx.get(address, headers=headers, trust_env=False).json()["capture"]

    with running_machine(tmp_path, machine_json(world, key_for(world, "owner"))) as machine:
        await until(lambda: readings(world) >= 20)
        await until(shown)
        await until(lambda: world.context.fleet.part(world.owner, world.part_id).info.get("port") == machine.port)
    assert not (tmp_path / "home" / "capture" / "failed").exists()
    # Without the app it starts again with what the app had said, its address included.
    [cached] = (tmp_path / "home").glob("*config*.json")
    assert json.loads(cached.read_text())["cloud"]["web_address"] == world.context.addresses.web


def test_the_http_door_takes_an_owners_key_for_a_part_and_no_other(world: World) -> None:
    good, weak = key_for(world, "owner"), key_for(world, "operator")
    other = world.context.fleet.create_machine(world.owner, "other", world.location_id).main.id

    def status(part_id: str, key: ApiKey, text: str = "") -> int:
        headers = {"part_id": part_id, "key_id": key.id, "key": text or key.key}
        return httpx.get(f"{world.context.addresses.web}/api/auth/me", headers=headers, trust_env=False).status_code

    assert status(world.part_id, good) == 200
    assert status(world.part_id, good, "wrong") == 401
    assert status(world.part_id, weak) == 403
    assert status(other, good) == 403
    assert status("nobody", good) == 401
