"""The least that any Python program pays to send files away: the bench's floor.

    python bench/rig/floor.py sink CERT KEY        # prints its port, throws away what comes, ends with its stdin
    python bench/rig/floor.py send PORT CA FOLDER  # prints files/s and µs of processor a file as JSON

One thread, one blocking TLS socket, files listed, looked at, read into one buffer, hashed, sent 1 MiB at a time and
removed. No frames, no answers, nothing counted, nothing durable: what a sync does beside this is what it is for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

HOST = "127.0.0.1"
BUFFER_BYTES = 1 << 20


def sink(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server((HOST, 0))
    print(listener.getsockname()[1], flush=True)

    def serve() -> None:
        buffer = bytearray(BUFFER_BYTES)
        while True:
            with contextlib.suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as one:
                while one.recv_into(buffer):
                    pass
                one.unwrap()

    threading.Thread(target=serve, daemon=True).start()
    sys.stdin.read()


def send(port: int, authority: str, folder: str) -> dict[str, float]:
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False
    with context.wrap_socket(socket.create_connection((HOST, port))) as line:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        count = filled = 0
        began, before = time.perf_counter(), time.process_time()
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                size = entry.stat(follow_symlinks=False).st_size
                if filled + size > BUFFER_BYTES:
                    line.sendall(buffer[:filled])
                    filled = 0
                handle = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
                read = os.readv(handle, [buffer[filled : filled + size]])
                os.close(handle)
                hashlib.sha256(buffer[filled : filled + read]).digest()
                filled += read
                os.unlink(entry.path)  # noqa: PTH108 (the floor)
                count += 1
        line.sendall(buffer[:filled])
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - before
    return {"files_per_s": count / seconds, "us_per_file": cpu_s / count * 1e6}


class Floor:
    def __init__(self, port: int, authority: Path) -> None:
        self._port, self._authority = port, authority
        self.us_per_file: list[float] = []

    def send(self, folder: Path, _count: int) -> float:
        """As the bench's other senders: the seconds it took."""
        command = [sys.executable, __file__, "send", str(self._port), str(self._authority), str(folder)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        self.us_per_file.append(found["us_per_file"])
        return _count / float(found["files_per_s"])


@contextlib.contextmanager
def running_floor(tls: Path) -> Iterator[Floor]:
    """`tls` is the app's folder of certificates."""
    command = [sys.executable, __file__, "sink", str(tls / "server.pem"), str(tls / "server.key")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield Floor(int(process.stdout.readline()), tls / "ca.pem")
        finally:
            process.stdin.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sink", certificate_file, key_file]:
            sink(certificate_file, key_file)
        case ["send", port_text, authority_file, source]:
            print(json.dumps(send(int(port_text), authority_file, source)))
        case _:
            raise SystemExit(__doc__)
