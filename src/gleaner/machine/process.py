"""A machine as a process: start lines, signals, and an end that never hangs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from gleaner.machine.config_file import likely_misspelled, read_config_file, watch_config_file
from gleaner.machine.home import HomeInUse, MachineHome
from gleaner.machine.machine import Exit, Machine
from gleaner.machine.node import State
from gleaner.machine.rpc.listeners import ListenProblem
from gleaner.wire.machine_config import ConfigProblem, MachineConfig

_LOG = logging.getLogger(__name__)

#: Ctrl-C to the end of the process, whatever happens.
_STOP_LIMIT_S = 4.5
#: How long the start lines wait for resources before they say which are not ready yet.
_START_WAIT_S = 10.0
#: How often a machine with an app looks whether its setup file was replaced.
_SETUP_LOOK_S = 3.0


class CannotStart(Exception):
    """The machine cannot run as configured; the message is the one line for the user."""


def run_process(
    config_path: Path, home: Path | None, say: Callable[[str], None], metrics_port: int | None = None
) -> bool:
    """Runs until a signal, a Shutdown call or a restart notice; True means: start again. Raises CannotStart."""
    guard = _StopGuard()
    try:
        config = read_config_file(config_path)
        _warn_if_readable_by_others(config_path, config)
        _warn_of_misspelled(config_path, config)
        with (
            MachineHome(home or default_home(config, config_path)) as machine_home,
            asyncio.Runner(loop_factory=_loop_factory()) as runner,
        ):
            work = _run(config_path, config, machine_home, say, guard, metrics_port)
            return runner.run(work) is Exit.RESTART
    except (ConfigProblem, HomeInUse, ListenProblem) as problem:
        raise CannotStart(str(problem)) from problem
    except OSError as error:
        raise CannotStart(
            f"the machine's folder cannot be used: {error}: choose another with --home, or give this user the right to write there"
        ) from error


async def _run(
    config_path: Path,
    config: MachineConfig,
    home: MachineHome,
    say: Callable[[str], None],
    guard: _StopGuard,
    metrics_port: int | None,
) -> Exit | None:
    loop = asyncio.get_running_loop()
    machine = Machine(home, config)
    for number in (signal.SIGINT, signal.SIGTERM):
        # A second signal changes nothing: terminals and supervisors often send two, and stopping is bounded anyway.
        loop.add_signal_handler(number, machine.end, Exit.SHUTDOWN)
    try:
        await machine.start()
        if metrics_port is not None:
            say(f"metrics    http://127.0.0.1:{await _serve_metrics(machine, metrics_port)}/metrics")
        if config.cloud is None:
            await machine.apply(config)
            machine.spawn(_follow_file(config_path, config, machine), "configuration file")
        else:
            machine.spawn(_follow_cloud(config_path, config, machine), "setup file")
            if config.components or config.services:
                _LOG.warning(
                    "%s has a cloud section: its components and services come from the app, those in the file are ignored",
                    config_path,
                )
        machine.spawn(_announce(machine, say), "start lines")
        return await machine.exit
    except asyncio.CancelledError:
        return None
    finally:
        guard.start()
        await machine.stop()
        guard.is_machine_stopped = True
        say("stopped")


async def _serve_metrics(machine: Machine, port: int) -> int:
    try:
        return await machine.serve_metrics(port)
    except OSError as error:
        raise ListenProblem(
            f"metrics cannot be served on port {port}: {error.strerror}: choose another --metrics-port"
        ) from error


async def _follow_file(path: Path, config: MachineConfig, machine: Machine) -> None:
    async for changed in watch_config_file(path, config):
        if changed.cloud is not None:
            _LOG.warning("%s has a cloud section now: start the machine again to connect it to the app", path)
            continue
        _LOG.info("%s changed: following it", path)
        _warn_of_misspelled(path, changed)
        await machine.apply(changed)


async def _follow_cloud(path: Path, config: MachineConfig, machine: Machine) -> None:
    """Begins anew with new credentials or addresses: who replaces a revoked secret need not know how to restart this."""
    seen = await asyncio.to_thread(_stamp, path)
    while True:
        await asyncio.sleep(_SETUP_LOOK_S)
        stamp = await asyncio.to_thread(_stamp, path)
        if stamp in (seen, None):
            continue
        try:
            changed = await asyncio.to_thread(read_config_file, path)
        except ConfigProblem as problem:
            _LOG.error("%s; the machine goes on with what it was started with", problem)
            seen = stamp
            continue
        seen = stamp
        if (changed.cloud, changed.network) != (config.cloud, config.network):
            _LOG.info("%s changed: the machine starts again with it", path)
            machine.end(Exit.RESTART)
            return


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is edited or replaced; None while there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


async def _announce(machine: Machine, say: Callable[[str], None]) -> None:
    """What is served where, and which resources are ready."""
    say(f"home       {machine.host.home}")
    if machine.host.cloud is not None:
        say(f"app        {machine.host.cloud.web_address or machine.host.cloud.app_address}")
        await machine.configured.wait()
    if machine.server.url:
        say(
            f"robot API  {machine.server.url} ({'API key needed' if machine.server.is_authenticated else 'no credentials needed'})"
        )
    try:
        async with asyncio.timeout(_START_WAIT_S):
            await machine.graph.settle()
    except TimeoutError:
        pass
    nodes = machine.graph.nodes
    ready = [f"{node.key.subtype} {node.key.name}" for node in nodes if node.state is State.READY]
    say(f"ready      {', '.join(ready) or 'no resources yet'}")
    for node in nodes:
        if node.state is not State.READY:
            say(f"not ready  {node.key.subtype} {node.key.name}: {node.error or node.state.name.lower()}")
    for problem in [*(host.error for host in machine.modules.hosts), *machine.remotes.problems().values()]:
        if problem:
            say(f"not ready  {problem}")


class _StopGuard:
    """Ends the process when stopping takes too long: a driver stuck in the kernel, or a thread that still computes."""

    def __init__(self) -> None:
        self.is_machine_stopped = False

    def start(self) -> None:
        timer = threading.Timer(_STOP_LIMIT_S, self._give_up)
        timer.daemon = True  # it must not itself keep the process alive; it runs until the interpreter has gone
        timer.start()

    def _give_up(self) -> None:
        """Everything that matters is on the disk once the machine has stopped: leftover threads are then no failure."""
        if not self.is_machine_stopped:
            _LOG.error("something did not stop within %.1f s: the process ends without it", _STOP_LIMIT_S)
        logging.shutdown()
        os._exit(0 if self.is_machine_stopped else 1)


def _warn_if_readable_by_others(path: Path, config: MachineConfig) -> None:
    has_secret = config.cloud is not None and bool(config.cloud.secret or config.cloud.api_key)
    if has_secret and path.stat().st_mode & 0o077:
        _LOG.warning("%s holds this machine's secret and others on this computer can read it: chmod 600 %s", path, path)


def _warn_of_misspelled(path: Path, config: MachineConfig) -> None:
    for problem in likely_misspelled(config):
        _LOG.warning("%s: %s", path, problem)


def default_home(config: MachineConfig, config_path: Path) -> Path:
    """Where a machine lives unless --home says otherwise."""
    part = (
        config.cloud.id
        if config.cloud is not None
        else f"local-{config_path.absolute().parent.name}-{config_path.stem}"
    )
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in part)
    return Path("~/.gleaner/machines").expanduser() / safe


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed (it comes with the app's extra)."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
