"""A real `gleaner app` in a process of its own, with durable commits, and one part that may sync to it; TLS unless on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gleaner.cli.rest_client import RestClient

# Another address to the app, so that it serves TLS; it never leaves this computer.
HOST = "127.0.0.2"
START_S = 90.0
_LINK = re.compile(r"https?://\S+/login\?token=\S+")
_READY = re.compile(r"running at (\S+) \(Viam API: (\S+)\)")


@dataclass(frozen=True)
class App:
    pid: int
    address: str
    part_id: str
    secret: str
    ca_certificate: str
    client: RestClient
    grpc_address: str = ""

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def stored(self) -> int:
        """Items of the part that the app has."""
        return int(self.client.get(f"/items/facets?part_id={self.part_id}")["total"])

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def owner_key(self) -> tuple[str, str]:
        """Id and key of a new API key that may do everything."""
        organization = self.client.get("/auth/me")["organizations"][0]["id"]
        wanted = {"name": "bench", "resource_type": "organization", "resource_id": organization, "role": "owner"}
        made = self.client.post(f"/organizations/{organization}/keys", wanted)
        return str(made["id"]), str(made["key"])

    def wait_idle(self) -> None:
        """Until thumbnails and indexes are made: what is measured next shall not share the processor with them."""
        while True:
            before = self.cpu_s()
            time.sleep(0.3)
            if self.cpu_s() - before < 0.03:
                return


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running_app(folder: Path, host: str = HOST) -> Iterator[App]:
    data_dir, log = folder / "app", folder / "app.log"
    command = [sys.executable, "-m", "gleaner.cli.main", "app", "--data-dir", str(data_dir), "--host", host]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", "0", "--grpc-port", "0"],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        ready, grpc, link = _wait_for_link(process, log)
        authority = data_dir / "tls" / "ca.pem"
        tls = ssl.create_default_context(cafile=str(authority)) if ready.startswith("https") else None
        client = RestClient(ready, tls=tls)
        client.log_in(link)
        part, secret = _new_part(client)
        yield App(process.pid, ready, part, secret, authority.read_text() if tls else "", client, grpc)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_link(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str, str]:
    deadline, pause = time.monotonic() + START_S, threading.Event()
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text()
        if (ready := _READY.search(text)) and (link := _LINK.search(text)):
            return ready[1], ready[2].rstrip(")"), link[0]
        pause.wait(0.1)
    raise RuntimeError(f"the app did not start:\n{log.read_text()[-4000:]}")


def _new_part(client: RestClient) -> tuple[str, str]:
    organization = client.get("/auth/me")["organizations"][0]["id"]
    location = client.get(f"/organizations/{organization}/locations")[0]["id"]
    part = client.post("/machines", {"name": "bench", "location_id": location})["parts"][0]["id"]
    cloud = client.post(f"/parts/{part}/secret", {})["machine_json"]["cloud"]
    return str(part), str(cloud["secret"])
