"""A running machine: one configuration at a time, its resources, its robot API and its connection to the app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from gleaner.machine import models
from gleaner.machine.cloud.service import CloudService
from gleaner.machine.graph import ResourceGraph
from gleaner.machine.home import MachineHome
from gleaner.machine.host import MachineHost
from gleaner.machine.metrics import MetricsServer
from gleaner.machine.models.base import ListedModel
from gleaner.machine.modules.manager import ModuleManager, remove_leftover_sockets
from gleaner.machine.names import ResourceKey
from gleaner.machine.node import State
from gleaner.machine.placeholders import NoPackages
from gleaner.machine.remotes.manager import RemoteManager
from gleaner.machine.rpc.auth import Authenticator
from gleaner.machine.rpc.listeners import ListenProblem
from gleaner.machine.rpc.operations import Operations
from gleaner.machine.rpc.robot_service import RobotContext
from gleaner.machine.rpc.server import RobotServer
from gleaner.machine.rpc.sessions import Sessions
from gleaner.machine.rpc.stop import stop_resource
from gleaner.machine.status import NoPackageReports, capture_ledger, elsewhere_status, link_status
from gleaner.wire.machine_config import MachineConfig

_LOG = logging.getLogger(__name__)

#: A TCP port that was taken is tried again this often while the machine runs.
_LISTEN_RETRY_S = 5.0


#: Long enough to join what a module says about several resources.
_JOIN_S = 0.02


class Exit(Enum):
    """Why a machine ended by itself."""

    SHUTDOWN = "shutdown"
    RESTART = "restart"


class Machine:
    """`start`, then `apply` each configuration, then `stop`. One per process and home folder."""

    def __init__(self, home: MachineHome, local: MachineConfig, specs: Sequence[ListedModel] | None = None) -> None:
        """`local` is the configuration file: all of it, or only how to reach the app that holds the rest."""
        cloud = local.cloud
        self.host = MachineHost(home.path, cloud)
        self.exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.cloud = CloudService(self, home, cloud, local.network) if cloud is not None else None
        packages = self.cloud.packages if self.cloud is not None else None
        self.modules = ModuleManager(home.path, cloud, packages or NoPackages(), home.socket_path.parent)
        self.remotes = RemoteManager(cloud)
        self.graph = ResourceGraph(
            self.host,
            specs or models.MODELS,
            packages or NoPackages(),
            modules=self.modules,
            remotes=self.remotes,
        )
        self._elsewhere_changed = asyncio.Event()
        self.modules.changed = self.remotes.changed = self._elsewhere_changed.set
        self.host.find = self.graph.resource
        self.host.remote_frames = self.remotes.frames
        self.reports = packages or NoPackageReports()
        self._home = home
        self.configured = asyncio.Event()
        self._apply_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._metrics: MetricsServer | None = None
        sessions = Sessions(self._stop_moved)
        self._context = RobotContext(
            self.host,
            self.graph,
            self.reports,
            Operations(),
            sessions,
            lambda: self.end(Exit.SHUTDOWN),
            self.modules,
            self._is_initializing,
            lambda: {**self.remotes.services(), **self.modules.services()},
            remote_parts=self.remotes.parts,
            uploader=self.cloud.uploader if self.cloud is not None else None,
        )
        verify = self.cloud.verify_key if self.cloud is not None else None
        self.server = RobotServer(self._context, Authenticator(home.token_key(), verify))
        self.modules.doors = self.server

    async def start(self) -> None:
        socket = self._home.prepare_socket()
        remove_leftover_sockets(socket.parent)
        await self.server.start_private(socket)
        self.spawn(self._follow_others(), "modules and remotes")
        if self.cloud is not None:
            await self.cloud.start()

    async def apply(self, config: MachineConfig) -> None:
        """Follow a configuration. Raises ListenProblem only from a machine without an app, when it first starts."""
        async with self._apply_lock:
            if self.cloud is not None:
                # Before `config` is visible: a package that arrives meanwhile makes the graph look at it.
                self.cloud.packages.configure(config.packages)
            self.host.config = config
            if self.cloud is not None and config.cloud is not None:
                self.host.cloud = config.cloud
                await self.cloud.follow(config.cloud)
            self._context.configured_at = datetime.now(UTC)
            await self._listen(config)
            self.modules.configure(config)
            self.remotes.configure(config.remotes)
            await self.graph.apply(config)
            self.modules.end_removed()
            self.configured.set()

    async def serve_metrics(self, port: int) -> int:
        """Prometheus metrics on loopback; returns the port. Raises OSError when it is taken."""
        self._metrics = MetricsServer(lambda: capture_ledger(self.graph))
        await self._metrics.start(port)
        return self._metrics.port

    async def reapply(self) -> None:
        """Look again at the resources, e.g. because a package arrived."""
        if self.configured.is_set():
            self.modules.look_again()
            await self.graph.apply(self.host.config)

    async def _follow_others(self) -> None:
        """Resources follow what modules and remotes have and say."""
        while True:
            await self._elsewhere_changed.wait()
            await asyncio.sleep(_JOIN_S)
            self._elsewhere_changed.clear()
            if self.configured.is_set():
                await self.graph.apply(self.host.config)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._metrics is not None:
            await self._metrics.close()
        if self.cloud is not None:
            await self.cloud.stop()
        await self.server.stop_public()
        self.modules.hurry()
        await self.graph.close()
        await self.modules.close()
        await self.remotes.close()
        await self.server.stop()

    def end(self, reason: Exit) -> None:
        if not self.exit.done():
            self.exit.set_result(reason)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something until it is done or the machine stops; its failure is logged."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def status(self) -> Any:
        said = link_status(self.host, self.graph, self.reports, elsewhere_status(self.modules, self.remotes))
        return {**said, "port": urlsplit(self.server.url).port or 0}

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("%s failed", task.get_name(), exc_info=task.exception())

    def _is_initializing(self) -> bool:
        return not self.configured.is_set() or any(
            node.state is State.CONFIGURING and node.retry_at == 0.0 for node in self.graph.nodes
        )

    async def _stop_moved(self, key: ResourceKey) -> None:
        await stop_resource(self.graph, key)

    async def _listen(self, config: MachineConfig) -> None:
        try:
            await self.server.configure(config)
        except ListenProblem as problem:
            if self.cloud is None and not self.configured.is_set():
                raise
            _LOG.error("the robot API has no TCP door: %s", problem)
            self.spawn(self._listen_later(config), "open the robot API's TCP door")

    async def _listen_later(self, config: MachineConfig) -> None:
        while self.host.config is config:
            await asyncio.sleep(_LISTEN_RETRY_S)
            try:
                async with self._apply_lock:
                    if self.host.config is config:
                        await self.server.configure(config)
            except ListenProblem:
                continue
            _LOG.info("the robot API is at %s", self.server.url)
            return
