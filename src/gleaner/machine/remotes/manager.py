"""The remotes of a machine, following the configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from viam.proto.robot import FrameSystemConfig

from gleaner.machine.foreign.offers import RemoteResource
from gleaner.machine.remotes.frames import remote_parts
from gleaner.machine.remotes.remote import Remote
from gleaner.wire.machine_config import CloudConfig, RemoteConfig
from gleaner.wire.world_pose import Frames


class RemoteManager:
    """`configure` as often as the configuration changes; `close` when the machine stops."""

    def __init__(self, cloud: CloudConfig | None) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._trusted = cloud.ca_certificate if cloud is not None else ""
        self._remotes: dict[str, Remote] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def remotes(self) -> Sequence[Remote]:
        return tuple(self._remotes.values())

    def configure(self, configs: Sequence[RemoteConfig]) -> None:
        """Connect what is new, let go of what is gone; what only captures something else stays connected."""
        wanted = {config.name: config for config in configs}
        for name, remote in list(self._remotes.items()):
            if name not in wanted or _dial(wanted[name]) != _dial(remote.config):
                self._let_go(self._remotes.pop(name))
        for name, config in wanted.items():
            if name in self._remotes:
                self._remotes[name].place(config)
            else:
                self._remotes[name] = Remote(config, self._trusted, self._remote_changed)
                self._remotes[name].start()

    async def close(self) -> None:
        for remote in self._remotes.values():
            self._let_go(remote)
        self._remotes = {}
        if self._ending:
            await asyncio.wait(self._ending)

    def resources(self) -> Sequence[RemoteResource]:
        return [resource for remote in self._remotes.values() for resource in remote.resources]

    def problems(self) -> Mapping[str, str]:
        return {name: remote.error for name, remote in self._remotes.items() if remote.error}

    def services(self) -> dict[str, str]:
        return {service: api for remote in self._remotes.values() for service, api in remote.services.items()}

    def parts(self) -> list[FrameSystemConfig]:
        """Of this machine's frame system. Raises ValueError naming the remote whose frame cannot be read."""
        return [part for remote in self._remotes.values() for part in remote_parts(remote.config, remote.parts)]

    def frames(self) -> Frames:
        return {name: frame for remote in self._remotes.values() for name, frame in remote.frames.items()}

    def _let_go(self, remote: Remote) -> None:
        task = asyncio.create_task(remote.stop(), name=f"end of remote {remote.config.name}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _remote_changed(self) -> None:
        self.changed()


def _dial(config: RemoteConfig) -> RemoteConfig:
    """Without what does not concern the connection."""
    return config.model_copy(update={"service_configs": [], "frame": None})
