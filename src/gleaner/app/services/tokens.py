"""Secrets and signed tokens. Nothing here is stored; what is stored are the hashes made here.

API keys, part secrets and login links are 256 random bits, so a fast hash (SHA-256) is the right one: there is nothing
to guess, and a slow hash would only let anyone load the app by sending wrong keys. Passwords are chosen by people and
go through argon2id (`auth.py`).

A signed token is `base64url(JSON claims) "." base64url(HMAC-SHA256)`. It is stateless, so it outlives a restart of the
app: viam-sdk and viam-server authenticate once and never again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any

from gleaner.app.errors import Unauthenticated


def new_secret() -> str:
    """256 random bits, safe in URLs, headers and shell commands."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def secret_matches(secret: str, stored: bytes) -> bool:
    return hmac.compare_digest(hash_secret(secret), stored)


class TokenSigner:
    """Signs and checks claims with a key derived from the app's token key."""

    def __init__(self, app_key: bytes) -> None:
        self._key = hmac.digest(app_key, b"gleaner token signing v1", "sha256")

    def sign(self, claims: Mapping[str, Any]) -> str:
        body = _encode(json.dumps(claims, separators=(",", ":")).encode())
        return f"{body}.{_encode(self._mac(body))}"

    def verify(self, token: str) -> dict[str, Any]:
        """The claims. Raises Unauthenticated if they were not signed with this app's key."""
        body, _, mac = token.partition(".")
        try:
            genuine = hmac.compare_digest(_decode(mac), self._mac(body))
            claims = json.loads(_decode(body)) if genuine else None
        except (binascii.Error, ValueError):
            claims = None
        if not isinstance(claims, dict):
            raise Unauthenticated(
                "the token was not made by this app", "Log in again, or authenticate again with the key."
            )
        return claims

    def _mac(self, body: str) -> bytes:
        return hmac.digest(self._key, body.encode(), "sha256")


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
