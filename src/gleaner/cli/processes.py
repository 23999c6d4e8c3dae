"""Child processes that end with us: their own session (so that Ctrl-C reaches them through us, in order), and the kernel's parent-death signal."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def _end_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # it was killed before the call above: nobody would tell us any more


@dataclass
class Child:
    """A running part and the file its output goes to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def last_lines(self, count: int = 12) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-count:])
        return ""

    def stop(self, timeout_s: float = 6.0) -> None:
        """Asks with SIGTERM, then ends the whole session. Safe to call twice."""
        if self.is_running:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(name: str, command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> Child:
    log.parent.mkdir(parents=True, exist_ok=True)
    handle: IO[bytes]
    with log.open("ab") as handle:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(_end_with_parent, os.getpid()),  # noqa: PLW1509 - two system calls, no lock can be held by it
            env={**os.environ, **(environment or {})},
        )
    return Child(name, process, log)


def wait_until_answering(child: Child, url: str, stop: threading.Event, timeout_s: float = 30.0) -> bool:
    """True once a web server answers there, whatever it says; False when the child ended, the time is over or `stop` is set."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and child.is_running and not stop.is_set():
        try:
            opener.open(url, timeout=1.0).close()
        except urllib.error.HTTPError as answer:
            answer.close()
        except OSError:
            stop.wait(0.05)
            continue
        return True
    return False


def port_is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
