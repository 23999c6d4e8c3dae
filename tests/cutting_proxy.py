"""A TCP proxy between machine and app that breaks connections in every way a network does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from enum import StrEnum
from types import TracebackType

_CHUNK = 16 * 1024
_LINGER_NONE = struct.pack("ii", 1, 0)


class Cut(StrEnum):
    """What happens to the connections that are open when it is set, and to new ones as long as it stays."""

    NONE = "none"
    RST = "rst"
    FIN = "fin"
    BLACK_HOLE = "black hole"
    """Nothing arrives any more, in neither direction, and nobody says so."""
    HALF_OPEN = "half-open"
    """The app's end is gone; the machine's still looks open."""
    MUTE = "mute"
    """What the machine sends arrives, what the app answers does not: commits without an answer."""
    SLOW = "slow"


_SILENT = frozenset((Cut.BLACK_HOLE, Cut.HALF_OPEN, Cut.MUTE))


class _Pair:
    """One connection through the proxy: the machine's end and the app's."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near, self.far = near, far
        self.cut = Cut.NONE
        self.closed = asyncio.Event()

    def end(self, cut: Cut) -> None:
        """A silent cut is for ever: a connection that lost bytes can never go on."""
        self.cut = self.cut if self.cut in _SILENT else cut
        if cut is Cut.HALF_OPEN:
            self.far.transport.abort()
        elif cut is Cut.RST:
            self.reset()
        elif cut is Cut.FIN:
            self.near.close()
            self.far.close()
            self.closed.set()

    def reset(self) -> None:
        for writer in (self.near, self.far):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            writer.transport.abort()
        self.closed.set()


class CuttingProxy:
    """`with CuttingProxy(app_port) as proxy`: listens on `proxy.port`, in a thread of its own; any thread may cut."""

    def __init__(self, target_port: int, slow_bytes_per_s: float = 64_000.0) -> None:
        self.target_port = target_port
        self.port = 0
        self.connections = 0
        self.bytes_up = 0
        """From the machine to the app."""
        self._rate = slow_bytes_per_s
        self._cut = Cut.NONE
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cutting proxy")
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> CuttingProxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, cut: Cut) -> None:
        """From now on, until the next call. `NONE` heals: what was cut in silence stays dead, the rest goes on."""
        self._call(self._set(cut))

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for pair in list(self._pairs):
            pair.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _set(self, cut: Cut) -> None:
        self._cut = cut
        for pair in list(self._pairs):
            pair.end(cut)

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.target_port, limit=_CHUNK)
        except OSError:
            _Pair(near, near).reset()
            return
        pair = _Pair(near, far)
        self._pairs.add(pair)
        pair.end(self._cut)
        pumps = [
            asyncio.create_task(self._pump(pair, reader, far, is_up=True)),
            asyncio.create_task(self._pump(pair, far_reader, near, is_up=False)),
        ]
        try:
            await pair.closed.wait()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._pairs.discard(pair)
            for writer in (near, far):
                if not writer.is_closing():
                    writer.close()

    async def _pump(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_up: bool) -> None:
        try:
            while True:
                if pair.cut is Cut.BLACK_HOLE:
                    return  # its socket stays open and its buffers fill
                data = await reader.read(_CHUNK)
                if pair.cut in _SILENT and not (pair.cut is Cut.MUTE and is_up):
                    if data:
                        continue  # swallowed
                    if is_up:
                        pair.closed.set()  # the machine is gone
                    return  # the app hung up: the machine does not hear of it
                if not data:
                    break
                if pair.cut is Cut.SLOW:
                    await asyncio.sleep(len(data) / self._rate)
                writer.write(data)
                self.bytes_up += len(data) if is_up else 0
                await writer.drain()
        except OSError:
            pass
        if pair.cut not in _SILENT:
            pair.closed.set()
