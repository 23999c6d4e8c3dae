"""Everything between one machine and its app, started and stopped together."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from gleaner.machine.cloud.configuration import ConfigPoller
from gleaner.machine.cloud.connection import AppConnection
from gleaner.machine.cloud.keys import AppKeyVerifier
from gleaner.machine.cloud.link import Link
from gleaner.machine.cloud.logs import LogShipper
from gleaner.machine.cloud.packages import PackageManager
from gleaner.machine.cloud.uploads import PathUploader
from gleaner.machine.home import MachineHome
from gleaner.wire.machine_config import CloudConfig, NetworkConfig

if TYPE_CHECKING:
    from gleaner.machine.machine import Machine

_LOG = logging.getLogger("gleaner.cloud")

_LAST_LOGS_S = 1.0


class CloudService:
    def __init__(self, machine: Machine, home: MachineHome, cloud: CloudConfig, network: NetworkConfig) -> None:
        self._machine = machine
        self._connection = AppConnection(cloud)
        self.verify_key = AppKeyVerifier(self._connection, cloud.id)
        self.packages = PackageManager(
            self._connection, cloud, home.path / "packages", reapply=machine.reapply, is_used=self._is_package_used
        )
        self._poller = ConfigPoller(self._connection, cloud, home.cached_config(cloud.id), machine.apply, network)
        self._poller.on_restart = self._restart
        self.uploader = PathUploader(self._connection, cloud.id)
        self._logs = LogShipper(self._connection, cloud.id)
        self._socket_path = home.socket_path
        self._web_address = ""
        self._link_task: asyncio.Task[None] | None = None
        self._cloud = cloud
        self._link: Link | None = None

    async def start(self) -> None:
        logging.getLogger().addHandler(self._logs)
        if self._connection.is_exposed:
            _LOG.warning(
                "cloud.app_address is http to another computer: this machine's secret travels unencrypted; use https"
            )
        self._machine.spawn(self._poller.run(), "configuration from the app")
        self._machine.spawn(self._logs.run(), "logs to the app")
        self._machine.graph.on_change(self._status_changed)
        self.packages.on_change = self._status_changed
        await self.follow(self._cloud)

    async def follow(self, cloud: CloudConfig) -> None:
        """The HTTP door is the file's, or where the app says that it is; it may move."""
        self.packages.follow(cloud)
        if cloud.web_address == self._web_address:
            return
        self._web_address = cloud.web_address
        if self._link_task is not None:
            self._link_task.cancel()
            await asyncio.wait([self._link_task])
        self._link = Link(cloud, self._socket_path, self._machine.status, self._notice)
        self._link.on_connect = self._app_is_back
        self._link_task = self._machine.spawn(self._link.run(), "link to the app")

    def _status_changed(self) -> None:
        if self._link is not None:
            self._link.status_changed()

    async def stop(self) -> None:
        await self.packages.close()
        logging.getLogger().removeHandler(self._logs)
        await self._logs.flush_last(_LAST_LOGS_S)
        self._connection.close()

    def _notice(self, notice: dict[str, Any]) -> None:
        kind = notice["type"]
        if kind == "config_changed":
            self._poller.poke()
        elif kind == "restart":
            _LOG.info("the app asks for a restart")
            self._restart()
        elif kind == "sync_now":
            self._sync_now(asked=True)

    def _restart(self) -> None:
        from gleaner.machine.machine import Exit

        self._machine.end(Exit.RESTART)

    def _app_is_back(self) -> None:
        """What waits with growing pauses need not wait any longer."""
        self._poller.poke()
        self._sync_now()

    def _sync_now(self, *, asked: bool = False) -> None:
        for node in self._machine.graph.nodes:
            sync_now = getattr(node.instance, "sync_now", None)
            if node.key.subtype == "data_manager" and sync_now is not None:
                sync_now(asked=asked)

    def _is_package_used(self, name: str) -> bool:
        plans = [plan for node in self._machine.graph.nodes for plan in (node.plan, node.target) if plan is not None]
        return any(package.name == name for plan in plans for package in plan.packages)
