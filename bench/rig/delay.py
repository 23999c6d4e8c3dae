"""A line of 100 ms and any speed, in a process of its own: `python bench/rig/delay.py HOST PORT DELAY_MS` (each direction).

Threads and blocking sockets, because relaying must not cost the processor that the measured programs share with it.
Prints its port; ends with its stdin.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import sys
import threading
import time

CHUNK = 1 << 20


def carry(source: socket.socket, target: socket.socket, delay_s: float) -> None:
    pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def deliver() -> None:
        with contextlib.suppress(OSError):
            while True:
                due_s, data = pieces.get()
                if (wait_s := due_s - time.monotonic()) > 0:
                    time.sleep(wait_s)
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)

    threading.Thread(target=deliver, daemon=True).start()
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            pieces.put((time.monotonic() + delay_s, data))
    pieces.put((time.monotonic() + delay_s, b""))


def main() -> None:
    host, port, delay_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1000
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)

    def accept() -> None:
        while True:
            near, _ = listener.accept()
            far = socket.create_connection((host, port))
            for pair in ((near, far), (far, near)):
                for end in pair:
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=carry, args=(*pair, delay_s), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
