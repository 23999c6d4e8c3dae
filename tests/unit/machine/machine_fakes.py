"""Stand-ins for tests of the machine: resources that record what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import Field
from viam.components.sensor import Sensor
from viam.services.mlmodel import Metadata, MLModel

from gleaner.machine.host import MachineHost
from gleaner.machine.models.base import Attributes, BuildContext, ModelSpec
from gleaner.machine.placeholders import PackageLocation
from gleaner.wire.machine_config import MachineConfig, parse_config


class ThingAttributes(Attributes):
    needs: list[str] = Field(default_factory=list)
    width_px: int = Field(default=1, ge=1)
    folder: str = ""


class Thing(Sensor):
    """A sensor that writes its life into a shared list."""

    def __init__(self, context: BuildContext, life: list[str]) -> None:
        super().__init__(context.name)
        self.context = context
        self.life = life
        self.told = 0
        life.append(f"+{context.name}")

    async def get_readings(self, **_kwargs: Any) -> Mapping[str, Any]:
        return {"width": self.context.attributes.width_px}

    async def resources_changed(self, _host: Any) -> None:
        self.told += 1

    async def close(self) -> None:
        self.life.append(f"-{self.name}")


class Brain(MLModel):
    def __init__(self, context: BuildContext, life: list[str]) -> None:
        super().__init__(context.name)
        self.folder = Path(context.attributes.folder)
        self.life = life
        life.append(f"+{context.name} {self.folder.name}")

    async def infer(self, input_tensors: Any, **_kwargs: Any) -> Any:
        return input_tensors

    async def metadata(self, **_kwargs: Any) -> Metadata:
        return Metadata(name=self.folder.name, type="", description="", input_info=[], output_info=[])

    async def close(self) -> None:
        self.life.append(f"-{self.name} {self.folder.name}")


class World:
    """Specs whose builds can be made to fail or to hang, by resource name."""

    def __init__(self) -> None:
        self.life: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.gates: dict[str, asyncio.Event] = {}
        sensor, mlmodel = "rdk:component:sensor", "rdk:service:mlmodel"
        needs: Callable[[Any], list[str]] = lambda attributes: attributes.needs  # noqa: E731
        self.specs = [
            ModelSpec(
                sensor,
                "test:thing:one",
                "Thing",
                "",
                ThingAttributes,
                self._thing,
                needs,
                aliases=("test:thing:alias",),
            ),
            ModelSpec(sensor, "test:thing:two", "Thing", "", ThingAttributes, self._thing, needs),
            ModelSpec(mlmodel, "test:brain:one", "Brain", "", ThingAttributes, self._brain, needs),
        ]

    async def _thing(self, context: BuildContext) -> Thing:
        await self._obstacles(context.name)
        return Thing(context, self.life)

    async def _brain(self, context: BuildContext) -> Brain:
        await self._obstacles(Path(context.attributes.folder).name)
        return Brain(context, self.life)

    async def _obstacles(self, name: str) -> None:
        if name in self.gates:
            await self.gates[name].wait()
        if name in self.failures:
            raise self.failures[name]


class Shelf:
    """A package source whose versions tests put in place."""

    def __init__(self) -> None:
        self.places: dict[str, PackageLocation] = {}
        self.said: list[str] = []

    def locate(self, name: str, kind: str) -> PackageLocation | None:
        return self.places.get(name)

    def loaded(self, name: str, version: str) -> None:
        self.said.append(f"loaded {name} {version}")

    def rejected(self, name: str, version: str, error: str) -> None:
        self.said.append(f"rejected {name} {version}: {error}")

    def put(self, name: str, version: str, folder: str | None, problem: str = "") -> None:
        self.places[name] = PackageLocation(name, version, Path(folder) if folder else None, problem)


def host(tmp_path: Path) -> MachineHost:
    return MachineHost(tmp_path, None)


def thing(name: str, *, model: str = "test:thing:one", **attributes: Any) -> dict[str, Any]:
    return {"name": name, "api": "rdk:component:sensor", "model": model, "attributes": attributes}


def brain(name: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "api": "rdk:service:mlmodel", "model": "test:brain:one", "attributes": attributes}


def config(*components: dict[str, Any], services: tuple[dict[str, Any], ...] = (), revision: str = "") -> MachineConfig:
    return parse_config({"components": list(components), "services": list(services), "revision": revision})


async def until(check: Callable[[], Any]) -> None:
    """Wait for something that happens elsewhere; the test's own time limit ends a wait in vain."""
    async with asyncio.timeout(20):
        while not check():  # noqa: ASYNC110 - anything may be waited for, not only events
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    """Something that runs until the block ends, and must not have failed by then."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None, task.exception()
