"""How an app signs a package and a machine checks it: Ed25519 (RFC 8032) over its name, version and SHA-256.

Both travel in the metadata of `GetPackage`. A machine keeps the first key that its app showed and takes no other: who changes
packages on their way, or in the app's storage, has to have the app's key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_FIELD, SIGNATURE_FIELD = "gleaner_key", "gleaner_signature"


def digest_of(chunks: Iterable[bytes]) -> bytes:
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.digest()


def sign(key: Ed25519PrivateKey, package_id: str, version: str, digest: bytes) -> str:
    """`package_id` is `<organization>/<name>`. Base64."""
    return base64.b64encode(key.sign(_message(package_id, version, digest))).decode()


def public_text(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def is_signed_by(public: str, signature: str, package_id: str, version: str, digest: bytes) -> bool:
    try:
        known = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        known.verify(base64.b64decode(signature, validate=True), _message(package_id, version, digest))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _message(package_id: str, version: str, digest: bytes) -> bytes:
    return b"\0".join((b"gleaner package 1", package_id.encode(), version.encode(), digest))
