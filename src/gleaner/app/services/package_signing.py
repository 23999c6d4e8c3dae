"""Signatures of packages, by a key that follows from the app's own: all processes of an app have it, and a backup brings it back."""

from __future__ import annotations

import threading
from collections import OrderedDict

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gleaner.app.services.packages import Package, PackageService
from gleaner.wire import package_signature

_KEPT = 256


class PackageSigner:
    def __init__(self, app_key: bytes, packages: PackageService) -> None:
        seed = HKDF(hashes.SHA256(), 32, salt=None, info=b"gleaner package signing").derive(app_key)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._packages = packages
        self._made: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self.public = package_signature.public_text(self._key)

    def signature(self, one: Package) -> str:
        """Reads the whole package the first time."""
        with self._lock:
            known = self._made.get(one.id)
        if known is None:
            digest = package_signature.digest_of(self._packages.content(one))
            known = package_signature.sign(self._key, f"{one.organization_id}/{one.name}", one.version, digest)
            with self._lock:
                self._made[one.id] = known
                while len(self._made) > _KEPT:
                    self._made.popitem(last=False)
        return known
