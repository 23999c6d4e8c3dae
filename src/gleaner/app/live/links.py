"""The app's end of every machine's link: notices out, status in, and a gRPC channel to the machine's own server."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable
from typing import Any, Protocol

from gleaner.app.errors import Unavailable
from gleaner.app.live.frames import Frames
from gleaner.app.live.pipe import PipeChannel, PipeTransport
from gleaner.app.services.fleet import FleetService
from gleaner.wire.link import MAX_PIPE_PIECE_BYTES, pack_pipe, unpack_pipe

log = logging.getLogger("gleaner.app.link")

#: Frames waiting to be written to one machine. Requests are small; this many waiting means the machine is gone.
_MOST_WAITING = 4096


class LinkSocket(Protocol):
    """A WebSocket that was accepted."""

    async def receive(self) -> str | bytes | None:
        """The next message, None once the machine has gone."""

    async def send(self, message: str | bytes) -> None: ...

    async def close(self, reason: str) -> None: ...


class Link:
    """One machine's connection. Made, used and ended on the event loop."""

    def __init__(self, part_id: str, socket: LinkSocket) -> None:
        self.part_id = part_id
        self._socket = socket
        self._outgoing: asyncio.Queue[str | bytes] = asyncio.Queue(_MOST_WAITING)
        self._pipes: dict[int, PipeTransport] = {}
        self._next_pipe = itertools.count(1)
        self.channel = PipeChannel(self._open_pipe)
        self.is_open = True

    def notify(self, notice: dict[str, Any]) -> None:
        self._enqueue(json.dumps(notice))

    async def run(self, on_text: Callable[[str], Any]) -> None:
        """Reads until the machine goes; `on_text` is awaited for each status."""
        writer = asyncio.create_task(self._write(), name=f"link writer {self.part_id}")
        try:
            while (message := await self._socket.receive()) is not None:
                if isinstance(message, str):
                    await on_text(message)
                else:
                    self._receive_piece(message)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            self.lost()

    async def close(self, reason: str) -> None:
        self.lost()
        await self._socket.close(reason)

    def lost(self) -> None:
        if self.is_open:
            self.is_open = False
            for pipe in list(self._pipes.values()):
                pipe.lost()
            self._pipes.clear()
            self.channel.close()

    def _open_pipe(self, protocol: asyncio.Protocol) -> PipeTransport:
        if not self.is_open:
            raise Unavailable("the machine went offline", "Wait until it is back; its page shows when.")
        pipe_id = next(self._next_pipe)

        def send(data: bytes) -> None:
            for start in range(0, len(data), MAX_PIPE_PIECE_BYTES):
                self._enqueue(pack_pipe(pipe_id, data[start : start + MAX_PIPE_PIECE_BYTES]))

        def closed() -> None:
            if self._pipes.pop(pipe_id, None) is not None:
                self._enqueue(pack_pipe(pipe_id))

        pipe = self._pipes[pipe_id] = PipeTransport(protocol, send, closed)
        return pipe

    def _receive_piece(self, frame: bytes) -> None:
        pipe_id, payload = unpack_pipe(frame)
        pipe = self._pipes.get(pipe_id)
        if pipe is not None and payload:
            pipe.receive(payload)
        elif pipe is not None:
            del self._pipes[pipe_id]
            pipe.lost()

    def _enqueue(self, message: str | bytes) -> None:
        if not self.is_open:
            return
        try:
            self._outgoing.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("the machine of part %s does not read its link: closing it", self.part_id)
            self.lost()

    async def _write(self) -> None:
        while True:
            await self._socket.send(await self._outgoing.get())


class MachineLinks:
    """Which machines are linked now. `notify` may be called from any thread, the rest from the event loop."""

    def __init__(self, fleet: FleetService) -> None:
        self._fleet = fleet
        self.frames = Frames()
        self._links: dict[str, Link] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        fleet.config_listeners.append(self._config_changed)

    def channel(self, part_id: str) -> PipeChannel:
        """For viam-sdk's generated stubs. Raises Unavailable while the machine is not linked."""
        link = self._links.get(part_id)
        if link is None or not link.is_open:
            raise Unavailable(
                "the machine is offline",
                "Start `gleaner machine` there and check that it reaches this app; see its logs.",
            )
        return link.channel

    def notify(self, part_id: str, notice: dict[str, Any]) -> None:
        """Sends a notice to the machine if it is linked; it polls anyway, only slower."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._notify, part_id, notice)

    async def serve(self, part_id: str, socket: LinkSocket) -> None:
        """Holds one accepted link until it ends. A newer link of the same part takes over: it is the machine after a
        change of network, and the old one would only notice much later."""
        self._loop = asyncio.get_running_loop()
        old = self._links.get(part_id)
        link = self._links[part_id] = Link(part_id, socket)
        if old is not None:
            await old.close("another connection of this machine took over")
        self._fleet.presence.linked(part_id, True)
        try:
            await link.run(lambda text: self._said(part_id, text))
        finally:
            if self._links.get(part_id) is link:
                del self._links[part_id]
                self._fleet.presence.linked(part_id, False)
                await asyncio.to_thread(self._fleet.publish_status, part_id)

    async def _said(self, part_id: str, text: str) -> None:
        message = json.loads(text)
        if message.get("type") == "hello":
            info = {
                "version": message.get("version", ""),
                "platform": message.get("platform", ""),
                "host": message.get("hostname", ""),
                "os": message.get("os", ""),
                "ips": message.get("ips", []),
            }
            await asyncio.to_thread(self._fleet.heard_from, part_id, info)
        elif message.get("type") == "status":
            status = {name: message.get(name) for name in ("revision", "resources", "packages", "elsewhere", "capture")}
            await asyncio.to_thread(self._fleet.reported, part_id, status)
            port = message.get("port")
            if isinstance(port, int) and port and self._fleet.presence.now(part_id).info.get("port") != port:
                await asyncio.to_thread(self._fleet.heard_from, part_id, {"port": port})

    def _config_changed(self, part_id: str, revision: str) -> None:
        self.notify(part_id, {"type": "config_changed", "revision": revision})

    def _notify(self, part_id: str, notice: dict[str, Any]) -> None:
        link = self._links.get(part_id)
        if link is not None:
            link.notify(notice)
