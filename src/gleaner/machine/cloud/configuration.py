"""The configuration from the app: polled, applied, kept in a cache for a start without the app."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import platform
import random
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from grpclib import Status
from viam.proto.app.robot import AgentInfo, ConfigRequest, NeedsRestartRequest, RobotServiceStub

from gleaner import __version__
from gleaner.machine.cloud.connection import AppConnection, AppError, AppRefused, AppUnreachable
from gleaner.machine.cloud.reachability import Reachability
from gleaner.machine.home import write_private
from gleaner.wire.machine_config import CloudConfig, ConfigProblem, MachineConfig, NetworkConfig, parse_config
from gleaner.wire.robot_config import from_proto

_LOG = logging.getLogger("gleaner.cloud.config")

#: The app says with these that the configuration itself is wrong; everything else is the app's or the network's trouble.
_BAD_CONFIG = frozenset({Status.UNKNOWN, Status.INVALID_ARGUMENT, Status.FAILED_PRECONDITION})


class ConfigPoller:
    """`run` until cancelled; `poke` for a poll now. `network` is what the local file says of it, if anything."""

    def __init__(
        self,
        connection: AppConnection,
        cloud: CloudConfig,
        cache: Path,
        apply: Callable[[MachineConfig], Awaitable[None]],
        network: NetworkConfig | None = None,
    ) -> None:
        self._connection = connection
        self._cloud = cloud
        self._cache = cache
        self._apply = apply
        self._network = network or NetworkConfig()
        self._current: dict[str, Any] | None = None
        self._rejected: dict[str, Any] | None = None
        self._poked = asyncio.Event()
        self._app = Reachability(_LOG, f"app {connection.address}")
        self._asks_for_restart = True
        self.on_restart: Callable[[], None] = lambda: None

    def poke(self) -> None:
        self._poked.set()

    async def run(self) -> None:
        while True:
            self._poked.clear()
            try:
                await self._poll()
            except Exception:  # noqa: BLE001 (the top of this task: without it the machine would never be configured again)
                _LOG.exception("asking the app for the configuration failed; it is asked again")
            interval_s = self._cloud.refresh_interval_s * random.uniform(0.9, 1.1)
            wait_s = interval_s if self._current is not None else min(2.0, interval_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._poked.wait()

    async def _poll(self) -> None:
        try:
            request = ConfigRequest(id=self._cloud.id, agent_info=await asyncio.to_thread(agent_info))
            response = await self._connection.call(RobotServiceStub, "Config", request)
            self._app.good()
            config = from_proto(response.config)
            if self._connection.web_address:
                config["cloud"] = {**(config.get("cloud") or {}), "web_address": self._connection.web_address}
            await self._take(config)
            await self._check_restart()
        except AppUnreachable as error:
            self._app.bad(str(error))
            await self._start_from_cache()
        except AppRefused as error:
            self._app.bad(_explain(error))
            await self._start_from_cache()
        except ConfigProblem as problem:
            self._app.bad(f"{problem}; the running configuration stays")

    async def _take(self, config: dict[str, Any]) -> None:
        if config in (self._current, self._rejected):
            return
        self._rejected = config
        await self._apply(self._parse(config, "the app's configuration"))
        self._current, self._rejected = config, None
        try:
            await asyncio.to_thread(write_private, self._cache, json.dumps(config, ensure_ascii=False).encode())
        except OSError as error:
            _LOG.warning("the configuration could not be kept for a start without the app: %s", error)

    async def _start_from_cache(self) -> None:
        if self._current is not None or not self._cache.exists():
            return
        try:
            config = json.loads(await asyncio.to_thread(self._cache.read_text, encoding="utf-8"))
            parsed = self._parse(config, str(self._cache))
        except (OSError, ValueError) as error:
            _LOG.warning("the kept configuration cannot be used: %s", error)
            return
        _LOG.info("starting with the configuration kept from the last run")
        self._current = config
        await self._apply(parsed)

    def _parse(self, config: Mapping[str, Any], source: str) -> MachineConfig:
        """What the local file says about the app, and about this computer's network, wins over the app's words."""
        cloud = self._cloud.model_dump(by_alias=True, exclude_defaults=True)
        network = self._network.model_dump(exclude_unset=True)
        local = {
            "cloud": {**(config.get("cloud") or {}), **cloud},
            "network": {**(config.get("network") or {}), **network},
        }
        return parse_config({**config, **local}, source)

    async def _check_restart(self) -> None:
        if not self._asks_for_restart:
            return
        try:
            response = await self._connection.call(
                RobotServiceStub, "NeedsRestart", NeedsRestartRequest(id=self._cloud.id)
            )
        except AppRefused as error:
            self._asks_for_restart = error.status is not Status.UNIMPLEMENTED
            return
        except AppError:
            return
        if response.must_restart:
            _LOG.info("the app asks for a restart")
            self.on_restart()


def agent_info() -> AgentInfo:
    """What the app shows about this machine."""
    ips = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family is socket.AF_INET and not address.address.startswith("127.")
    ]
    return AgentInfo(
        host=socket.gethostname(),
        os=platform.system().lower(),
        ips=ips,
        version=f"gleaner-{__version__}",
        platform=platform_name(),
    )


def platform_name() -> str:
    """Viam's form, e.g. `linux/amd64` or `linux/arm64`."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"


def _explain(error: AppRefused) -> str:
    if error.status in (Status.UNAUTHENTICATED, Status.PERMISSION_DENIED, Status.NOT_FOUND):
        return (
            f"it does not accept this machine ({error}): make a new secret on the machine's CONNECT page and replace "
            "machine.json (an api_key must have the owner's role on this machine)"
        )
    if error.status in _BAD_CONFIG:
        return f"it cannot deliver this machine's configuration: {error}"
    return f"it refuses to deliver the configuration: {error}"
