"""A really started app in a thread of its own, and an unmodified viam-sdk client for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from viam.app.viam_client import ViamClient
from viam.rpc.dial import DialOptions

from gleaner.app.caller import Caller
from gleaner.app.context import AppContext
from gleaner.app.server import AppServer
from gleaner.app.services.auth_keys import KeyGrant
from gleaner.app.settings import Settings


@dataclass
class World:
    """A running app with one machine and an owner's key."""

    context: AppContext
    owner: Caller
    organization_id: str
    location_id: str
    machine_id: str
    part_id: str
    key_id: str
    key: str

    @asynccontextmanager
    async def client(self, key: str = "", key_id: str = "") -> AsyncIterator[ViamClient]:
        options = DialOptions.with_api_key(key or self.key, key_id or self.key_id)
        options.insecure = True
        client = await ViamClient.create_from_dial_options(options, app_url=self.context.addresses.grpc)
        try:
            yield client
        finally:
            client.close()


@contextmanager
def running_app(data_dir: Path) -> Iterator[AppContext]:
    """The app on its own event loop, as in a process of its own: the SDK may block the test's loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="app loop")
    thread.start()
    server = AppServer(Settings(data_dir=data_dir, port=0, grpc_port=0))
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
        yield server.context
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def app_world(data_dir: Path) -> Iterator[World]:
    with running_app(data_dir) as context:
        owner = context.auth.first_owner()
        organization = context.fleet.organizations(owner)[0]
        location = context.fleet.locations(owner, organization.id)[0]
        machine = context.fleet.create_machine(owner, "rover", location.id)
        grant = KeyGrant("owner", "organization", organization.id)
        key = context.api_keys.create(owner, organization.id, "script", [grant])
        yield World(context, owner, organization.id, location.id, machine.id, machine.main.id, key.id, key.key)
