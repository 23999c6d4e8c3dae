"""One module: its program kept running, started again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from grpclib import GRPCError
from grpclib.client import Channel

from gleaner.machine.foreign.offers import Offer
from gleaner.machine.foreign.resource import ProcessSilent
from gleaner.machine.modules.launch import CannotLaunch, Launch, run_first
from gleaner.machine.modules.program import Program
from gleaner.machine.modules.run import ModuleRun
from gleaner.wire.durations import parse_duration_ns
from gleaner.wire.machine_config import ResourceConfig

# Source: Viam's documented module protocol: how often Ready is asked, and how long a module may take to say it.
READY_INTERVAL_S = 0.2
START_LIMIT_S = 300.0
#: A module has this long to end once asked; when the machine itself ends, less.
GRACE_S = 10.0
HURRIED_S = 2.0
HURRIED_REMOVE_S = 0.5
#: Pauses between starts grow from the first to the last of these. Source: ours; Viam's is 5 s.
_PAUSES_S = (0.5, 1.0, 2.0, 5.0)
#: A module that ran so long gets the shortest pause again.
_HEALTHY_AFTER_S = 60.0


class ModuleState(Enum):
    """Values of `viam.robot.v1.ModuleStatus.State`."""

    PENDING = 1
    STARTING = 2
    READY = 3
    UNHEALTHY = 4
    CLOSING = 5


class Doors(Protocol):
    """Robot APIs on private sockets, one for each module: that is how the machine knows who asks."""

    async def open_for_module(self, path: Path, name: str) -> None: ...

    async def close_for_module(self, path: Path) -> None: ...


class ModuleHost:
    """`start()`, then `offer` as often as liked; `stop()` ends the program. `changed` is called on every change of state."""

    def __init__(
        self, name: str, launch: Callable[[], Launch], sockets: Path, doors: Doors, changed: Callable[[], None]
    ) -> None:
        """`launch` is asked before each start. `sockets` is a private folder with a short path."""
        self.name = name
        self.state = ModuleState.PENDING
        self.error = ""
        self.failures = 0
        self.last_updated = datetime.now(UTC)
        self.services: dict[str, str] = {}
        """gRPC service → API, of the APIs that the module brings."""
        self.models: frozenset[tuple[str, str]] = frozenset()
        """(API, model), as last told; they are remembered while the module is down."""
        self.log = logging.getLogger(f"gleaner.module.{name}")
        self.launch: Launch | None = None
        self._plan = launch
        self._sockets = sockets
        self._doors = doors
        self._parent = sockets / f"p-{os.urandom(3).hex()[:5]}.sock"
        self._changed = changed
        self._run: ModuleRun | None = None
        self._program: Program | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._grace_s = GRACE_S

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep_running(), name=f"module {self.name}")

    async def stop(self, *, hurried: bool = False) -> None:
        if hurried:
            self.hurry()
        task, self._task = self._task, None
        if task is not None:
            self._become(ModuleState.CLOSING)
            task.cancel()
            await asyncio.wait([task])

    @property
    def is_local(self) -> bool:
        return self.launch is None or self.launch.config.type == "local"

    def hurry(self) -> None:
        """The machine ends: whatever is asked of the module from now on may take little time."""
        if self._grace_s == HURRIED_S:
            return
        self._grace_s = HURRIED_S
        if self._run is not None:
            self._run.remove_patience_s = HURRIED_REMOVE_S
        if self._program is not None and self._task is None:  # it is ending already, in its own time
            asyncio.get_running_loop().call_later(HURRIED_S, self._program.kill)

    def restart(self) -> None:
        """End the program, if it runs, and start it at once."""
        self.failures = 0
        self._again.set()

    def look_again(self) -> None:
        """What kept it from starting may be gone, e.g. a package has arrived; a changed launch starts it anew."""
        if self.state is ModuleState.UNHEALTHY:
            self._again.set()
            return
        with contextlib.suppress(CannotLaunch):
            if self.launch is not None and self._plan() != self.launch:
                self._again.set()

    # -- the program --------------------------------------------------------------------------------------------

    async def _keep_running(self) -> None:
        await self._doors.open_for_module(self._parent, self.name)
        try:
            await self._run_for_ever()
        finally:
            await self._doors.close_for_module(self._parent)
            self._parent.unlink(missing_ok=True)

    async def _run_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        short_runs = 0
        while True:
            began_s = loop.time()
            self._again.clear()
            try:
                reason = await self._run_once()
            except (CannotLaunch, ProcessSilent) as problem:
                reason = str(problem)
            except OSError as error:  # no memory, no file descriptors: a state of the machine that passes
                reason = f"cannot be started: {error}"
            except GRPCError as error:
                reason = f"refuses to start: {error.message or error.status.name}"
            except Exception as error:  # the top of this task, without which the module would never start again
                self.log.exception("module %s: a mistake of the machine's", self.name)
                reason = f"could not be run: {type(error).__name__}: {error}"
            short_runs = 0 if loop.time() - began_s > _HEALTHY_AFTER_S else short_runs + 1
            if self._again.is_set():
                self._become(ModuleState.STARTING)
                continue
            self.failures += 1
            self._fail(reason)
            pause_s = _PAUSES_S[min(max(short_runs, 1), len(_PAUSES_S)) - 1]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._again.wait()

    async def _run_once(self) -> str:
        """Why it ended. Raises CannotLaunch, ProcessSilent, OSError, GRPCError."""
        launch = self.launch = self._plan()
        address, channel = self._address(launch)
        # Our own variables may hold keys, such as that of encrypted captures: no module's business.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GLEANER_")}
        environment = {**inherited, **dict(launch.environment), "VIAM_MODULE_ADDRESS": address}
        Path(environment["VIAM_MODULE_DATA"]).mkdir(parents=True, exist_ok=True)
        await run_first(launch, environment, self.log)
        if self.state is not ModuleState.UNHEALTHY:  # what failed stays so, with its reason, until it works
            self._become(ModuleState.STARTING)
        run = ModuleRun(self.name, channel, self.log, self._changed)
        program = self._program = await Program.start(_command(launch, address), environment, launch.folder, self.log)
        try:
            ended = asyncio.create_task(program.wait(), name=f"end of module {self.name}")
            again = asyncio.create_task(self._again.wait())
            try:
                await self._until_ready(run, ended, launch)
                await asyncio.wait([ended, again], return_when=asyncio.FIRST_COMPLETED)
                return ended.result() if ended.done() else "was restarted"
            finally:
                ended.cancel()
                again.cancel()
        finally:
            self._run = None
            run.end()
            await program.stop(self._grace_s)
            self._program = None
            channel.close()
            Path(address).unlink(missing_ok=True)

    async def _until_ready(self, run: ModuleRun, ended: asyncio.Task[str], launch: Launch) -> None:
        limit_s = _start_limit_s()
        deadline = asyncio.get_running_loop().time() + limit_s
        while True:
            ready = asyncio.create_task(run.is_ready(str(self._parent)))
            await asyncio.wait([ready, ended], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ready.cancel()
                await asyncio.wait([ready])
                raise CannotLaunch(f"{launch.program} {ended.result()}")
            if ready.result():
                break
            if asyncio.get_running_loop().time() > deadline:
                raise CannotLaunch(f"{launch.program} was not ready within {limit_s:g} s")
            await asyncio.wait([ended], timeout=READY_INTERVAL_S)
        self.services, self.models, self._run = run.services, frozenset(run.models), run
        self.log.info(
            "module %s is ready with %s", self.name, ", ".join(sorted(m for _, m in run.models)) or "no models"
        )
        self._become(ModuleState.READY)

    def _address(self, launch: Launch) -> tuple[str, Channel]:
        if launch.config.tcp_mode:
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = int(taken.getsockname()[1])
            return f"127.0.0.1:{port}", Channel("127.0.0.1", port)
        path = self._sockets / f"m-{os.urandom(3).hex()[:5]}.sock"
        return str(path), Channel(path=str(path))

    def _fail(self, reason: str) -> None:
        error = f"module {self.name} {reason}" if not reason.startswith("module ") else reason
        if self._become(ModuleState.UNHEALTHY, error):
            self.log.error("%s; it is started again", error)

    def _become(self, state: ModuleState, error: str = "") -> bool:
        if (state, error) == (self.state, self.error):
            return False
        self.state, self.error = state, error
        self.last_updated = datetime.now(UTC)
        if state is ModuleState.READY:
            self.failures = 0
        self._changed()
        return True

    def offer(self, config: ResourceConfig, attributes: Mapping[str, Any]) -> Offer:
        """What it says to a resource of one of its models."""
        run = self._run
        if run is not None and self.state is ModuleState.READY:
            return run.offer(config, attributes)
        return Offer(error=self.error) if self.error else Offer(waits_for=f"module {self.name} is starting")


def _command(launch: Launch, address: str) -> list[str]:
    command = [str(launch.program), address]
    if launch.config.log_level:
        command.append(f"--log-level={launch.config.log_level}")
    if launch.config.tcp_mode:
        command.append("--tcp-mode")
    return command


def _start_limit_s() -> float:
    text = os.environ.get("VIAM_MODULE_STARTUP_TIMEOUT", "")
    try:
        return parse_duration_ns(text) / 1e9 if text else START_LIMIT_S
    except ValueError:
        return START_LIMIT_S
