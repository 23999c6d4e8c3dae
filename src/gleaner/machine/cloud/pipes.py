"""Byte pipes between the link and the machine's private gRPC socket.

Each pipe has its own bounded queue, so a slow one never holds up the others; a pipe whose queue runs over is closed.
Towards the app, the link's own back-pressure holds the reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from websockets.exceptions import ConnectionClosed

from gleaner.wire.link import MAX_PIPE_PIECE_BYTES, pack_pipe, unpack_pipe

_LOG = logging.getLogger("gleaner.cloud.link")

MAX_PIPES = 64
#: Above HTTP/2's flow-control windows, so only a stuck reader fills it.
MAX_QUEUED_BYTES = 16 * 1024 * 1024


class Pipes:
    """One per connection of the link; `close` ends every pipe."""

    def __init__(self, socket_path: Path, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._socket_path = socket_path
        self._send = send
        self._pipes: dict[int, _Pipe] = {}
        self._farewells: set[asyncio.Task[None]] = set()
        self._is_closing = False

    def receive(self, frame: bytes) -> None:
        """A binary frame from the app. Raises ValueError for a malformed one."""
        pipe_id, payload = unpack_pipe(frame)
        pipe = self._pipes.get(pipe_id)
        if not payload:
            if pipe is not None:
                pipe.end()
            return
        if pipe is None:
            if len(self._pipes) >= MAX_PIPES:
                _LOG.warning("the app wants more than %d pipes at once: one was refused", MAX_PIPES)
                return
            pipe = self._pipes[pipe_id] = _Pipe(pipe_id, self._socket_path, self._send)
            pipe.task.add_done_callback(lambda _task: self._ended(pipe_id))
        pipe.offer(payload)

    async def close(self) -> None:
        self._is_closing = True
        tasks = [*(pipe.task for pipe in self._pipes.values()), *self._farewells]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, pipe_id: int) -> None:
        """Told from here and not by the pipe's task, which may be cancelled before it has run at all."""
        self._pipes.pop(pipe_id, None)
        if not self._is_closing:
            farewell = asyncio.create_task(self._tell_closed(pipe_id), name=f"link pipe {pipe_id} closes")
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)

    async def _tell_closed(self, pipe_id: int) -> None:
        with contextlib.suppress(ConnectionClosed):  # the link itself is gone: there is nobody to tell
            await self._send(pack_pipe(pipe_id))


class _Pipe:
    def __init__(self, pipe_id: int, socket_path: Path, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._id = pipe_id
        self._socket_path = socket_path
        self._send = send
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queued_bytes = 0
        self.task = asyncio.create_task(self._run(), name=f"link pipe {pipe_id}")

    def offer(self, payload: bytes) -> None:
        if self._queued_bytes + len(payload) > MAX_QUEUED_BYTES:
            _LOG.warning("pipe %d of the link is stuck and was closed", self._id)
            self.task.cancel()
            return
        self._queued_bytes += len(payload)
        self._queue.put_nowait(payload)

    def end(self) -> None:
        self._queue.put_nowait(b"")

    async def _run(self) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket_path))
        except OSError as error:
            _LOG.error("the link cannot reach this machine's own robot API: %s", error)
            return
        outward = asyncio.create_task(self._pump_out(reader), name=f"link pipe {self._id} outward")
        inward = asyncio.create_task(self._pump_in(writer), name=f"link pipe {self._id} inward")
        try:
            await asyncio.wait([outward, inward], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (outward, inward):
                task.cancel()
            await asyncio.wait([outward, inward])
            writer.close()

    async def _pump_in(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while payload := await self._queue.get():
                self._queued_bytes -= len(payload)
                writer.write(payload)
                await writer.drain()

    async def _pump_out(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, ConnectionClosed):
            while payload := await reader.read(MAX_PIPE_PIECE_BYTES):
                await self._send(pack_pipe(self._id, payload))
