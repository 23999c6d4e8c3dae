"""What modules and remotes have to offer, as the planning of resources sees it. No effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ConfigDict

from gleaner.machine.models.base import Attributes, ModelSpec
from gleaner.machine.names import ResourceKey
from gleaner.wire.machine_config import ResourceConfig


class AnyAttributes(Attributes):
    """The attributes of a module's model: only the module knows them, and checks them itself."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True)
class Offer:
    """A module's answer to one configured resource. Without a spec, `error` or `waits_for` says why."""

    spec: ModelSpec | None = None
    """The same object for as long as the module's process runs: another one means that everything is built again."""
    dependencies: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    """Names that the module likes to have, and works without."""
    waits_for: str = ""
    error: str = ""


@dataclass(frozen=True)
class RemoteResource:
    """A resource of another machine. `key` is its name here, e.g. `r1:cam`."""

    key: ResourceKey
    remote: str
    spec: ModelSpec
    error: str = ""
    """Why it cannot be used now."""


class Modules(Protocol):
    def offer(self, config: ResourceConfig, attributes: Mapping[str, Any]) -> Offer | None:
        """None when no module has, or might have, this model. `attributes` has its placeholders replaced."""


class Remotes(Protocol):
    def resources(self) -> Sequence[RemoteResource]:
        """All that were ever seen of the remotes that are configured now."""

    def problems(self) -> Mapping[str, str]:
        """Remotes that are not connected, and why."""


class NoModules:
    def offer(self, config: ResourceConfig, attributes: Mapping[str, Any]) -> Offer | None:
        return None


class NoRemotes:
    def resources(self) -> Sequence[RemoteResource]:
        return ()

    def problems(self) -> Mapping[str, str]:
        return {}
