"""Who may call the robot API, and the access tokens that say so.

Credentials come from `auth.handlers` of the configuration (Viam's `api-key`, `robot-secret`, `robot-location-secret`),
from the cloud section, and, for a machine with an app, from the app itself: an API key unknown here is checked there.
A token carries a fingerprint of its credential, so a key removed from the configuration stops its tokens at once.
Tokens of keys that only the app knows end after a day; viam-sdk's RobotClient authenticates again when it reconnects.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from grpclib import GRPCError, Status
from grpclib.server import Stream
from viam.proto.rpc.auth import AuthenticateRequest, AuthenticateResponse, UnimplementedAuthServiceBase

from gleaner.machine.rpc.streams import receive
from gleaner.wire.machine_config import MachineConfig

APP_TOKEN_LIFE_S = 24 * 3600.0

#: (key id, key) → whether the app knows it and lets it use this machine.
AppVerifier = Callable[[str, str], Awaitable[bool]]


@dataclass(frozen=True)
class _Known:
    """`entity` is empty where any entity may use the secret (part and location secrets)."""

    kind: str
    entity: str
    secret: str


class Authenticator:
    def __init__(self, token_key: bytes, verify_with_app: AppVerifier | None = None) -> None:
        self._key = token_key
        self._verify_with_app = verify_with_app
        self._known: tuple[_Known, ...] = ()
        self._fingerprints: frozenset[str] = frozenset()

    def configure(self, config: MachineConfig) -> None:
        self._known = tuple(_credentials(config))
        self._fingerprints = frozenset(self._fingerprint(known) for known in self._known)

    @property
    def is_required(self) -> bool:
        return bool(self._known) or self._verify_with_app is not None

    async def authenticate(self, entity: str, kind: str, secret: str) -> str:
        """An access token. Raises GRPCError UNAUTHENTICATED."""
        for known in self._known:
            if (
                known.kind == kind
                and known.entity in ("", entity)
                and hmac.compare_digest(known.secret.encode(), secret.encode())
            ):
                return self._token(entity, self._fingerprint(known), 0.0)
        if kind == "api-key" and self._verify_with_app is not None and await self._verify_with_app(entity, secret):
            return self._token(entity, "", time.time() + APP_TOKEN_LIFE_S)
        if not self.is_required:
            return self._token(entity, "", 0.0)
        raise GRPCError(
            Status.UNAUTHENTICATED,
            f"invalid credentials: this machine does not know {kind or 'credential'} {entity!r} with that secret",
        )

    def authorize(self, authorization: str) -> str:
        """The entity of a request. Raises GRPCError UNAUTHENTICATED."""
        if not self.is_required:
            return ""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise GRPCError(Status.UNAUTHENTICATED, "this machine needs an API key: connect with its id and key")
        body, _, mac = token.rpartition(".")
        if not hmac.compare_digest(self._mac(body), mac):
            raise GRPCError(
                Status.UNAUTHENTICATED, "the access token was not issued by this machine: authenticate again"
            )
        claims = json.loads(base64.urlsafe_b64decode(body))
        expired = claims["x"] and claims["x"] < time.time()
        if expired or (claims["f"] and claims["f"] not in self._fingerprints) or not (claims["f"] or claims["x"]):
            raise GRPCError(Status.UNAUTHENTICATED, "the access token is no longer valid: authenticate again")
        return str(claims["e"])

    def _token(self, entity: str, fingerprint: str, expires_at: float) -> str:
        claims = json.dumps({"e": entity, "f": fingerprint, "x": expires_at})
        body = base64.urlsafe_b64encode(claims.encode()).decode()
        return f"{body}.{self._mac(body)}"

    def _mac(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()

    def _fingerprint(self, known: _Known) -> str:
        content = "\0".join((known.kind, known.entity, known.secret)).encode()
        return hmac.new(self._key, b"credential\0" + content, hashlib.sha256).hexdigest()[:32]


class AuthRPCService(UnimplementedAuthServiceBase):
    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def Authenticate(self, stream: Stream[AuthenticateRequest, AuthenticateResponse]) -> None:
        request = await receive(stream)
        credentials = request.credentials
        token = await self._authenticator.authenticate(request.entity, credentials.type, credentials.payload)
        await stream.send_message(AuthenticateResponse(access_token=token))


def _credentials(config: MachineConfig) -> Iterator[_Known]:
    for handler in config.auth.get("handlers") or []:
        kind, settings = handler.get("type", ""), handler.get("config") or {}
        if kind == "api-key":
            for entity, key in settings.items():
                if entity != "keys" and isinstance(key, str) and key:
                    yield _Known(kind, entity, key)
        else:
            for secret in _secrets(settings):
                yield _Known(kind, "", secret)
    if config.cloud is not None:
        if config.cloud.secret:
            yield _Known("robot-secret", "", config.cloud.secret)
        if config.cloud.api_key is not None:
            yield _Known("api-key", config.cloud.api_key.id, config.cloud.api_key.key)
        extra = config.cloud.model_extra or {}
        for secret in _secrets({"secret": extra.get("location_secret"), "secrets": extra.get("location_secrets")}):
            yield _Known("robot-location-secret", "", secret)


def _secrets(settings: Mapping[str, Any]) -> Iterator[str]:
    for item in [settings.get("secret"), *(settings.get("secrets") or [])]:
        secret = item.get("secret", "") if isinstance(item, Mapping) else item
        if isinstance(secret, str) and secret:
            yield secret
