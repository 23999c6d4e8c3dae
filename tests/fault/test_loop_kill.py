"""The promise of the whole loop: machine and app are killed at random while capturing, and nothing is lost or doubled.

Counted from two independent ledgers: the machine's own (captured = synced + waiting + dropped) against what the app holds.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gleaner.cli.rest_client import RestClient, RestError
from gleaner.machine.capture.ledger import read_ledger

ROUNDS = int(os.environ.get("GLEANER_FAULT_ROUNDS", "10"))
CAPTURE = [("cam", "GetImages", 12.0), ("meter", "Readings", 25.0)]


@dataclass
class Part:
    """One process that is killed and started again with the same command."""

    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    lines: list[str] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


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

    def __post_init__(self) -> None:
        web, grpc, _machine = self.ports
        run = [sys.executable, "-m", "gleaner.cli.main"]
        app_command = [*run, "app", "--data-dir", str(self.folder / "app"), "--port", str(web), "--grpc-port", str(grpc)]
        machine_command = [*run, "machine", "--config", str(self.setup_file), "--home", str(self.folder / "rover")]
        self.app = Part(app_command, self.folder / "app.log")
        self.machine = Part(machine_command, self.folder / "machine.log")
        self.client = RestClient(f"http://127.0.0.1:{web}")

    @property
    def setup_file(self) -> Path:
        return self.folder / "machine.json"

    @property
    def capture_dir(self) -> Path:
        return self.folder / "rover" / "capture"

    def log_in(self) -> None:
        link = re.compile(r"http://\S+/login\?token=\S+")
        wait_for(lambda: self.app.log.exists() and link.search(self.app.log.read_text()), 30, lambda: "no login link in the app's log")
        self.client.log_in(link.findall(self.app.log.read_text())[-1])

    def set_up(self) -> None:
        import json

        organization = self.client.get("/auth/me")["organizations"][0]["id"]
        location = self.client.get(f"/organizations/{organization}/locations")[0]["id"]
        machine = self.client.post("/machines", {"name": "rover", "location_id": location})
        self.part_id = machine["parts"][0]["id"]
        self.configure(capture_disabled=False)
        value = self.client.post(f"/parts/{self.part_id}/secret", {})["machine_json"]
        self.setup_file.write_text(json.dumps(value))
        self.setup_file.chmod(0o600)

    def configure(self, *, capture_disabled: bool) -> None:
        def captured(method: str, hz: float) -> list[dict[str, Any]]:
            return [{"type": "data_manager", "attributes": {"capture_methods": [{"method": method, "capture_frequency_hz": hz}]}}]

        (cam, images, cam_hz), (meter, readings, meter_hz) = CAPTURE
        manager = {"sync_interval_mins": 0.005, "capture_disabled": capture_disabled, "capture_dir": str(self.capture_dir)}
        config = {
            "components": [
                {"name": cam, "api": "rdk:component:camera", "model": "gleaner:camera:sim", "attributes": {"width_px": 320, "height_px": 240}, "service_configs": captured(images, cam_hz)},
                {"name": meter, "api": "rdk:component:sensor", "model": "rdk:builtin:fake", "attributes": {}, "service_configs": captured(readings, meter_hz)},
            ],
            "services": [{"name": "data-manager", "api": "rdk:service:data_manager", "model": "rdk:builtin:builtin", "attributes": manager}],
            "network": {"bind_address": f"127.0.0.1:{self.ports[2]}"},
        }
        known = self.client.get(f"/parts/{self.part_id}/config")
        self.client.put(f"/parts/{self.part_id}/config", {"config": config, "base_revision": known["revision"]})

    def items(self) -> int:
        return int(self.client.get(f"/items/facets?part_id={self.part_id}&kind=image")["total"])

    def readings(self) -> int:
        series = self.client.get(f"/readings/series?part_id={self.part_id}")
        return sum(int(each["count"]) for each in series)

    def ledger(self) -> dict[str, dict[str, Any]]:
        return {each["method"]: each for each in read_ledger(self.capture_dir)["collectors"]}


@pytest.fixture
def loop(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Loop]:
    web, grpc, machine = free_ports(3)
    made = Loop(tmp_path, (web, grpc, machine))
    made.app.start()
    try:
        made.log_in()
        made.set_up()
        made.machine.start()
        yield made
    finally:
        made.machine.stop()
        made.app.stop()


def is_settled(loop: Loop) -> bool:
    """Capture has been switched off on the machine and everything it holds is acknowledged."""
    try:
        status = loop.client.get(f"/parts/{loop.part_id}/status")
    except RestError:
        return False
    ledger = loop.ledger()
    return status["running_revision"] == status["config_revision"] and bool(ledger) and not any(each["waiting"] for each in ledger.values())


@pytest.mark.slow
@pytest.mark.timeout(180 + 12 * ROUNDS)
def test_killing_machine_and_app_at_random_loses_and_doubles_nothing(loop: Loop) -> None:
    chance = random.Random(20261122)
    wait_for(lambda: loop.items() > 0, 30, lambda: "no first picture: " + loop.machine.log.read_text()[-2000:])
    pause = threading.Event()
    for _ in range(ROUNDS):
        victims = chance.choice([[loop.machine], [loop.app], [loop.machine, loop.app]])
        pause.wait(chance.uniform(0.3, 2.5))
        for victim in victims:
            victim.kill()
        pause.wait(chance.uniform(0.0, 0.5))
        for victim in victims:
            victim.start()
    wait_for(lambda: _answers(loop), 30, lambda: "the app did not come back: " + loop.app.log.read_text()[-2000:])

    loop.configure(capture_disabled=True)
    wait_for(lambda: is_settled(loop), 90, lambda: f"not everything was sent: {loop.ledger()}\n" + loop.machine.log.read_text()[-2000:])
    loop.machine.stop()

    ledger = loop.ledger()
    for counts in ledger.values():
        assert counts["captured"] == counts["synced"] + counts["waiting"] + sum(counts["dropped"].values())
        assert not counts["dropped"] and counts["waiting"] == 0
    assert ledger["GetImages"]["synced"] == loop.items() > ROUNDS
    assert ledger["Readings"]["synced"] == loop.readings() > ROUNDS
    assert not list(loop.capture_dir.rglob("*.prog")), "a capture file was left unfinished"


def _answers(loop: Loop) -> bool:
    try:
        loop.client.get("/auth/me")
    except RestError:
        return False
    return True
