"""`gleaner machine` as a process: its lines, its exit codes, its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpclib import GRPCError
from grpclib.client import Channel
from machine_fake_app import fake_app, next_json
from viam.gen.service.mlmodel.v1.mlmodel_grpc import MLModelServiceStub
from viam.proto.service.mlmodel import MetadataRequest

LOCAL: dict[str, Any] = {
    "network": {"bind_address": "localhost:0"},
    "components": [
        {"name": "fake", "api": "rdk:component:sensor", "model": "fake"},
        {"name": "cpu", "api": "rdk:component:sensor", "model": "gleaner:sensor:system"},
        {"name": "wrong", "api": "rdk:component:sensor", "model": "fake", "attributes": {"value": 1}},
    ],
}


def command(config: Path, home: Path) -> list[str]:
    return [sys.executable, "-m", "gleaner.cli.main", "machine", "--config", str(config), "--home", str(home)]


@contextmanager
def started(folder: Path, config: dict[str, Any]) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The process and its lines up to the last start line."""
    path = folder / "machine.json"
    path.write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command(path, folder / "home"),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("not ready"):
                break
        yield process, lines
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def refused(folder: Path, content: str) -> str:
    """What a machine that cannot start says: one line, exit code 2."""
    path = folder / "machine.json"
    path.write_text(content)
    path.chmod(0o600)
    result = subprocess.run(command(path, folder / "home"), capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2, result
    [line] = [line for line in result.stderr.splitlines() if " INFO " not in line]
    return line


def test_start_lines_and_a_clean_end(tmp_path: Path) -> None:
    with started(tmp_path, LOCAL) as (process, lines):
        assert lines[0] == f"home       {tmp_path / 'home'}"
        assert lines[1].startswith("robot API  http://localhost:")
        assert lines[1].endswith("(no credentials needed)")
        assert lines[2] == "ready      sensor fake, sensor cpu"
        assert (
            lines[3]
            == "not ready  sensor wrong: components[2].attributes.value: is not known here: check its spelling, or remove it"
        )
        assert (tmp_path / "home" / "machine.sock").exists()
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # supervisors often send a second one
        assert process.wait(timeout=10) == 0
        assert process.stdout is not None
        assert process.stdout.read().strip() == "stopped"
    assert not (tmp_path / "home" / "machine.sock").exists()
    assert not [child for child in children if child.is_running()]


def test_an_edit_is_followed_and_a_bad_one_is_not(tmp_path: Path) -> None:
    def wait_for(text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in (tmp_path / "log").read_text():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)

    with started(tmp_path, LOCAL) as (process, _lines):
        path = tmp_path / "machine.json"
        path.write_text('{"components": [')
        wait_for("this is not JSON; the running configuration stays")
        more = {"name": "more", "api": "rdk:component:sensor", "model": "fake"}
        path.write_text(json.dumps({**LOCAL, "components": [*LOCAL["components"][:2], more]}))
        wait_for("rdk:component:sensor/more is ready")
        assert (tmp_path / "log").read_text().count("rdk:component:sensor/fake is ready") == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "this is not JSON"),
        ('{"components": [{"api": "rdk:component:sensor"}]}', "components[0].name: is missing"),
        ('{"network": {"bind_address": "0.0.0.0:0"}}', "there is no TLS"),
        ('{"network": {"bind_address": "here"}}', "write it like localhost:8080"),
        ('{"cloud": {"id": "p", "secret": "s"}}', "cloud.app_address"),
        (
            '{"cloud": {"id": "p", "secret": "s", "app_address": "https://a", "ca_certificate": "x"}}',
            "not a PEM certificate",
        ),
    ],
)
def test_a_configuration_that_cannot_work_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    assert words in refused(tmp_path, content)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    result = subprocess.run(
        command(tmp_path / "no.json", tmp_path / "home"), capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert "the file does not exist: check the path given with --config" in result.stderr


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(tmp_path, json.dumps({"network": {"bind_address": f"localhost:{port}"}}))
    assert line.startswith(f"port {port} is in use by another program: stop it, or set network.bind_address")


def test_a_second_machine_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with started(tmp_path, LOCAL) as (process, _lines):
        (tmp_path / "two").mkdir()
        path = tmp_path / "two" / "machine.json"
        path.write_text(json.dumps(LOCAL))
        result = subprocess.run(
            command(path, tmp_path / "home"), capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == 2
        assert f"another machine (process {process.pid}) already runs on" in result.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


async def test_a_restart_asked_for_by_the_app_starts_the_process_again(tmp_path: Path) -> None:
    async with fake_app() as app:
        app.config = {**LOCAL, "components": LOCAL["components"][:1]}
        path = tmp_path / "machine.json"
        path.write_text(json.dumps({"cloud": app.cloud.model_dump(exclude_defaults=True)}))
        with (tmp_path / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*command(path, tmp_path / "home"), stdout=log, stderr=log)
        try:
            async with asyncio.timeout(60):
                for _ in range(2):
                    websocket = await app.links.get()
                    while not (await next_json(websocket, "status"))["resources"]:
                        pass
                    await websocket.send('{"type": "restart"}')
                await app.links.get()
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0, (tmp_path / "log").read_text()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = (tmp_path / "log").read_text()
        assert text.count("the app asks for a restart") == 2
        assert text.count("rdk:component:sensor/fake is ready") >= 2
        assert "others on this computer can read it: chmod 600" in text


def test_a_machine_without_ml_models_carries_no_numpy_and_answers_for_them_all_the_same(tmp_path: Path) -> None:
    async def ask(address: str) -> str:
        host, port = address.rsplit(":", 1)
        channel = Channel(host, int(port))
        try:
            await MLModelServiceStub(channel).Metadata(MetadataRequest(name="nothing"), timeout=30)
        except GRPCError as error:
            return str(error.message)
        finally:
            channel.close()
        raise AssertionError("there is no such model")

    with started(tmp_path, LOCAL) as (process, lines):
        maps = Path(f"/proc/{process.pid}/maps")
        assert "numpy" not in maps.read_text()
        [url] = [line.split()[2] for line in lines if line.startswith("robot API")]
        assert "nothing not found" in asyncio.run(ask(url.removeprefix("http://")))
        assert "numpy" in maps.read_text()
