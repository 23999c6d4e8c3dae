"""Names of resources: `rdk:component:camera/cam` in full, `cam` in short."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from viam.proto.common import ResourceName

from gleaner.wire.machine_config import ResourceConfig


@dataclass(frozen=True, order=True)
class ResourceKey:
    """API triplet and short name: unique in a machine. Names of remotes' resources hold colons: `r1:cam`."""

    api: str
    name: str

    @property
    def subtype(self) -> str:
        return self.api.rpartition(":")[2]

    @property
    def local_name(self) -> str:
        """Without the remotes that it is behind: `cam` of `r1:cam`."""
        return self.name.rpartition(":")[2]

    def __str__(self) -> str:
        return f"{self.api}/{self.name}"

    def to_proto(self) -> ResourceName:
        namespace, kind, subtype = self.api.split(":")
        return ResourceName(namespace=namespace, type=kind, subtype=subtype, name=self.name)


def key_of(config: ResourceConfig) -> ResourceKey:
    return ResourceKey(config.api, config.name)


def find_key(reference: str, keys: Iterable[ResourceKey], owner: ResourceKey | None = None) -> ResourceKey | None:
    """The resource that a full or short name means; a resource never means itself by its own short name.

    What only one remote has can be named without the remote: `cam` for `r1:cam`.
    """
    remote: list[ResourceKey] = []
    for key in keys:
        if reference == str(key) or (reference == key.name and key != owner):
            return key
        if key.local_name != key.name and reference in (key.local_name, f"{key.api}/{key.local_name}"):
            remote.append(key)
    return remote[0] if len({key.name for key in remote}) == 1 else None
