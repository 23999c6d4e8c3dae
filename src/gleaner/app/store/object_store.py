"""Where packs may lie: what every store of objects can do, and which one an address names.

An address is a folder, or `s3://bucket/prefix`. Objects are written once and whole, never changed, and read in ranges; what
is in them is encrypted before it comes here, so a store is trusted with keeping bytes and with nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

S3_SCHEME = "s3://"
#: What lies below this in a bucket is no pack: models and scripts (`services/package_files.py`).
PACKAGES = "packages/"


class StoreProblem(Exception):
    """The store cannot be used as it is; the message says what to do. The app refuses to start."""


class Objects(Protocol):
    """Thread-safe. Names are `<day>/<file>`; every method but `start` may raise OSError when the store does not answer."""

    @property
    def address(self) -> str:
        """What `open_objects` opens it by, also in another process."""

    @property
    def is_shared(self) -> bool:
        """Whether other app processes may write here at the same time."""

    def start(self) -> None:
        """At process start only: removes what was left unfinished, or finds out that it cannot be used (StoreProblem)."""

    def put(self, name: str, content: bytes | Iterator[bytes], *, durable: bool) -> None:
        """Writes an object that must not exist yet; with `durable` it survives a power cut once this returns."""

    def read(self, name: str, start: int, length: int) -> bytes:
        """Raises FileNotFoundError, and OSError when the object is shorter or cannot be read."""

    def size(self, name: str) -> int:
        """Raises FileNotFoundError."""

    def exists(self, name: str) -> bool: ...

    def delete(self, name: str) -> None:
        """Also of what is not there."""

    def names(self) -> Iterator[str]: ...

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Every object's name and size in bytes."""


def packages_address(store: str, folder: Path) -> str:
    """Where models lie: in the bucket if there is one, so that every app process finds them, else in the folder."""
    return f"{store.rstrip('/')}/{PACKAGES.rstrip('/')}" if store.startswith(S3_SCHEME) else str(folder)


def open_objects(address: str, environment: Mapping[str, str], cache_bytes: int = 0) -> Objects:
    """`cache_bytes`: memory for ranges read again, where reading is far. Raises StoreProblem when the address is none."""
    if address.startswith(S3_SCHEME):
        from gleaner.app.store.s3_objects import S3Objects

        return S3Objects(address, environment, cache_bytes=cache_bytes)
    if "://" in address:
        raise StoreProblem(
            f"{address} is no address of a store. Write --store s3://bucket/prefix, or leave it out to keep packs in the "
            "data folder."
        )
    from gleaner.app.store.objects import LocalObjects

    return LocalObjects(Path(address))
