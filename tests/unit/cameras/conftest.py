"""Stand-ins for what a machine gives its cameras."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from viam.resource.base import ResourceBase

from gleaner.machine.models.base import BuildContext, ModelSpec
from gleaner.wire.machine_config import MachineConfig


@dataclass
class SmallHost:
    home: Path
    resources: dict[tuple[str, str], Any] = field(default_factory=dict)
    config: MachineConfig = field(default_factory=MachineConfig)
    cloud: None = None

    def resource(self, name: str, subtype: str = "") -> ResourceBase | None:
        return self.resources.get((name, subtype))


@pytest.fixture
def host(tmp_path: Path) -> SmallHost:
    return SmallHost(tmp_path)


Build = Callable[..., Awaitable[Any]]


@pytest.fixture
async def build(host: SmallHost) -> AsyncIterator[Build]:
    """Builds a resource from a spec as the machine does, and closes it after the test."""
    built: list[ResourceBase] = []

    async def make(
        spec: ModelSpec, dependencies: dict[str, ResourceBase] | None = None, **attributes: Any
    ) -> ResourceBase:
        context = BuildContext(
            "cam", spec.attributes.model_validate(attributes), dependencies or {}, host, logging.getLogger("test.cam")
        )
        built.append(await spec.build(context))
        return built[-1]

    yield make
    for resource in built:
        await resource.close()
