"""How a machine is doing: asked over its private socket while it runs, read from its capture directory when it does not."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.config_file import read_config_file
from gleaner.machine.home import MachineHome
from gleaner.machine.process import default_home
from gleaner.wire.machine_config import ConfigProblem, MachineConfig

MACHINES = Path("~/.gleaner/machines")
REASONS = {
    "queue_full": "the disk was too slow",
    "thinned": "removed to make room",
    "disk_full": "disk full",
    "no_inodes": "too many files for the disk",
    "quota": "quota used up",
    "read_only": "disk read-only",
    "io_error": "disk error",
    "too_many_files": "too many open files",
    "no_permission": "no permission to write",
    "removed": "removed by somebody",
    "write_failed": "could not be written",
    "rejected": "refused by the app",
    "damaged": "damaged on this disk",
}
# What a machine says that is no failure: it is meant to be so.
_INTENDED = re.compile("no app is configured|sync is disabled|sync is held back: .* says should_sync: false$")
_TIMEOUT_S = 5.0


class NoMachine(Exception):
    """There is nothing to report on; the message is the one line for the user."""


@dataclass
class MachineState:
    home: Path
    is_running: bool
    ledger: dict[str, Any] | None
    not_ready: list[dict[str, str]] = field(default_factory=list)
    problem: str = ""

    @property
    def problems(self) -> list[str]:
        """In plain words; empty is healthy."""
        found = [] if self.is_running else ["the machine does not run"]
        found += [self.problem] if self.problem else []
        found += [f"{each['name']} is not ready: {each['error']}" for each in self.not_ready]
        ledger = self.ledger or {}
        found += [
            f"{c['component']}/{c['method']}: {c['last_error']}"
            for c in ledger.get("collectors", [])
            if c.get("last_error")
        ]
        sync_error = ledger.get("sync_error", "")
        if sync_error and not _INTENDED.match(sync_error):
            found.append(f"sync: {sync_error}")
        if ledger.get("disk", {}).get("state") == "full":
            found.append("the disk is full: nothing more can be captured until there is room")
        return found

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "home": str(self.home), "problems": self.problems, "healthy": not self.problems}


def find_home(config: Path | None, home: Path | None) -> Path:
    """What was named, or the only machine of this user. Raises NoMachine."""
    if home is not None:
        found = home.expanduser()
    elif config is not None:
        try:
            found = default_home(read_config_file(config), config)
        except ConfigProblem as problem:
            raise NoMachine(str(problem)) from problem
    else:
        folder = MACHINES.expanduser()
        there = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        if len(there) > 1:
            names = ", ".join(path.name for path in there)
            raise NoMachine(f"there are several machines in {folder} ({names}): name one with --home or --config")
        found = there[0] if there else folder / "none"
    if not found.is_dir():
        raise NoMachine(
            f"no machine has run in {found}: name its folder with --home, or its configuration with --config"
        )
    return found


def capture_folder(home: Path, config: Path | None) -> Path:
    """Where a machine that does not run keeps its captures, by the last configuration it had (models/data_manager.py)."""
    for path in [*([config] if config else []), *sorted(home.glob("cached_cloud_config_*.json"))]:
        try:
            parsed = read_config_file(path)
        except ConfigProblem:
            continue
        named = _named_folder(parsed)
        if named:
            return (home / Path(named).expanduser()).absolute()
    return home / "capture"


def _named_folder(config: MachineConfig) -> str:
    managers = [each for each in config.services if each.subtype == "data_manager"]
    return next((str(m.attributes["capture_dir"]) for m in managers if m.attributes.get("capture_dir")), "")


def machine_state(home: Path, config: Path | None = None) -> MachineState:
    """Blocking; changes nothing."""
    socket = MachineHome(home).socket_path
    if socket.exists():
        try:
            return asyncio.run(_ask(home, socket))
        except ConnectionRefusedError:
            pass  # left by a machine that was killed
        except (OSError, TimeoutError) as error:
            return MachineState(home, True, None, problem=f"the machine does not answer ({error or 'timeout'})")
    folder = capture_folder(home, config)
    return MachineState(home, False, read_ledger(folder) if folder.is_dir() else None)


async def _ask(home: Path, socket: Path) -> MachineState:
    from grpclib.client import Channel
    from grpclib.exceptions import GRPCError
    from viam.gen.robot.v1.robot_grpc import RobotServiceStub
    from viam.gen.service.datamanager.v1.data_manager_grpc import DataManagerServiceStub
    from viam.proto.common import GetStatusRequest
    from viam.proto.robot import GetMachineStatusRequest, ResourceStatus
    from viam.utils import struct_to_dict

    channel = Channel(path=str(socket))
    try:
        answer = await RobotServiceStub(channel).GetMachineStatus(GetMachineStatusRequest(), timeout=_TIMEOUT_S)
        state = MachineState(home, True, None)
        manager = None
        for each in answer.resources:
            if each.state != ResourceStatus.STATE_READY:
                word = ResourceStatus.State.Name(each.state).removeprefix("STATE_").lower()
                state.not_ready.append({"name": each.name.name, "state": word, "error": each.error or word})
            elif each.name.subtype == "data_manager":
                manager = each.name.name
        if manager is not None:
            try:
                status = await DataManagerServiceStub(channel).GetStatus(
                    GetStatusRequest(name=manager), timeout=_TIMEOUT_S
                )
                state.ledger = json.loads(json.dumps(struct_to_dict(status.result)))
            except GRPCError as error:
                state.problem = f"the data manager does not answer: {error.message}"
        return state
    except GRPCError as error:
        return MachineState(home, True, None, problem=f"the machine does not answer: {error.message}")
    finally:
        channel.close()
