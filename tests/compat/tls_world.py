"""A real `gleaner app` on an address that is not loopback to it, so that it serves TLS with its private authority.

127.0.0.2 never leaves this computer and still is "another address": nothing but TLS may answer there.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gleaner.cli.rest_client import RestClient, RestError

HOST = "127.0.0.2"
LINK = re.compile(r"https?://\S+/login\?token=\S+")
READY = re.compile(r"running at (\S+) \(Viam API: (\S+)\)")


@dataclass
class TlsApp:
    data_dir: Path
    web: str
    grpc: str
    login_url: str
    client: RestClient

    @property
    def authority(self) -> Path:
        return self.data_dir / "tls" / "ca.pem"

    def organization(self) -> str:
        return str(self.client.get("/auth/me")["organizations"][0]["id"])

    def machine_json(self, name: str, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """A new machine with this configuration: its part and the file its owner would download."""
        location = self.client.get(f"/organizations/{self.organization()}/locations")[0]["id"]
        part = self.client.post("/machines", {"name": name, "location_id": location})["parts"][0]["id"]
        known = self.client.get(f"/parts/{part}/config")
        self.client.put(f"/parts/{part}/config", {"config": config, "base_revision": known["revision"]})
        return part, self.client.post(f"/parts/{part}/secret", {})["machine_json"]

    def status(self, part: str) -> dict[str, Any]:
        return dict(self.client.get(f"/parts/{part}/status"))

    def pictures(self, part: str) -> int:
        return int(self.client.get(f"/items/facets?part_id={part}&kind=image")["total"])

    def login_link(self) -> str:
        """Another one-time link, from the command that operations.md names."""
        command = [*_app_command(self.data_dir), "--port", self.web.rsplit(":", 1)[1], "login-link"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@contextmanager
def tls_app(folder: Path) -> Iterator[TlsApp]:
    data_dir, log = folder / "app", folder / "app.log"
    command = [*_app_command(data_dir), "--port", "0", "--grpc-port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        wait_for(lambda: LINK.search(log.read_text()) or process.poll() is not None, 60, "the app's login link", log)
        ready, link = READY.search(log.read_text()), LINK.search(log.read_text())
        assert ready and link, log.read_text()
        client = trusting_client(ready[1], data_dir / "tls" / "ca.pem")
        client.log_in(link[0])
        yield TlsApp(data_dir, ready[1], ready[2], link[0], client)
        process.terminate()
        assert process.wait(15) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def trusting_client(address: str, authority: Path) -> RestClient:
    """REST as a careful user speaks it: the app's own authority and no other is trusted."""
    return RestClient(address, tls=ssl.create_default_context(cafile=str(authority)))


def is_refused(address: str, tls: ssl.SSLContext) -> bool:
    try:
        RestClient(address, tls=tls).get("/auth/me")
    except RestError as error:
        return "certificate verify failed" in str(error)
    return False


def speaks_plain_http(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(address.replace("https://", "http://"), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def tls_machine(folder: Path, setup: dict[str, Any]) -> Iterator[Path]:
    """`gleaner machine` with a setup file as its owner saved it; yields its log. It must end well."""
    folder.mkdir(exist_ok=True)
    config, log = folder / "machine.json", folder / "machine.log"
    config.write_text(json.dumps(setup))
    config.chmod(0o600)
    command = [sys.executable, "-m", "gleaner.cli.main", "machine", "--config", str(config), "--home", str(folder)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        yield log
        process.terminate()
        assert process.wait(15) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object], timeout_s: float, what: str, log: Path) -> None:
    """Waits on a condition, and shows the log of whoever did not fulfil it."""
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}:\n{log.read_text()[-4000:]}"
        pause.wait(0.1)


def _app_command(data_dir: Path) -> list[str]:
    return [sys.executable, "-m", "gleaner.cli.main", "app", "--data-dir", str(data_dir), "--host", HOST]
