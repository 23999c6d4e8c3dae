"""Training on a Ray cluster: a real one of a single node on loopback, a real run there, and everything that a cluster can do to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from test_learn_worker import COLORS, draw

from gleaner.app.services.job_runner import Message, TrainingRun, command_for

pytest.importorskip("ray", reason="the extra `ray` is not installed")
cv2 = pytest.importorskip("cv2")

START_S = 60.0
CPUS = 2


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address. Ended with everything it has started."""
    folder, port = tmp_path_factory.mktemp("ray"), free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    options = {
        "node-ip-address": "127.0.0.1",
        "port": port,
        "num-cpus": CPUS,
        "include-dashboard": "false",
        "object-store-memory": 80_000_000,
        "temp-dir": (sockets := tempfile.mkdtemp(prefix="ray-")),  # their paths have to be short
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": str(folder)},
        )
    ours = psutil.Process(process.pid)
    try:
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in (folder / "log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        others = ours.children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        for other in others:
            if other.is_running():
                other.kill()
        psutil.wait_procs(others, 10)
        shutil.rmtree(sockets, ignore_errors=True)


def run_folder(folder: Path, budget_s: float, per_label: int = 12) -> Path:
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, label in enumerate(list(COLORS) * per_label):
        name = f"images/{number}.jpg"
        (folder / name).write_bytes(cv2.imencode(".jpg", draw(label, number))[1].tobytes())
        note = {"image_path": name, "item_id": f"id-{number}"}
        lines.append(json.dumps(note | {"classification_annotations": [{"annotation_label": label}] if label else []}))
    (folder / "dataset.jsonl").write_text("\n".join(lines))
    settings = {"task": "single_label_classification", "labels": [label for label in COLORS if label]}
    (folder / "run.json").write_text(json.dumps(settings | {"budget_s": budget_s, "output_dir": "made", "threads": 64}))
    return folder


def workers() -> list[psutil.Process]:
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if "gleaner.learn.worker" in (one.info["cmdline"] or [])
        and any("gleaner-run-" in word for word in one.info["cmdline"])
    ]


def test_a_run_there_is_as_one_here(cluster: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", 6)
    seen: list[Message] = []
    result = TrainingRun(command_for(cluster, CPUS), folder).run(seen.append)
    assert result.is_done, (result, seen[-5:])
    assert result.exit_code == 0
    events = [one["event"] for one in seen]
    assert {"log", "progress", "metrics"} <= set(events)
    assert events[-1] == "done"
    made = folder / "made"
    assert (made / "model.onnx").stat().st_size > 100_000
    report = json.loads((made / "report.json").read_text())
    assert report["summary"]["accuracy"] > 0.8
    assert report["config"]["threads"] == CPUS, "those that were asked of the cluster, not those of this computer"
    assert workers() == []


def test_a_mistake_is_told_with_the_worker_s_words(cluster: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", 6, per_label=1)
    (folder / "dataset.jsonl").unlink()
    result = TrainingRun(command_for(cluster, CPUS), folder).run(lambda _: None)
    assert not result.is_done
    assert result.failure is not None and "dataset file" in result.failure["message"]
    assert result.exit_code == 1


def test_a_cancelled_run_ends_at_both_ends(cluster: str, tmp_path: Path) -> None:
    run = TrainingRun(command_for(cluster, CPUS), run_folder(tmp_path / "run", 120))
    seen: list[Message] = []
    stopped: list[float] = []

    def stop_once(message: Message) -> None:
        seen.append(message)
        if message["event"] == "metrics" and not stopped:
            assert workers()
            stopped.append(time.monotonic())
            run.stop()

    result = run.run(stop_once)
    assert not result.is_done
    assert result.exit_code == 143, (result, seen[-3:])
    deadline = time.monotonic() + 20
    while workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers() == []


def test_who_is_killed_here_leaves_no_worker_there(cluster: str, tmp_path: Path) -> None:
    run = TrainingRun(command_for(cluster, CPUS), run_folder(tmp_path / "run", 120))

    def kill(message: Message) -> None:
        if message["event"] == "metrics":
            assert run._process is not None
            run._process.kill()

    result = run.run(kill)
    assert result.exit_code == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while workers() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert workers() == []


def test_a_cluster_without_room_says_so_and_waits(cluster: str, tmp_path: Path) -> None:
    run = TrainingRun(command_for(cluster, CPUS + 1), run_folder(tmp_path / "run", 6, per_label=2))
    said: list[str] = []

    def stop_when_told(message: Message) -> None:
        said.append(str(message.get("message")))
        if "free processors" in said[-1]:
            run.stop()

    result = run.run(stop_when_told)
    assert result.exit_code == 143
    assert any(f"Waiting for a node with {CPUS + 1} free processors" in one for one in said)


def test_no_cluster_is_told(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    result = TrainingRun(command_for(address, 1), run_folder(tmp_path / "run", 6, per_label=1)).run(lambda _: None)
    assert result.failure is not None
    assert result.failure["message"].startswith(f"The Ray cluster at {address} cannot be reached")
    assert "--ray-address" in result.failure["hint"]
