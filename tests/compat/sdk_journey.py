"""Steps that the SDK's journey takes: a key over REST, clients with it, pictures to upload, and poses to drive to."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
from viam.app.data_client import DataClient
from viam.app.viam_client import ViamClient
from viam.components.base import Base
from viam.robot.client import RobotClient
from viam.rpc.dial import DialOptions

from demo_stack import DemoStack
from gleaner.sim import views
from gleaner.sim.geometry import Pose

T = TypeVar("T")


@dataclass(frozen=True)
class Key:
    """An API key, and the organization it opens."""

    organization_id: str
    id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"key_id": self.id, "key": self.key}

    @property
    def dial(self) -> DialOptions:
        options = DialOptions.with_api_key(self.key, self.id)
        options.insecure = True  # as the Connect tab says: on loopback the demo speaks without TLS
        return options


async def make_key(demo: DemoStack) -> Key:
    """As a person does it: follow the printed link, then create a key under Settings."""
    async with httpx.AsyncClient(base_url=demo.web, headers={"Origin": demo.web}, trust_env=False) as web:
        await web.get(demo.login_url)
        me = (await web.get("/api/auth/me")).raise_for_status().json()
        organization = me["organizations"][0]["id"]
        body = {"name": "journey", "resource_type": "organization", "resource_id": organization, "role": "owner"}
        made = (await web.post(f"/api/organizations/{organization}/keys", json=body)).raise_for_status().json()
    return Key(organization, made["id"], made["key"])


@asynccontextmanager
async def app_client(demo: DemoStack, key: Key) -> AsyncIterator[ViamClient]:
    address = f"http://127.0.0.1:{demo.ports[1]}"
    client = await ViamClient.create_from_dial_options(key.dial, app_url=address)
    try:
        yield client
    finally:
        client.close()


@asynccontextmanager
async def robot_client(demo: DemoStack, key: Key) -> AsyncIterator[RobotClient]:
    options = RobotClient.Options(
        dial_options=key.dial, log_level=logging.CRITICAL + 1, check_connection_interval=0, refresh_interval=0
    )
    client = await RobotClient.at_address(demo.machine_address, options)
    try:
        yield client
    finally:
        await client.close()
        # The heartbeat thread of the SDK ends by itself once the session is reset.
        await asyncio.to_thread(client._sessions_client.reset)
        client._sessions_client._pool.shutdown()


async def until(ask: Callable[[], Awaitable[T]], holds: Callable[[T], object], seconds: float, what: str) -> T:
    """The first answer that holds; fails with the last one."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await ask()
        if holds(answer):
            return answer
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}; the last answer was {answer}"
        await asyncio.sleep(0.1)


async def upload_by_all_ways(
    data: DataClient, part_id: str, folder: Path, label: str | None, count: int, seed: int
) -> list[str]:
    """Views of one label (None: of no sign), each third by another call; tagged with its label where the call can."""
    tags = [label] if label else []
    source = {"component_type": "rdk:component:camera", "component_name": "cam", "method_name": "GetImages"}
    ids = []
    for number, view in enumerate(views.labelled_views(label, count, seed)):
        if number % 3 == 0:
            made = data.binary_data_capture_upload(
                view.jpeg, part_id=part_id, file_extension=".jpg", tags=tags, **source
            )
        elif number % 3 == 1:
            path = folder / f"{label or 'nothing'}-{number}.jpg"
            path.write_bytes(view.jpeg)
            made = data.file_upload_from_path(str(path), part_id=part_id, tags=tags, **source)
        else:
            made = data.streaming_data_capture_upload(view.jpeg, part_id=part_id, file_ext="jpg", tags=tags, **source)
        ids.append(await made)
    return ids


async def pose_of(base: Base) -> Pose:
    said = await base.do_command({"get_pose": {}})
    return Pose(float(said["x_mm"]), float(said["y_mm"]), float(said["heading_deg"]))


async def drive_to(base: Base, target: Pose) -> None:
    """Turn, go straight, turn: there is nothing in the way inside the arena."""
    here = await pose_of(base)
    away = math.hypot(target.x_mm - here.x_mm, target.y_mm - here.y_mm)
    bearing = math.degrees(math.atan2(target.y_mm - here.y_mm, target.x_mm - here.x_mm))
    await base.spin(turn_between(here.heading_deg, bearing), 100)
    await base.move_straight(round(away), 800)
    await base.spin(turn_between((await pose_of(base)).heading_deg, target.heading_deg), 100)


def turn_between(from_deg: float, to_deg: float) -> float:
    """Degrees to turn left (negative: right), the short way."""
    return (to_deg - from_deg + 180) % 360 - 180


def pose_in_front_of(label: str, seed: int) -> Pose:
    return views.single_sign_pose(label, np.random.default_rng(seed))
