"""The ledger as Prometheus reads it, with Prometheus's own parser."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gleaner.machine.metrics import MetricsServer, render
from gleaner.wire.link import EMPTY_LEDGER, Ledger

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LEDGER: Ledger = {
    "collectors": [
        {
            "component": 'odd "name"\\',
            "method": "Readings",
            "captured": 10_000_000_017,
            "stored": 12,
            "waiting": 5,
            "synced": 7,
            "dropped": {"thinned": 2, "queue_full": 3},
            "frequency_hz": 2.0,
            "last_error": "",
            "skipped": 4,
            "vetoed": 1,
            "late_ms": {"p50": 0.5, "p99": 8.0},
        }
    ],
    "backlog_files": 3,
    "backlog_bytes": 1234,
    "oldest_unsent": "2026-11-23T11:59:30.000000Z",
    "sync_error": "the app cannot be reached",
    "rate": {"files_per_s": 1.0, "bytes_per_s": 99.5},
    "disk": {"size_bytes": 100, "free_bytes": 40, "state": "ok"},
}


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_every_number_of_the_ledger_is_there_and_readable() -> None:
    found = samples(render(LEDGER, NOW))
    labels = (("component", 'odd "name"\\'), ("method", "Readings"))
    assert found["gleaner_captured_records_total", labels] == 10_000_000_017
    assert found["gleaner_waiting_records", labels] == 5
    assert found["gleaner_dropped_records_total", (*labels, ("reason", "thinned"))] == 2
    assert found["gleaner_tick_lateness_seconds", (*labels, ("quantile", "0.99"))] == 0.008
    assert found["gleaner_oldest_unsent_seconds", ()] == 30
    assert found["gleaner_sync_connected", ()] == 0
    assert found["gleaner_disk_free_bytes", ()] == 40


def test_a_machine_without_a_data_manager_has_readable_metrics_too() -> None:
    found = samples(render(EMPTY_LEDGER, NOW))
    assert found["gleaner_backlog_files", ()] == 0
    assert ("gleaner_disk_free_bytes", ()) not in found


@pytest.fixture
async def server() -> AsyncIterator[MetricsServer]:
    server = MetricsServer(lambda: LEDGER)
    await server.start(0)
    yield server
    await server.close()


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics HTTP/1.1", b"200 OK"),
        (b"GET /metrics?x=1 HTTP/1.0", b"200 OK"),
        (b"HEAD /metrics HTTP/1.1", b"200 OK"),
        (b"GET / HTTP/1.1", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1", b"405 Method Not Allowed"),
    ],
)
async def test_only_metrics_are_served(server: MetricsServer, request_line: bytes, status: bytes) -> None:
    answer = await ask(server.port, request_line + b"\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    _, _, body = answer.partition(b"\r\n\r\n")
    assert bool(body) is not request_line.startswith(b"HEAD")


@pytest.mark.parametrize("noise", [b"\r\n", b"\x16\x03\x01 hello\r\n\r\n", b"GET /metrics SMTP\r\n\r\n"])
async def test_noise_is_hung_up_on_and_others_are_still_answered(server: MetricsServer, noise: bytes) -> None:
    assert await ask(server.port, noise) == b""
    assert b"200 OK" in await ask(server.port, b"GET /metrics HTTP/1.1\r\n\r\n")


def test_a_real_machine_serves_them_where_it_says(tmp_path: Path) -> None:
    config = tmp_path / "machine.json"
    capture = {
        "type": "data_manager",
        "attributes": {"capture_methods": [{"method": "Readings", "capture_frequency_hz": 100}]},
    }
    sensor = {"name": "imu", "api": "rdk:component:sensor", "model": "fake", "service_configs": [capture]}
    manager = {"name": "data", "api": "rdk:service:data_manager"}
    network = {"bind_address": "127.0.0.1:0"}
    config.write_text(json.dumps({"components": [sensor], "services": [manager], "network": network}))
    command = [sys.executable, "-u", "-m", "gleaner.cli.main", "machine", "--config", str(config)]
    command += ["--home", str(tmp_path / "home"), "--metrics-port", "0"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        address = next(line.split()[1] for line in process.stdout if line.startswith("metrics"))
        for line in process.stdout:
            if line.startswith("ready"):
                break
        name = "gleaner_captured_records_total"
        while True:  # pytest's own limit ends it
            with urllib.request.urlopen(address) as answer:
                found = samples(answer.read().decode())
            if found.get((name, (("component", "imu"), ("method", "Readings"))), 0) > 5:
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
