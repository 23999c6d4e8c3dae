"""The stack that `make demo` starts, on ports of its own, and a machine beside it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LOGIN_URL = re.compile(r"https?://\S+/login\?token=\S+")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass
class DemoStack:
    """`gleaner demo` on ports of its own. `start` returns once the login link was printed."""

    data_dir: Path
    environment: dict[str, str] = field(default_factory=dict)
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    process: subprocess.Popen[str] | None = None
    login_url: str = ""
    started_at: float = 0.0
    output: list[str] = field(default_factory=list)

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def machine_address(self) -> str:
        return f"127.0.0.1:{self.ports[2]}"

    def start(self, timeout_s: float = 60.0) -> DemoStack:
        web, grpc, machine = self.ports
        command = [sys.executable, "-m", "gleaner.cli.main", "demo", "--no-browser", "--data-dir", str(self.data_dir)]
        command += ["--port", str(web), "--grpc-port", str(grpc), "--machine-port", str(machine)]
        self.login_url, self.output = "", []
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **self.environment, "PYTHONUNBUFFERED": "1"},
        )
        threading.Thread(target=self._read, name="demo output", daemon=True).start()
        wait_for(
            lambda: self.login_url or self.process is None or self.process.poll() is not None,
            timeout_s,
            "the demo to print its URL",
        )
        assert self.login_url, "gleaner demo ended:\n" + "".join(self.output)
        return self

    def new_login_link(self) -> str:
        """Another one-time link, as the owner would make it on the command line."""
        command = [
            sys.executable,
            "-m",
            "gleaner.cli.main",
            "app",
            "--data-dir",
            str(self.data_dir / "app"),
            "--port",
            str(self.ports[0]),
        ]
        return subprocess.run([*command, "login-link"], capture_output=True, text=True, check=True).stdout.strip()

    def _read(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if found := LOGIN_URL.search(line):
                self.login_url = found.group(0)

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None


class MachineProcess:
    """`gleaner machine` with a setup file, as a person pastes it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, setup: dict[str, object]) -> None:
        self.home.mkdir(mode=0o700)
        config = self.home / "machine.json"
        config.write_text(json.dumps(setup))
        config.chmod(0o600)
        command = [
            sys.executable,
            "-m",
            "gleaner.cli.main",
            "machine",
            "--config",
            str(config),
            "--home",
            str(self.home),
        ]
        with (self.home / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(15)


def wait_for(condition: Callable[[], object], timeout_s: float, what: str, interval_s: float = 0.05) -> None:
    """Returns when the condition holds; fails naming what it waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(interval_s)
