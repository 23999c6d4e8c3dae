"""One remote as the machine keeps it: what it says of servers that are different, wrong or absent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from machine_fakes import until
from viam.components.sensor import Sensor
from viam.rpc.server import Server

from gleaner.machine.models.base import BuildContext
from gleaner.machine.remotes.manager import RemoteManager
from gleaner.machine.remotes.remote import Remote
from gleaner.wire.machine_config import RemoteConfig


class Thermometer(Sensor):
    async def get_readings(self, **_: Any) -> dict[str, Any]:
        return {"celsius": 21.5}


@asynccontextmanager
async def sdk_server() -> AsyncIterator[int]:
    """A server as a user writes one with viam-sdk."""
    inner: Any = Server([Thermometer("kitchen")])._server
    await inner.start("127.0.0.1", 0)
    try:
        yield inner._server.sockets[0].getsockname()[1]
    finally:
        inner.close()
        await inner.wait_closed()


@asynccontextmanager
async def remote_at(address: str, **more: Any) -> AsyncIterator[Remote]:
    manager = RemoteManager(None)
    manager.configure(
        [RemoteConfig(name="r1", address=address, reconnect_interval="20ms", **{"insecure": True, **more})]
    )
    try:
        yield manager.remotes[0]
    finally:
        await manager.close()


async def test_a_server_made_with_an_sdk_is_a_remote() -> None:
    async with sdk_server() as port, remote_at(f"127.0.0.1:{port}") as remote:
        await until(lambda: not remote.error)
        [resource] = remote.resources
        assert str(resource.key) == "rdk:component:sensor/r1:kitchen"
        context: Any = BuildContext.__new__(BuildContext)
        sensor: Any = await resource.spec.build(context)
        assert await sensor.get_readings() == {"celsius": 21.5}


@pytest.mark.parametrize(
    ("address", "more", "said"),
    [
        ("127.0.0.1:1", {}, "cannot be reached"),
        ("", {}, "names no host"),
        ("robot:99999", {}, "write it like robot.local:8080"),
        ("127.0.0.1:1", {"insecure": False, "ca_certificate": "no pem"}, "is not a PEM certificate"),
    ],
)
async def test_what_keeps_a_remote_from_being_used_is_said(address: str, more: dict[str, Any], said: str) -> None:
    async with remote_at(address, **more) as remote:
        await until(lambda: said in remote.error)
        assert remote.error.startswith(("remote r1", "address of remote r1", "ca_certificate of remote r1"))
