"""One connection to another machine's robot API, authenticated, that says when it is lost."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from grpclib import GRPCError, Status
from grpclib.client import Channel
from grpclib.events import SendRequest, listen
from grpclib.protocol import H2Protocol
from viam.proto.robot import (
    FrameSystemConfig,
    FrameSystemConfigRequest,
    ResourceNamesRequest,
    ResourceRPCSubtypesRequest,
    ResourceRPCSubtypesResponse,
    RobotServiceStub,
)
from viam.proto.rpc.auth import AuthenticateRequest, AuthServiceStub, Credentials

from gleaner.machine.dial import is_loopback
from gleaner.machine.foreign.resource import ProcessSilent, call_process
from gleaner.machine.names import ResourceKey
from gleaner.machine.remotes.session import RemoteSession
from gleaner.machine.rpc.apis import is_safety_monitored
from gleaner.machine.rpc.gate import SESSION_HEADER
from gleaner.wire.machine_config import RemoteConfig

#: Source: Viam's documented dial timeout.
CALL_S = 20.0
_DEFAULT_PORT = 8080


class RemoteRefuses(Exception):
    """The other machine answered and said no, or cannot be asked as configured: the message says what to do."""


@dataclass(frozen=True)
class RemoteListing:
    keys: tuple[ResourceKey, ...]
    """As the other machine names them."""
    services: tuple[tuple[str, str], ...]
    """(gRPC service, API)"""
    frames: tuple[FrameSystemConfig, ...] = ()


class RemoteConnection:
    """`open()`, then `listing()`; `close()`. Raises RemoteRefuses or ProcessSilent, nothing else."""

    def __init__(self, config: RemoteConfig, trusted: str, lost: Callable[[], None]) -> None:
        """`trusted` is the PEM of an authority that is trusted besides the system's. Raises RemoteRefuses."""
        self._config = config
        self._owner = f"remote {config.name}"
        self._log = logging.getLogger(f"gleaner.remote.{config.name}")
        host, port, tls = _address(config)
        context = _tls(config, trusted, host) if tls else None
        self.channel: Channel = _WatchedChannel(host, port, ssl=context, lost=lost)
        self._token = ""
        self._robot: Any = RobotServiceStub(self.channel)
        self._session = RemoteSession(self._owner, self._robot)
        listen(self.channel, SendRequest, self._add_headers)

    async def open(self) -> None:
        kind, entity, secret = _credentials(self._config)
        if not secret:
            return
        request = AuthenticateRequest(entity=entity, credentials=Credentials(type=kind, payload=secret))
        auth: Any = AuthServiceStub(self.channel)
        self._token = str((await self._call(auth.Authenticate, request)).access_token)

    async def listing(self) -> RemoteListing:
        names = await self._call(self._robot.ResourceNames, ResourceNamesRequest())
        try:
            subtypes = await self._call(self._robot.ResourceRPCSubtypes, ResourceRPCSubtypesRequest())
        except RemoteRefuses as refusal:
            if not _is_unimplemented(refusal.__cause__):
                raise
            subtypes = ResourceRPCSubtypesResponse()  # a server made with an SDK has Viam's own APIs only
        keys = [ResourceKey(f"{name.namespace}:{name.type}:{name.subtype}", name.name) for name in names.resources]
        services = [
            (each.proto_service, f"{each.subtype.namespace}:{each.subtype.type}:{each.subtype.subtype}")
            for each in subtypes.resource_rpc_subtypes
        ]
        return RemoteListing(tuple(keys), tuple(services), await self._frames())

    async def _frames(self) -> tuple[FrameSystemConfig, ...]:
        """None of a machine that has no frame system, or one that it cannot make out itself."""
        try:
            answer = await self._call(self._robot.FrameSystemConfig, FrameSystemConfigRequest())
        except RemoteRefuses as refusal:
            self._log.debug("no frames: %s", refusal)
            return ()
        return tuple(answer.frame_system_configs)

    def close(self) -> None:
        self._session.close()
        self.channel.close()

    async def _call(self, call: Any, request: Any) -> Any:
        try:
            return await call_process(self._owner, call, request, CALL_S)
        except GRPCError as error:
            if error.status is Status.UNAVAILABLE:
                raise ProcessSilent(f"{self._owner} is not available: {error.message}") from error
            raise RemoteRefuses(f"{self._owner} refuses: {error.message or error.status.name.lower()}") from error
        except ProcessSilent as silence:
            cause = silence.__cause__
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise ProcessSilent(
                    f"{self._owner} shows a certificate that this machine does not trust ({cause.verify_message}): "
                    "set ca_certificate of the remote to its authority"
                ) from cause
            raise

    async def _add_headers(self, event: SendRequest) -> None:
        if self._token:
            event.metadata["authorization"] = f"Bearer {self._token}"
        if is_safety_monitored(event.method_name) and (session := await self._session.id()):
            event.metadata[SESSION_HEADER] = session


def _is_unimplemented(error: BaseException | None) -> bool:
    return isinstance(error, GRPCError) and error.status is Status.UNIMPLEMENTED


class _WatchedChannel(Channel):
    """Says at once when its connection breaks; grpclib itself finds out at the next call."""

    def __init__(self, host: str, port: int, *, ssl: ssl.SSLContext | None, lost: Callable[[], None]) -> None:
        super().__init__(host, port, ssl=ssl)
        self._lost = lost
        self._is_closed = False

    def close(self) -> None:
        self._is_closed = True
        super().close()

    def _protocol_factory(self) -> H2Protocol:
        protocol = super()._protocol_factory()
        ended = protocol.connection_lost

        def connection_lost(error: BaseException | None) -> None:
            ended(error)
            self._lost()

        protocol.connection_lost = connection_lost  # type: ignore[method-assign,assignment]
        return protocol

    async def __connect__(self) -> H2Protocol:
        if self._is_closed:  # a late call must not open a connection that nobody would close
            raise ConnectionError("the connection was closed")
        async with asyncio.timeout(CALL_S):
            return await super().__connect__()


def _address(config: RemoteConfig) -> tuple[str, int, bool]:
    text = config.address if "://" in config.address else f"//{config.address}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise RemoteRefuses(f"address of remote {config.name}: {error}: write it like robot.local:8080") from error
    if not host:
        raise RemoteRefuses(
            f"address of remote {config.name}: {config.address!r} names no host: write it like robot.local:8080"
        )
    return host, port or _DEFAULT_PORT, not (config.insecure or parts.scheme == "http")


def _tls(config: RemoteConfig, trusted: str, host: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    if is_loopback(host):  # viam-sdk's clients do not verify this computer's own machines either
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for pem in (config.ca_certificate, trusted):
        if pem:
            try:
                context.load_verify_locations(cadata=pem)
            except (ssl.SSLError, ValueError) as error:
                raise RemoteRefuses(
                    f"ca_certificate of remote {config.name} is not a PEM certificate: {error}"
                ) from error
    return context


def _credentials(config: RemoteConfig) -> tuple[str, str, str]:
    """(kind, entity, secret)"""
    credentials = config.auth.get("credentials") or {}
    entity = str(config.auth.get("entity") or config.address)
    if credentials.get("payload"):
        return str(credentials.get("type") or "api-key"), entity, str(credentials["payload"])
    return "robot-location-secret", entity, config.secret
