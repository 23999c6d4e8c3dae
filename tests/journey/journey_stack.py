"""The stack that `make demo` starts, and a browser that refuses to talk to anyone else."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Request, sync_playwright

CHROMIUM_ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FAILURES = Path(__file__).resolve().parents[2] / "test-results"
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


@contextmanager
def browser(executable: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGS)
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def local_page(opened: Browser, width: int = 1280, height: int = 800, **options: object) -> Iterator[Page]:
    """A page on which every request to another host, and every uncaught script error, fails the test at the end."""
    context = opened.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
    page = context.new_page()
    strangers: list[str] = []
    problems: list[str] = []

    def check(request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and url.hostname not in ("127.0.0.1", "localhost"):
            strangers.append(request.url)

    page.on("request", check)
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        yield page
    except BaseException:
        FAILURES.mkdir(exist_ok=True)
        page.screenshot(path=FAILURES / "page.png")
        print(f"the page was {page.url}, its picture is {FAILURES / 'page.png'}; problems: {problems}")
        raise
    finally:
        context.close()
    assert not strangers, f"the page asked other hosts: {strangers}"
    assert not problems, f"scripts failed on the page: {problems}"


def record_figures(**figures: float) -> None:
    """Adds to the JSON that `make journey` prints, when it asked for it."""
    if path := os.environ.get("GLEANER_JOURNEY_FIGURES"):
        file = Path(path)
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(known | figures))
