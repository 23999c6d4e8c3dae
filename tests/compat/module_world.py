"""What tests of modules and remotes share: a module's program, configurations, and waiting for states."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine_process import RunningMachine, running_machine
from viam.proto.robot import ResourceStatus
from viam.robot.client import RobotClient

HERE = Path(__file__).parent


@dataclass
class ModuleWorld:
    folder: Path

    def module(self, name: str = "acme", **more: Any) -> dict[str, Any]:
        """A module as a shell script that starts Python, like most of them; without `exec`, which many forget."""
        script = self.folder / f"{name}.sh"
        script.write_text(f'#!/bin/sh\n"{sys.executable}" "{HERE / "sdk_module.py"}" "$@"\n')
        script.chmod(0o755)
        environment = {"LIFE": str(self.life_path), **more.pop("env", {})}
        return {"name": name, "executable_path": str(script), "env": environment, **more}

    @property
    def life_path(self) -> Path:
        return self.folder / "life.txt"

    def life(self) -> list[str]:
        return self.life_path.read_text().split("\n")[:-1] if self.life_path.exists() else []

    def log(self) -> str:
        return (self.folder / "machine.log").read_text()

    def save(self, config: dict[str, Any]) -> None:
        (self.folder / "machine.json").write_text(json.dumps(complete(config)))

    @contextmanager
    def machine(self, config: dict[str, Any]) -> Iterator[RunningMachine]:
        with running_machine(self.folder, complete(config)) as machine:
            yield machine


def complete(config: dict[str, Any]) -> dict[str, Any]:
    return {"network": {"bind_address": "localhost:0"}, **config}


def counter(name: str = "c", **attributes: Any) -> dict[str, Any]:
    return {"name": name, "api": "rdk:component:sensor", "model": "acme:test:counter", "attributes": attributes}


def fake(name: str = "fake") -> dict[str, Any]:
    return {
        "name": name,
        "api": "rdk:component:sensor",
        "model": "fake",
        "attributes": {"values": {"temperature": 21.5}},
    }


SIM = {"name": "cam", "api": "rdk:component:camera", "model": "gleaner:camera:sim"}


async def until(check: Any, seconds: float = 30) -> Any:
    """The first true answer; a connection that breaks meanwhile is none."""
    async with asyncio.timeout(seconds):
        while True:
            if value := await check():
                return value
            await asyncio.sleep(0.02)


async def states(robot: RobotClient) -> dict[str, ResourceStatus]:
    return {each.name.name: each for each in (await robot.get_machine_status()).resources}


async def ready(robot: RobotClient, *names: str) -> None:
    async def check() -> bool:
        now = await states(robot)
        return all(name in now and now[name].state == ResourceStatus.STATE_READY for name in names)

    await until(check)
    await robot.refresh()


async def unhealthy(robot: RobotClient, name: str, text: str) -> str:
    async def check() -> str:
        status = (await states(robot)).get(name)
        wrong = status is not None and status.state == ResourceStatus.STATE_UNHEALTHY and text in status.error
        return status.error if wrong and status is not None else ""

    found: str = await until(check)
    return found
