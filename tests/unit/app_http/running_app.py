"""A real app on loopback ports, in its own thread, with the first owner logged in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from gleaner.app.caller import Caller
from gleaner.app.context import AppContext
from gleaner.app.server import serve
from gleaner.app.settings import Settings


@dataclass
class RunningApp:
    context: AppContext
    owner: Caller
    client: httpx.Client

    @property
    def web(self) -> str:
        return self.context.addresses.web

    @property
    def organization_id(self) -> str:
        return next(iter(self.owner.organization_ids()))

    def new_part(self, name: str = "rover") -> tuple[str, str]:
        """(part id, secret) of a new machine's main part."""
        fleet = self.context.fleet
        location = fleet.locations(self.owner, self.organization_id)[0]
        part = fleet.create_machine(self.owner, name, location.id).parts[0]
        return part.id, fleet.new_secret(self.owner, part.id)


@contextmanager
def running_app(data_dir: Path, **settings: object) -> Iterator[RunningApp]:
    chosen = Settings.model_validate({"data_dir": data_dir, "port": 0, "grpc_port": 0, **settings})
    ready = threading.Event()
    found: list[AppContext] = []
    failure: list[BaseException] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def on_ready(context: AppContext) -> None:
        found.append(context)
        ready.set()

    def run() -> None:
        try:
            loop.run_until_complete(serve(chosen, stop, on_ready))
            loop.run_until_complete(loop.shutdown_default_executor())
        except BaseException as err:  # noqa: BLE001 - raised in the test
            failure.append(err)
        finally:
            loop.close()
            ready.set()

    thread = threading.Thread(target=run, name="app under test")
    thread.start()
    try:
        assert ready.wait(60)
        if failure:
            raise failure[0]
        context = found[0]
        session = context.auth.redeem_login_link(context.auth.create_login_link())
        cookies = {"gleaner_session": session.token}
        with httpx.Client(base_url=context.addresses.web, cookies=cookies, timeout=30, trust_env=False) as client:
            yield RunningApp(context, context.auth.first_owner(), client)
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        assert not failure
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        assert not thread.is_alive()
