"""How a model (Viam's word for a driver of a component or service) is declared and built.

Each file in this folder exports one `SPEC: ModelSpec`. Importing such a file is cheap: heavy libraries (av, cv2,
onnxruntime) are imported inside `build`. The catalogue that the web page turns into forms is generated from the SPECs.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict
from viam.resource.base import ResourceBase

from gleaner.wire.machine_config import CloudConfig, MachineConfig, ResourceConfig
from gleaner.wire.world_pose import Frames


class Attributes(BaseModel):
    """Base of every model's attributes: unknown keys fail, each field carries a title, description, unit and bounds."""

    model_config = ConfigDict(extra="forbid")


class Host(Protocol):
    """What the machine offers to its resources."""

    config: MachineConfig
    home: Path
    """Folder that belongs to this machine: capture/, packages/, cached configuration."""
    cloud: CloudConfig | None
    """How to reach the app; None when the machine is used without one."""

    def frames(self) -> Frames:
        """The places of the components of this machine and of its remotes, by name."""

    def resource(self, name: str, subtype: str = "") -> ResourceBase | None:
        """A ready resource by short name (and API subtype such as `camera`), or None."""


@dataclass(frozen=True)
class BuildContext:
    """Everything a model gets at construction."""

    name: str
    attributes: Any
    """The validated instance of the spec's attributes class."""
    dependencies: Mapping[str, ResourceBase]
    """Ready resources by short name: the implicit dependencies and `depends_on`."""
    host: Host
    log: logging.Logger
    config: ResourceConfig | None = None
    """Where it stands in the configuration, with its placeholders as written."""
    dependency_names: tuple[str, ...] = ()
    """Full names of the ready resources that it needs or likes to have."""


@dataclass(frozen=True)
class CaptureMethod:
    """One row of a component's data-capture form."""

    method: str
    title: str
    default_hz: float
    params: type[BaseModel] | None = None


class NeedsRebuild(Exception):
    """A running resource cannot take these attributes: it is closed, and a new one is built."""


def no_dependencies(_attributes: Any) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class ModelSpec:
    """A model: its API and model triplets, its attributes, and how it is built.

    `build` may raise any exception: the resource becomes unhealthy with that message and is retried; others go on.
    The resource's `async close()` (viam-sdk) releases the device. A resource that has
    `async resources_changed(host)` is told after every change of the resource graph.
    """

    api: str
    model: str
    title: str
    description: str
    attributes: type[Attributes]
    build: Callable[[BuildContext], Awaitable[ResourceBase]]
    dependencies: Callable[[Any], Sequence[str]] = no_dependencies
    aliases: tuple[str, ...] = ()
    icon: str = ""
    capture: tuple[CaptureMethod, ...] = field(default=())
    reconfigure: Callable[[Any, BuildContext], Awaitable[None]] | None = None
    """Gives a running resource other attributes; without it, a new one is built. Raises what `build` raises, and NeedsRebuild."""

    def load(self) -> ModelSpec:
        """As of a model that is only listed yet."""
        return self


class ListedModel(Protocol):
    """A model by its names; `load` gives the rest."""

    @property
    def api(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...
    def load(self) -> ModelSpec:
        """Raises ImportError where something is missing on this machine."""
