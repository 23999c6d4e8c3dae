"""A line between machine and app, in a process of its own: `python bench/rig/line.py TARGET_HOST TARGET_PORT …`.

`--bytes-per-s` limits each direction as a slow line does, with a buffer of `--buffer` bytes in front; `--cut-every-s` aborts
every connection again and again, and loses what is on the way. (`rig/delay.py` plays a fast and long line.)
Prints its port; then, whenever a line comes on stdin, JSON: bytes that came in from the machine, that went out to the
app, seconds in which the line was busy, cuts. Ends with its stdin.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass

CHUNK = 1400


@dataclass
class Counts:
    up_in: int = 0
    up_out: int = 0
    down: int = 0
    cuts: int = 0
    connections: int = 0


class Limit:
    """Sends at a steady rate: each piece takes its time on the line, shared by all connections of one direction."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        if not self._bytes_per_s:
            return
        now = time.monotonic()
        # A wake-up that came late is made up for, or a busy computer would make the line slower than it says.
        self._free_at = max(self._free_at, now - 0.1) + size / self._bytes_per_s
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class Line:
    def __init__(self, chosen: argparse.Namespace) -> None:
        self._chosen = chosen
        self._up, self._down = Limit(chosen.bytes_per_s), Limit(chosen.bytes_per_s)
        self._writers: set[asyncio.StreamWriter] = set()
        self.counts = Counts()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(self._chosen.host, self._chosen.port, limit=CHUNK)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        up = asyncio.create_task(self._carry(reader, far_writer, self._up, "up"))
        down = asyncio.create_task(self._carry(far_reader, writer, self._down, "down"))
        try:
            await asyncio.wait([up, down])
        finally:
            up.cancel()
            down.cancel()
            self._writers -= pair
            for end in pair:
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: Limit, name: str) -> None:
        """Ends when either side does."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if name == "up":
                    self.counts.up_in += len(data)
                await limit.take(len(data))
                if writer.is_closing():
                    return
                writer.write(data)
                self._count(name, len(data))
                await writer.drain()
            writer.write_eof()

    def _count(self, name: str, size: int) -> None:
        if name == "up":
            self.counts.up_out += size
        else:
            self.counts.down += size

    async def cut(self) -> None:
        while True:
            await asyncio.sleep(self._chosen.cut_every_s)
            self.counts.cuts += 1
            for writer in list(self._writers):
                writer.transport.abort()

    async def report(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while await reader.readline():
            print(json.dumps(asdict(self.counts)), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--bytes-per-s", type=float, default=0)
    parser.add_argument("--buffer", type=int, default=0)
    parser.add_argument("--cut-every-s", type=float, default=0)
    chosen = parser.parse_args()
    listener = socket.socket()
    if chosen.buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, chosen.buffer)
    listener.bind(("127.0.0.1", 0))
    line = Line(chosen)
    server = await asyncio.start_server(line.serve, sock=listener, limit=CHUNK)
    print(listener.getsockname()[1], flush=True)
    cutting = asyncio.create_task(line.cut()) if chosen.cut_every_s else None
    await line.report()
    if cutting is not None:
        cutting.cancel()
    server.close()
    os._exit(0)  # what is on the way is lost, as on a real line


if __name__ == "__main__":
    asyncio.run(main())
