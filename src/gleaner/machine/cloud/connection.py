"""gRPC calls to the app, authenticated as this part.

AppError
├── AppUnreachable   no answer now: keep what runs and try again
└── AppRefused       the app answered and said no: its code tells whether the request or the credentials are wrong
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from grpclib import GRPCError, Status
from grpclib.client import Channel
from grpclib.events import RecvInitialMetadata, listen
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error
from viam.proto.rpc.auth import AuthenticateRequest, AuthServiceStub, Credentials

from gleaner.machine.dial import is_loopback
from gleaner.wire.link import WEB_ADDRESS_HEADER
from gleaner.wire.machine_config import CloudConfig, ConfigProblem

#: Source: Viam's documented read timeout for configuration.
TIMEOUT_S = 15.0

_TRANSIENT = frozenset({Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.RESOURCE_EXHAUSTED, Status.ABORTED})


class AppError(Exception):
    """The app did not do what it was asked."""


class AppUnreachable(AppError):
    pass


class AppRefused(AppError):
    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message or status.name.lower())
        self.status = status


def client_tls(cloud: CloudConfig) -> ssl.SSLContext:
    """Trusts only the app's own authority when the machine was given one, else what the system trusts."""
    if not cloud.ca_certificate:
        return ssl.create_default_context()
    try:
        context = ssl.create_default_context(cadata=cloud.ca_certificate)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigProblem(
            [("cloud.ca_certificate", f"is not a PEM certificate: download machine.json again ({error})")]
        ) from error
    return context


class AppConnection:
    """Usable from one event loop; `close` when done. Calls raise AppUnreachable or AppRefused and nothing else."""

    def __init__(self, cloud: CloudConfig) -> None:
        parts = urlsplit(cloud.app_address if "://" in cloud.app_address else f"https://{cloud.app_address}")
        if not parts.hostname or parts.scheme not in ("http", "https"):
            problem = f"{cloud.app_address!r} is not an address: write it like http://127.0.0.1:8091 or https://app.example:8091"
            raise ConfigProblem([("cloud.app_address", problem)])
        tls = parts.scheme == "https"
        self.address = f"{parts.hostname}:{parts.port or (443 if tls else 80)}"
        #: Credentials would cross a network in the clear.
        self.is_exposed = not tls and not is_loopback(parts.hostname)
        self._cloud = cloud
        port = parts.port or (443 if tls else 80)
        self._new_channel = partial(Channel, parts.hostname, port, ssl=_grpc_tls(cloud) if tls else None)
        self._channel = self._dial()
        self._token = ""
        self.web_address = ""
        """The app's HTTP door, once it has said where that is."""

    def close(self) -> None:
        self._channel.close()

    def _dial(self) -> Channel:
        channel = self._new_channel()
        listen(channel, RecvInitialMetadata, self._read_headers)
        return channel

    async def _read_headers(self, event: RecvInitialMetadata) -> None:
        if web_address := event.metadata.get(WEB_ADDRESS_HEADER):
            self.web_address = str(web_address)

    def _hang_up(self, channel: Channel) -> None:
        """A line that lies dead without a word (a router that forgot it) stays open for minutes: the next call dials."""
        if channel is self._channel:
            self._channel = self._dial()
            with suppress(AttributeError):  # grpclib, when closing ends the connection at once: it closes it twice
                channel.close()

    async def call(self, stub: type[Any], method: str, request: Any, *, timeout_s: float = TIMEOUT_S) -> Any:
        """One unary call as this part; authenticates when needed."""
        if not self._token:
            self._token = await self._authenticate(timeout_s)
        try:
            return await self.call_as(self._token, stub, method, request, timeout_s=timeout_s)
        except AppRefused as error:
            if error.status is not Status.UNAUTHENTICATED:
                raise
            # The app's signing key may have changed: once more with a new token.
            self._token = await self._authenticate(timeout_s)
            return await self.call_as(self._token, stub, method, request, timeout_s=timeout_s)

    async def call_as(
        self, token: str, stub: type[Any], method: str, request: Any, *, timeout_s: float = TIMEOUT_S
    ) -> Any:
        with self._explained():
            return await getattr(stub(self._channel), method)(request, timeout=timeout_s, metadata=_bearer(token))

    async def send_stream(self, stub: type[Any], method: str, requests: AsyncIterator[Any]) -> Any:
        """One client-streaming call as this part; ends when its caller gives up."""
        if not self._token:
            self._token = await self._authenticate(TIMEOUT_S)
        try:
            return await self._send_stream(stub, method, requests)
        except AppRefused as error:
            if error.status is Status.UNAUTHENTICATED:
                self._token = ""  # the next call gets a new one
            raise

    async def _send_stream(self, stub: type[Any], method: str, requests: AsyncIterator[Any]) -> Any:
        with self._explained():
            async with getattr(stub(self._channel), method).open(metadata=_bearer(self._token)) as stream:
                async for request in requests:
                    await stream.send_message(request)
                await stream.end()
                return await stream.recv_message()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what grpclib raises into AppUnreachable or AppRefused."""
        channel = self._channel
        try:
            yield
        except GRPCError as error:
            if error.status in _TRANSIENT:
                raise AppUnreachable(
                    f"the app at {self.address} answers {error.status.name}: {error.message or ''}".rstrip(": ")
                ) from error
            raise AppRefused(error.status, error.message or "") from error
        except ssl.SSLCertVerificationError as error:
            raise AppUnreachable(
                f"the app at {self.address} shows a certificate that this machine does not trust ({error.verify_message}): "
                "download machine.json again, or set cloud.ca_certificate"
            ) from error
        except AttributeError as error:
            # grpclib, when the connection is lost between being made and being used: it has deleted its transport.
            if error.name != "_transport":
                raise
            raise AppUnreachable(f"the app at {self.address} closed the connection") from error
        except (TimeoutError, OSError, StreamTerminatedError, ProtocolError, H2Error) as error:
            if isinstance(error, TimeoutError):
                self._hang_up(channel)
            reason = getattr(error, "strerror", None) or str(error) or "no answer"
            raise AppUnreachable(f"the app at {self.address} cannot be reached: {reason}") from error

    async def authenticate(self, entity: str, kind: str, secret: str, *, timeout_s: float = TIMEOUT_S) -> str:
        """An access token for these credentials."""
        request = AuthenticateRequest(entity=entity, credentials=Credentials(type=kind, payload=secret))
        response = await self.call_as("", AuthServiceStub, "Authenticate", request, timeout_s=timeout_s)
        return str(response.access_token)

    async def _authenticate(self, timeout_s: float) -> str:
        key = self._cloud.api_key
        if key is not None:
            return await self.authenticate(key.id, "api-key", key.key, timeout_s=timeout_s)
        return await self.authenticate(self._cloud.id, "robot-secret", self._cloud.secret, timeout_s=timeout_s)


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def http_credentials(cloud: CloudConfig) -> dict[str, str]:
    """The headers by which the app's HTTP door knows this part."""
    if cloud.secret:
        return {"part_id": cloud.id, "secret": cloud.secret}
    if cloud.api_key is not None:
        return {"part_id": cloud.id, "key_id": cloud.api_key.id, "key": cloud.api_key.key}
    return {"part_id": cloud.id}


def _grpc_tls(cloud: CloudConfig) -> ssl.SSLContext:
    context = client_tls(cloud)
    context.set_alpn_protocols(["h2"])
    return context
