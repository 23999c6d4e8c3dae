"""The modules of a machine: one host each, following the configuration."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gleaner.machine.foreign.offers import Offer
from gleaner.machine.modules.host import Doors, ModuleHost, ModuleState
from gleaner.machine.modules.launch import CannotLaunch, Launch, plan_launch
from gleaner.machine.placeholders import PackageSource
from gleaner.wire.machine_config import CloudConfig, MachineConfig, ResourceConfig


class NoSuchModule(KeyError):
    """No module of that name is configured."""


class ModuleManager:
    """`configure` before the resources follow a configuration, `end_removed` after; `close` when the machine stops."""

    def __init__(self, home: Path, cloud: CloudConfig | None, packages: PackageSource, sockets: Path) -> None:
        """`sockets` is a private folder with a short path. `doors` must be set before the first `configure`."""
        self.changed: Callable[[], None] = lambda: None
        self.doors: Doors
        self._home = home
        self._cloud = cloud
        self._packages = packages
        self._sockets = sockets
        self._config = MachineConfig()
        self._hosts: dict[str, ModuleHost] = {}
        self._removed: list[ModuleHost] = []
        self._ending: dict[asyncio.Task[None], ModuleHost] = {}

    @property
    def hosts(self) -> Sequence[ModuleHost]:
        return tuple(self._hosts.values())

    def configure(self, config: MachineConfig) -> None:
        """Start what is new; what changed starts anew by itself. What is gone runs until `end_removed`."""
        self._config = config
        names = {module.name for module in config.modules}
        for name in [name for name in self._hosts if name not in names]:
            self._removed.append(self._hosts.pop(name))
        for module in config.modules:
            host = self._hosts.get(module.name)
            if host is None:
                host = ModuleHost(
                    module.name, self._launcher(module.name), self._sockets, self.doors, self._host_changed
                )
                self._hosts[module.name] = host
                host.start()
            else:
                host.look_again()

    def look_again(self) -> None:
        """What modules wait for may have come."""
        for host in self._hosts.values():
            host.look_again()

    def end_removed(self) -> None:
        """What is no longer configured ends by itself from here: nobody waits for a module that takes its time."""
        removed, self._removed = self._removed, []
        for host in removed:
            task = asyncio.create_task(host.stop(), name=f"end of module {host.name}")
            self._ending[task] = host
            task.add_done_callback(self._ending.pop)

    def hurry(self) -> None:
        """The machine ends."""
        for host in [*self._hosts.values(), *self._ending.values()]:
            host.hurry()

    async def close(self) -> None:
        hosts = [*self._hosts.values(), *self._removed]
        self._hosts, self._removed = {}, []
        self.hurry()
        await asyncio.gather(*(host.stop(hurried=True) for host in hosts), *self._ending)

    def restart(self, name: str = "", module_id: str = "") -> None:
        """Raises NoSuchModule."""
        for host in self._hosts.values():
            launch = host.launch
            if name == host.name or (module_id and launch is not None and launch.config.module_id == module_id):
                host.restart()
                return
        raise NoSuchModule(name or module_id)

    def offer(self, config: ResourceConfig, attributes: Mapping[str, Any]) -> Offer | None:
        for host in self._hosts.values():
            if (config.api, config.model) in host.models:
                return host.offer(config, attributes)
        # A module that was never ready may have any model.
        unknown = [host for host in self._hosts.values() if not host.models and host.state is not ModuleState.READY]
        starting = next((host for host in unknown if not host.error), None)
        if starting is not None:
            return Offer(waits_for=f"waits for module {starting.name}, which is starting")
        if unknown:
            return Offer(error=f"no model {config.model} of {config.api} is known; {unknown[0].error}")
        return None

    def services(self) -> dict[str, str]:
        """gRPC service → API of everything that modules bring."""
        return {service: api for host in self._hosts.values() for service, api in host.services.items()}

    def _launcher(self, name: str) -> Callable[[], Launch]:
        def launch() -> Launch:
            module = next((module for module in self._config.modules if module.name == name), None)
            if module is None:
                raise CannotLaunch("is no longer configured")
            return plan_launch(module, self._config, self._packages, self._home, self._cloud)

        return launch

    def _host_changed(self) -> None:
        self.changed()


def remove_leftover_sockets(folder: Path) -> None:
    """What a machine that was killed left behind."""
    for pattern in ("m-*.sock", "p-*.sock"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()
