"""Runs `gleaner machine` as its own process for tests of clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viam.robot.client import RobotClient
from viam.rpc.dial import DialOptions


@dataclass
class RunningMachine:
    process: subprocess.Popen[str]
    lines: list[str]

    @property
    def port(self) -> int:
        line = next(line for line in self.lines if line.startswith("robot API"))
        return int(line.split("://")[1].split()[0].rsplit(":", 1)[1])


@contextmanager
def running_machine(folder: Path, config: dict[str, Any]) -> Iterator[RunningMachine]:
    """Started, with its start lines read; stopped by SIGINT, and it must end well."""
    path = folder / "machine.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "gleaner.cli.main",
        "machine",
        "--config",
        str(path),
        "--home",
        str(folder / "home"),
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (folder / "machine.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        yield RunningMachine(process, _start_lines(process, folder))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0, (folder / "machine.log").read_text()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@asynccontextmanager
async def open_robot(machine: RunningMachine) -> AsyncIterator[RobotClient]:
    """A client of a machine without authentication, for reading: it keeps no session."""
    dial = DialOptions(insecure=True, disable_webrtc=True)
    options = RobotClient.Options(dial_options=dial, check_connection_interval=0, disable_sessions=True)
    client = await RobotClient.at_address(f"localhost:{machine.port}", options)
    try:
        yield client
    finally:
        await client.close()


def _start_lines(process: subprocess.Popen[str], folder: Path) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith("ready"):
            return lines
    raise AssertionError((folder / "machine.log").read_text())
