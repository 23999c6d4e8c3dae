"""Whether a package is what the app signed, with the key of the setup file; without one the first key that an app shows is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gleaner.machine.cloud.download import PackageDamaged
from gleaner.wire.package_signature import digest_of, is_signed_by

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Seal:
    """As the app said it; empty from an app that signs nothing, such as Viam's."""

    key: str
    signature: str


def check_seal(trusted: Path, pinned: str, seal: Seal, archive: Path, package_id: str, version: str) -> None:
    """`pinned`: the setup file's key, or ""; `trusted` then holds the app's key once it was seen. Raises PackageDamaged."""
    known = pinned or (trusted.read_text().strip() if trusted.is_file() else "")
    if not seal.key and not known:
        return
    if not seal.signature:
        raise PackageDamaged(f"{version} is not signed, and everything from this app is")
    if pinned and seal.key != pinned:
        raise PackageDamaged(
            f"{version} is signed by another app than the one that machine.json names (cloud.package_key). If the app was "
            "set up anew, download machine.json again"
        )
    if known and seal.key != known:
        raise PackageDamaged(
            f"{version} is signed by another app than before. If the app was set up anew, delete {trusted} and start the "
            "machine again"
        )
    with archive.open("rb") as file:
        digest = digest_of(iter(lambda: file.read(_CHUNK_BYTES), b""))
    if not is_signed_by(seal.key, seal.signature, package_id, version, digest):
        archive.unlink(missing_ok=True)
        raise PackageDamaged(f"{version} is not what the app signed: it was changed on its way. Deploy it again")
    if not known:
        trusted.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        trusted.write_text(seal.key + "\n")
