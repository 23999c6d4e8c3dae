"""A line between two network namespaces that loses and delays real packets: the kernel's own TCP meets it.

Two TUN devices, one in each namespace; what one side sends, a thread hands to the other one later, or never. (`tc netem`
would do the same, but not every kernel has it.)
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import os
import random
import selectors
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import pytest

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_LIBC = ctypes.CDLL(None, use_errno=True)
_PACKET = 65_536


@dataclass(frozen=True)
class End:
    address: str
    namespace: int
    """File descriptor."""
    device: int
    """File descriptor of its TUN device."""

    @property
    def command(self) -> list[str]:
        """Before a command: it runs at this end, under the process id that was started."""
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.namespace}"]


class BadLine:
    """`near` and `far` reach each other, and nobody else. Starts good; `set` makes it bad."""

    def __init__(self, chance: random.Random) -> None:
        self.lost = 0
        self.carried = 0
        self._chance = chance
        self._loss = 0.0
        self._delay_s = 0.0
        self._ended, self._end = os.pipe()
        self._ends: list[End] = []
        try:
            for address, peer in (("10.88.0.1", "10.88.0.2"), ("10.88.0.2", "10.88.0.1")):
                self._ends.append(_make_end(address, peer))
        except OSError as error:
            self._close()
            pytest.skip(f"needs the right to make network namespaces and TUN devices: {error}")
        self._thread = threading.Thread(target=self._carry, name="bad line")

    @property
    def near(self) -> End:
        return self._ends[0]

    @property
    def far(self) -> End:
        return self._ends[1]

    def __enter__(self) -> BadLine:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.write(self._end, b"x")
        self._thread.join()
        self._close()

    def set(self, loss: float, delay_s: float) -> None:
        """From now on: the share of packets that are lost, and how long the others take, each way."""
        self._loss, self._delay_s = loss, delay_s

    def _close(self) -> None:
        for fd in (self._ended, self._end, *(fd for end in self._ends for fd in (end.device, end.namespace))):
            os.close(fd)

    def _carry(self) -> None:
        others = {self.near.device: self.far.device, self.far.device: self.near.device}
        on_the_way: list[tuple[float, int, int, bytes]] = []
        number = itertools.count()
        with selectors.DefaultSelector() as ready:
            for fd in (*others, self._ended):
                ready.register(fd, selectors.EVENT_READ)
            while True:
                wait_s = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
                for key, _ in ready.select(wait_s):
                    if key.fd == self._ended:
                        return
                    packet = os.read(key.fd, _PACKET)
                    if self._chance.random() < self._loss:
                        self.lost += 1
                    else:
                        at_s = time.monotonic() + self._delay_s
                        heapq.heappush(on_the_way, (at_s, next(number), others[key.fd], packet))
                while on_the_way and on_the_way[0][0] <= time.monotonic():
                    _, _, to, packet = heapq.heappop(on_the_way)
                    os.write(to, packet)
                    self.carried += 1


def _make_end(address: str, peer: str) -> End:
    """In a thread of its own, because a namespace belongs to a thread: the others stay where they are."""
    made: list[End | OSError] = []

    def make() -> None:
        try:
            if _LIBC.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22s", b"line", _IFF_TUN_NO_PI, b""))
            for command in (
                ["ip", "link", "set", "lo", "up"],
                ["ip", "addr", "add", address, "peer", peer, "dev", "line"],
                ["ip", "link", "set", "line", "up"],
            ):
                subprocess.run(command, check=True, capture_output=True)
            namespace = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            made.append(End(address, namespace, device))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    [end] = made
    if isinstance(end, OSError):
        raise end
    return end


@contextmanager
def being_at(end: End) -> Iterator[None]:
    """This thread, and what it starts, is at that end of the line."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(end.namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        _LIBC.setns(home, _CLONE_NEWNET)
        os.close(home)
