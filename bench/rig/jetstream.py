"""NATS JetStream with a file store, by its own protocol over loopback TCP: publish, wait for the stream's acknowledgement.

Debian's nats-server 2.9 writes an acknowledged message to the page cache and syncs to disk every two minutes; syncing
always came with 2.10. So what it acknowledges is not durable, and it is here for comparison only.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from rig.peers import NoPeers

START_S = 10.0


class JetStream:
    def __init__(self, port: int, pid: int) -> None:
        self._port, self._pid = port, pid

    def make_stream(self, name: str) -> None:
        with _Connection(self._port) as connection:
            wanted = {"name": name, "subjects": [f"{name}.*"], "storage": "file", "retention": "limits"}
            answer = connection.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(wanted).encode())
            if "error" in (said := json.loads(answer)):
                raise NoPeers(f"JetStream makes no stream: {said['error']}")

    def sender(self, stream: str) -> tuple[Callable[[int, bytes], None], Callable[[], None]]:
        connection = _Connection(self._port)

        def store(number: int, data: bytes) -> None:
            answer = json.loads(connection.request(f"{stream}.cam", data))
            if "error" in answer:
                raise RuntimeError(f"JetStream refused picture {number}: {answer['error']}")

        return store, connection.close

    def cpu_s(self) -> float:
        times = psutil.Process(self._pid).cpu_times()
        return float(times.user + times.system)


class _Connection:
    """One request at a time. Source: NATS client protocol (CONNECT, SUB, PUB, MSG, PING)."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")
        self._inbox = f"_INBOX.{id(self)}"
        self._lines.readline()  # INFO
        self._socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB %s 1\r\n' % self._inbox.encode())

    def request(self, subject: str, data: bytes) -> bytes:
        self._socket.sendall(f"PUB {subject} {self._inbox} {len(data)}\r\n".encode() + data + b"\r\n")
        while line := self._lines.readline():
            if line.startswith(b"MSG"):
                size = int(line.split()[-1])
                return self._lines.read(size + 2)[:size]
            if line.startswith(b"PING"):
                self._socket.sendall(b"PONG\r\n")
            elif line.startswith(b"-ERR"):
                raise RuntimeError(f"NATS said {line.decode().strip()}")
        raise RuntimeError("NATS closed the connection")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@contextlib.contextmanager
def jetstream(folder: Path) -> Iterator[JetStream]:
    """Raises NoPeers."""
    program = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
    if program is None:
        raise NoPeers("NATS is not installed: apt-get install nats-server")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [program, "--addr", "127.0.0.1", "--port", str(port), "--jetstream", "--store_dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield JetStream(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline, pause = time.monotonic() + START_S, threading.Event()
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        pause.wait(0.05)
    raise NoPeers("nats-server does not start")
