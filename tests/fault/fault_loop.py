"""A real app and a real machine with a camera and a sensor, to be killed, stopped and counted by fault tests."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from gleaner.cli.rest_client import RestClient, RestError
from gleaner.machine.capture.outside import read_ledger

CAPTURE = [("cam", "GetImages", 12.0), ("meter", "Readings", 25.0)]


@dataclass
class Part:
    """One process that is killed and started again with the same command."""

    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    """Beside this process's own."""

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def sync_pid(self) -> int | None:
        """The sync process of a machine, if it runs now."""
        for child in self.children():
            try:
                if "gleaner.machine.sync.process" in child.cmdline():
                    return int(child.pid)
            except psutil.NoSuchProcess:
                continue  # it has just died, and its parent does not know yet
        return None

    def children(self) -> list[psutil.Process]:
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def captured(method: str, hz: float) -> list[dict[str, Any]]:
    """The `service_configs` of a component."""
    methods = [{"method": method, "capture_frequency_hz": hz}]
    return [{"type": "data_manager", "attributes": {"capture_methods": methods}}]


def wait_for(condition: Callable[[], object], timeout_s: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s: {what()}"
        pause.wait(0.1)


@dataclass
class Loop:
    folder: Path
    ports: tuple[int, int, int]
    app: Part = field(init=False)
    machine: Part = field(init=False)
    client: RestClient = field(init=False)
    part_id: str = ""
    camera: tuple[str, dict[str, Any]] = ("gleaner:camera:sim", {"width_px": 320, "height_px": 240})
    """Model and attributes."""
    host: str = "127.0.0.1"
    """Where the app listens: TLS with its own authority, unless that is loopback."""
    app_at: list[str] = field(default_factory=list)
    machine_at: list[str] = field(default_factory=list)
    """Commands that run the app or the machine elsewhere, in another network, say."""
    more_components: list[dict[str, Any]] = field(default_factory=list)
    sync_interval_mins: float = 0.005
    app_name: str = ""
    """By which the machine knows the app's computer, if not by its address."""
    proxies: tuple[int, int] | None = None
    """Ports by which the machine reaches the app's web and gRPC doors; None: directly."""

    def __post_init__(self) -> None:
        web, grpc, _machine = self.ports
        run = [sys.executable, "-m", "gleaner.cli.main"]
        app = [*run, "app", "--data-dir", str(self.app_dir), "--host", self.host]
        app += ["--port", str(web), "--grpc-port", str(grpc)]
        machine = [*run, "machine", "--config", str(self.setup_file), "--home", str(self.folder / "rover")]
        self.app = Part([*self.app_at, *app], self.folder / "app.log")
        self.machine = Part([*self.machine_at, *machine], self.folder / "machine.log")
        self.client = RestClient(f"http://127.0.0.1:{web}")

    @property
    def app_dir(self) -> Path:
        return self.folder / "app"

    @property
    def setup_file(self) -> Path:
        return self.folder / "machine.json"

    @property
    def capture_dir(self) -> Path:
        return self.folder / "rover" / "capture"

    def log_in(self) -> None:
        link = re.compile(r"https?://\S+/login\?token=\S+")
        wait_for(
            lambda: self.app.log.exists() and link.search(self.app.log.read_text()),
            30,
            lambda: "no login link in the app's log",
        )
        authority = self.app_dir / "tls" / "ca.pem"
        if authority.exists():
            trusting = ssl.create_default_context(cafile=str(authority))
            self.client = RestClient(f"https://{self.host}:{self.ports[0]}", tls=trusting)
        self.client.log_in(link.findall(self.app.log.read_text())[-1])

    def set_up(self) -> None:
        organization = self.client.get("/auth/me")["organizations"][0]["id"]
        location = self.client.get(f"/organizations/{organization}/locations")[0]["id"]
        machine = self.client.post("/machines", {"name": "rover", "location_id": location})
        self.part_id = machine["parts"][0]["id"]
        self.configure(capture_disabled=False)
        value = self.client.post(f"/parts/{self.part_id}/secret", {})["machine_json"]
        if self.proxies or self.app_name:
            web, grpc = self.proxies or self.ports[:2]
            value["cloud"]["web_address"] = f"http://{self.app_name or self.host}:{web}"
            value["cloud"]["app_address"] = f"http://{self.app_name or self.host}:{grpc}"
        self.setup_file.write_text(json.dumps(value))
        self.setup_file.chmod(0o600)

    def configure(self, *, capture_disabled: bool, **attributes: Any) -> None:
        """`attributes`: more of the data manager's."""
        (cam, images, cam_hz), (meter, readings, meter_hz) = CAPTURE
        manager = {
            "sync_interval_mins": self.sync_interval_mins,
            "capture_disabled": capture_disabled,
            "capture_dir": str(self.capture_dir),
            **attributes,
        }
        config = {
            "components": [
                {
                    "name": cam,
                    "api": "rdk:component:camera",
                    "model": self.camera[0],
                    "attributes": self.camera[1],
                    "service_configs": captured(images, cam_hz),
                },
                {
                    "name": meter,
                    "api": "rdk:component:sensor",
                    "model": "rdk:builtin:fake",
                    "attributes": {},
                    "service_configs": captured(readings, meter_hz),
                },
                *self.more_components,
            ],
            "services": [
                {
                    "name": "data-manager",
                    "api": "rdk:service:data_manager",
                    "model": "rdk:builtin:builtin",
                    "attributes": manager,
                }
            ],
            "network": {"bind_address": f"127.0.0.1:{self.ports[2]}"},
        }
        known = self.client.get(f"/parts/{self.part_id}/config")
        self.client.put(f"/parts/{self.part_id}/config", {"config": config, "base_revision": known["revision"]})

    def items(self) -> int:
        return int(self.client.get(f"/items/facets?part_id={self.part_id}&kind=image")["total"])

    def captured_at(self) -> list[float]:
        """Seconds since the epoch of every picture that the app holds."""
        return [microseconds / 1e6 for microseconds in self.picture_times()]

    def captured_since(self, moment: float) -> int:
        return sum(at > moment for at in self.captured_at())

    def picture_times(self) -> list[int]:
        """µs since the epoch of every picture that the app holds."""
        found: list[int] = []
        rows = self.rows()
        for i in range(0, len(rows), 200):
            items = self.client.post("/items/lookup", {"rows": rows[i : i + 200]})["items"]
            found += [microseconds(item["captured_at"]) for item in items]
        return found

    def rows(self) -> list[int]:
        data = self.client.get_bytes(f"/items/index?part_id={self.part_id}&kind=image")
        return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]

    def readings(self) -> int:
        series = self.client.get(f"/readings/series?part_id={self.part_id}")
        return sum(int(each["count"]) for each in series)

    def reading_times(self) -> list[int]:
        """µs since the epoch of every reading that the app holds."""
        (meter, method, _hz) = CAPTURE[1]
        found: list[int] = []
        end = ""
        while True:
            where = f"/readings?part_id={self.part_id}&component_name={meter}&method={method}&limit=10000{end}"
            rows = self.client.get(where)["rows"]
            if not rows:
                return found
            found += [microseconds(row["time"]) for row in rows]
            end = f"&end={rows[-1]['time']}"

    def ledger(self) -> dict[str, dict[str, Any]]:
        return {each["method"]: each for each in read_ledger(self.capture_dir)["collectors"]}


def microseconds(iso: str) -> int:
    return round(datetime.fromisoformat(iso).timestamp() * 1_000_000)


def is_settled(loop: Loop) -> bool:
    """Capture has been switched off on the machine and everything it holds is acknowledged."""
    try:
        status = loop.client.get(f"/parts/{loop.part_id}/status")
    except RestError:
        return False
    rows = read_ledger(loop.capture_dir)["collectors"]
    return (
        status["running_revision"] == status["config_revision"]
        and bool(rows)
        and not any(each["waiting"] for each in rows)
    )


def settle(loop: Loop) -> None:
    """Switches capture off and waits until everything captured was acknowledged."""
    wait_for(lambda: answers(loop), 60, lambda: "the app did not come back: " + loop.app.log.read_text()[-2000:])
    loop.configure(capture_disabled=True)
    wait_for(
        lambda: is_settled(loop),
        120,
        lambda: f"not everything was sent: {loop.ledger()}\n" + loop.machine.log.read_text()[-2000:],
    )
    loop.machine.stop()


def answers(loop: Loop) -> bool:
    try:
        loop.client.get("/auth/me")
    except RestError:
        return False
    return True


def assert_nothing_lost_or_doubled(loop: Loop, at_least: int) -> None:
    """Once settled: the machine's ledger and what the app holds agree to the picture and to the reading."""
    ledger = loop.ledger()
    for counts in ledger.values():
        assert counts["captured"] == counts["synced"] + counts["waiting"] + sum(counts["dropped"].values())
        assert not counts["dropped"] and counts["waiting"] == 0
    assert ledger["GetImages"]["synced"] == loop.items() >= at_least
    assert ledger["Readings"]["synced"] == loop.readings() >= at_least
    assert not list(loop.capture_dir.rglob("*.prog")), "a capture file was left unfinished"
