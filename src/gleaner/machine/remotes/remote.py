"""One remote: connected for as long as it is configured, and what it has."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from viam.proto.robot import FrameSystemConfig
from viam.resource.base import ResourceBase

from gleaner.machine.foreign.offers import AnyAttributes, RemoteResource
from gleaner.machine.foreign.resource import ProcessSilent, Route, make_resource
from gleaner.machine.models.base import BuildContext, ModelSpec
from gleaner.machine.names import ResourceKey
from gleaner.machine.remotes.connection import RemoteConnection, RemoteListing, RemoteRefuses
from gleaner.machine.remotes.frames import remote_frames
from gleaner.wire.durations import parse_duration_ns
from gleaner.wire.machine_config import RemoteConfig
from gleaner.wire.world_pose import Frames

# Source: Viam's documented defaults.
CHECK_S = 10.0
RECONNECT_S = 1.0
#: Machines that are each other's remotes would name their resources without end.
_MAX_REMOTES_DEEP = 4


class Remote:
    """`start()`; `stop()`. `changed` is called when its resources or its state change."""

    def __init__(self, config: RemoteConfig, trusted: str, changed: Callable[[], None]) -> None:
        self.config = config
        self.error = f"remote {config.name} is being connected"
        """Why it cannot be used now; empty while it is connected."""
        self.services: Mapping[str, str] = {}
        self.resources: tuple[RemoteResource, ...] = ()
        self.parts: tuple[FrameSystemConfig, ...] = ()
        """Of its frame system, as the other machine names them; kept while it is away."""
        self.frames: Frames = remote_frames(config, ())
        self._trusted = trusted
        self._changed = changed
        self._log = logging.getLogger(f"gleaner.remote.{config.name}")
        self._check_s = _interval_s(config.connection_check_interval, CHECK_S)
        self._reconnect_s = _interval_s(config.reconnect_interval, RECONNECT_S)
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._specs: dict[ResourceKey, ModelSpec] = {}

    def place(self, config: RemoteConfig) -> None:
        """Follows what does not concern the connection."""
        self.config = config
        self.frames = remote_frames(config, self.parts)

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._stay_connected(), name=f"remote {self.config.name}")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _stay_connected(self) -> None:
        while True:
            try:
                await self._while_connected()
            except (RemoteRefuses, ProcessSilent) as problem:
                self._away(str(problem))
            except Exception as error:  # noqa: BLE001 (the top of this task: a remote that is never tried again must not be)
                self._log.exception("remote %s: a mistake of this machine's", self.config.name)
                self._away(f"remote {self.config.name} could not be used: {type(error).__name__}: {error}")
            await asyncio.sleep(self._reconnect_s)

    async def _while_connected(self) -> None:
        """Ends by RemoteRefuses or ProcessSilent."""
        self._lost.clear()
        connection = RemoteConnection(self.config, self._trusted, self._lost.set)
        try:
            await connection.open()
            listing = await connection.listing()
            self._here(connection, listing)
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._check_s):
                        await self._lost.wait()
                self._lost.clear()
                found = await connection.listing()
                if found != listing:
                    listing = found
                    self._publish(connection, listing)
        finally:
            connection.close()

    def _here(self, connection: RemoteConnection, listing: RemoteListing) -> None:
        self._log.info("remote %s is connected: %d resources", self.config.name, len(listing.keys))
        self.error = ""
        self._specs = {}
        self._publish(connection, listing)

    def _away(self, reason: str) -> None:
        if reason == self.error:
            return
        self._log.warning("%s; it is tried again", reason)
        self.error = reason
        self.resources = tuple(RemoteResource(each.key, each.remote, each.spec, reason) for each in self.resources)
        self._changed()

    def _publish(self, connection: RemoteConnection, listing: RemoteListing) -> None:
        self.services = dict(listing.services)
        self.parts = listing.frames
        self.frames = remote_frames(self.config, listing.frames)
        self.resources = tuple(
            RemoteResource(here, self.config.name, self._spec(connection, here, there))
            for there in listing.keys
            if (here := self._key_here(there)) is not None
        )
        self._changed()

    def _key_here(self, there: ResourceKey) -> ResourceKey | None:
        """Viam's naming: `remote:name`, the remote's prefix before the name."""
        if there.api.startswith("rdk-internal:") or there.name.count(":") >= _MAX_REMOTES_DEEP:
            return None
        return ResourceKey(there.api, f"{self.config.name}:{self.config.prefix}{there.name}")

    def _spec(self, connection: RemoteConnection, here: ResourceKey, there: ResourceKey) -> ModelSpec:
        """The same object for as long as the connection lasts."""
        if here not in self._specs:
            owner = f"remote {self.config.name}"

            services = {api: service for service, api in self.services.items()}

            async def nothing() -> None:
                return None

            async def build(_context: BuildContext) -> ResourceBase:
                return make_resource(
                    there.api, Route(connection.channel, there.name, owner, services.get(there.api, "")), nothing
                )

            self._specs[here] = ModelSpec(there.api, "", owner, "", AnyAttributes, build)
        return self._specs[here]


def _interval_s(text: str, otherwise_s: float) -> float:
    """Raises ValueError, which the configuration's check has excluded."""
    value_s = parse_duration_ns(text) / 1e9 if text else 0.0
    return value_s if value_s > 0 else otherwise_s
