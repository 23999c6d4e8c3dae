"""The robot API on two doors with the same handlers: TCP, and a private unix socket that the link uses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from grpclib.reflection.service import ServerReflection
from grpclib.server import Server
from viam.rpc.signaling import SignalingService

from gleaner.machine.rpc.apis import make_services
from gleaner.machine.rpc.auth import Authenticator, AuthRPCService
from gleaner.machine.rpc.data_manager import DataManagerRPCService
from gleaner.machine.rpc.gate import RequestGate
from gleaner.machine.rpc.listeners import Address, check_exposure, explain_bind_error, parse_address, tls_context
from gleaner.machine.rpc.resources import GraphResources
from gleaner.machine.rpc.robot_service import MODULE_CALLER, RobotContext, RobotRPCService
from gleaner.machine.rpc.sessions import DEFAULT_WINDOW_S, MAX_WINDOW_S, MIN_WINDOW_S
from gleaner.wire.durations import parse_duration_ns
from gleaner.wire.machine_config import MachineConfig

_LOG = logging.getLogger(__name__)


class RobotServer:
    """`start_private` once; `configure` with every configuration; `stop` ends both doors and the requests in them."""

    def __init__(self, context: RobotContext, authenticator: Authenticator) -> None:
        self._context = context
        self._authenticator = authenticator
        resources = GraphResources(context.graph)
        self._gate = RequestGate(context.operations, context.sessions, resources, context.foreign_services)
        services = list(make_services(resources).values())
        services += [
            RobotRPCService(context),
            DataManagerRPCService(resources),
            AuthRPCService(authenticator),
            SignalingService(),
        ]
        self._services = ServerReflection.extend(services)
        self._private: Server | None = None
        self._doors: dict[Path, Server] = {}
        self._public: Server | None = None
        self._address: Address | None = None
        self.url = ""
        """Where SDK clients connect; empty while the TCP door is closed."""

    @property
    def is_authenticated(self) -> bool:
        return self._authenticator.is_required

    async def start_private(self, path: Path) -> None:
        """Only this user can reach the folder of the socket, so no credentials are asked there."""
        self._private = await self._open(path, "")

    async def open_for_module(self, path: Path, name: str) -> None:
        """A door of its own for each module, by which its requests and log messages are known."""
        self._doors[path] = await self._open(path, f"{MODULE_CALLER}{name}")

    async def close_for_module(self, path: Path) -> None:
        await _close(self._doors.pop(path, None))

    async def _open(self, path: Path, caller: str) -> Server:
        path.unlink(missing_ok=True)
        server = Server(self._services)
        self._gate.guard(server, None, caller)
        await server.start(path=str(path))
        path.chmod(0o600)
        return server

    async def configure(self, config: MachineConfig) -> None:
        """Follow credentials, session window and address. Raises ListenProblem; the old door is then closed or stays."""
        self._authenticator.configure(config)
        self._context.sessions.window_s = _window_s(config)
        address = parse_address(config.network)
        check_exposure(address, self._authenticator.is_required)
        if address == self._address and self._public is not None:
            return
        context = tls_context(address)
        server = Server(self._services)
        self._gate.guard(server, self._authenticator)
        try:
            await server.start(address.host or None, address.port, ssl=context)
        except OSError as error:
            raise explain_bind_error(address, error) from error
        previous, self._public, self._address = self._public, server, address
        self.url = address.url(_bound_port(server))
        await _close(previous)

    async def stop_public(self) -> None:
        """No more requests from outside; modules still find their resources."""
        await self._context.sessions.close()
        public, self._public, self.url = self._public, None, ""
        await _close(public)

    async def stop(self) -> None:
        await self.stop_public()
        doors, self._doors = [self._private, *self._doors.values()], {}
        self._private = None
        for server in doors:
            await _close(server)


async def _close(server: Server | None) -> None:
    if server is not None:
        server.close()
        await server.wait_closed()


def _bound_port(server: Server) -> int:
    listening: Any = server._server  # grpclib has no public name for the port that the system chose
    return int(listening.sockets[0].getsockname()[1])


def _window_s(config: MachineConfig) -> float:
    text = config.network.sessions.get("heartbeat_window")
    if not text:
        return DEFAULT_WINDOW_S
    try:
        window_s = parse_duration_ns(str(text)) / 1e9
    except ValueError as error:
        _LOG.warning("network.sessions.heartbeat_window: %s; %s s is used", error, DEFAULT_WINDOW_S)
        return DEFAULT_WINDOW_S
    return min(MAX_WINDOW_S, max(MIN_WINDOW_S, window_s))
