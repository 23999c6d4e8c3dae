"""Training scripts in Viam's package format, run by the real worker in an environment of their own; no network."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest

SETUP = "from setuptools import find_packages, setup\nsetup(name='mine', version='0.1', packages=find_packages(), install_requires={})\n"
#: An in-tree build back end: pip installs the script without fetching setuptools first.
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
BACKEND = """
import zipfile
def build_wheel(folder, settings=None, metadata=None):
    name = "mine-0.1-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.writestr("mine-0.1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: mine\\nVersion: 0.1\\n{requires}")
        wheel.writestr("mine-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("mine-0.1.dist-info/RECORD", "")
    return name
"""
GOOD = """
import argparse, json, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("--dataset_file", dest="data_json")
parser.add_argument("--model_output_directory", dest="model_dir")
parser.add_argument("--num_epochs", type=int)
args = parser.parse_args()
lines = [json.loads(line) for line in open(args.data_json)]
assert all(open(line["image_path"], "rb").read() for line in lines)
print("50%\\r100%\\nlearned from", len(lines), "pictures in", args.num_epochs, "epochs", flush=True)
print("isolated" if not any("numpy" == p.name for d in sys.path if d for p in pathlib.Path(d).glob("numpy")) else "shared")
(pathlib.Path(args.model_dir) / "model.tflite").write_bytes(b"weights")
(pathlib.Path(args.model_dir) / "labels.txt").write_text("cup")
"""


def package(files: dict[str, str], folder: str = "mine-0.1/") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(folder + name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def script(code: str, **extra: str) -> bytes:
    return package({"model/__init__.py": "", "model/training.py": code, **extra})


def make_run(folder: Path, archive: bytes, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "1.jpg").write_bytes(b"a picture")
    line = {"image_path": "1.jpg", "classification_annotations": [{"annotation_label": "cup"}]}
    (folder / "dataset.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "script.tar.gz").write_bytes(archive)
    settings = {"task": "custom", "arguments": {"num_epochs": "3"}, "budget_s": 100, **changes}
    (folder / "run.json").write_text(json.dumps(settings))
    return folder


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PIP_NO_INDEX": "1", "PYTHONUNBUFFERED": "1", **changes}


def work(run_dir: Path, **env: str) -> tuple[int, list[dict[str, Any]]]:
    command = [sys.executable, "-m", "gleaner.learn.worker", str(run_dir)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**env), timeout=120, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events, done.stderr
    return done.returncode, events


def messages(events: list[dict[str, Any]]) -> list[str]:
    return [event["message"] for event in events if event["event"] in ("log", "warning")]


def test_a_script_is_installed_apart_with_what_it_needs_and_makes_a_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "LEARNED = 'by tiny'")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    backend = BACKEND.replace("{requires}", "Requires-Dist: tiny\\n")
    archive = script(
        "import tiny\nprint(tiny.LEARNED)\n" + GOOD, **{"pyproject.toml": PYPROJECT, "backend.py": backend}
    )
    run_dir = make_run(tmp_path / "run", archive)
    status, events = work(run_dir, PIP_FIND_LINKS=str(tmp_path))
    said = messages(events)
    assert status == 0 and events[-1] == {"event": "done"}, said
    assert {"by tiny", "100%", "learned from 1 pictures in 3 epochs", "isolated"} <= set(said)
    assert (run_dir / "out" / "model.tflite").read_bytes() == b"weights"


def test_without_an_index_it_runs_with_the_packages_from_here_and_says_so(tmp_path: Path) -> None:
    archive = script("import numpy\n" + GOOD, **{"setup.py": SETUP.format(["numpy", "not-to-be-had"])})
    status, events = work(make_run(tmp_path / "run", archive))
    assert status == 0, messages(events)
    (warned,) = [event["message"] for event in events if event["event"] == "warning"]
    assert warned.startswith("pip could not reach a package index: the training script runs with the packages")
    assert "shared" in messages(events)


@pytest.mark.parametrize(
    ("archive", "message", "hint"),
    [
        (script("print('step 1')\nraise ValueError('no such layer')"), "ended with exit code 1: ValueError: no such layer", "step 1"),
        (script("import sys; sys.exit(3)"), "ended with exit code 3: it said nothing.", "Read the run's log."),
        (script("print('fine')"), "left no file in --model_output_directory", "labels.txt"),
        (package({"training.py": ""}), "has no model/training.py", "sdist"),
        (b"no archive", "cannot be unpacked", ".tar.gz"),
        (package({"../../evil.py": ""}), "cannot be unpacked", ".tar.gz"),
    ],
    ids=["raises", "exits", "no-model", "no-module", "no-archive", "leaves-its-folder"],
)  # fmt: skip
def test_a_failing_script_says_why_with_its_last_lines(tmp_path: Path, archive: bytes, message: str, hint: str) -> None:
    status, events = work(make_run(tmp_path / "run", archive))
    assert status == 1 and events[-1]["event"] == "failed", messages(events)
    assert message in events[-1]["message"] and hint in events[-1]["hint"]
    assert not (tmp_path / "evil.py").exists()


def test_the_time_limit_ends_a_script(tmp_path: Path) -> None:
    status, events = work(make_run(tmp_path / "run", script("import time\ntime.sleep(1000)"), budget_s=4))
    assert status == 1 and events[-1]["message"].startswith("The time limit of 4 s is up")


def test_canceling_ends_the_script_and_what_it_started(tmp_path: Path) -> None:
    code = "import subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
    code += "print('child', child.pid, flush=True)\ntime.sleep(1000)"
    command = [sys.executable, "-m", "gleaner.learn.worker", str(make_run(tmp_path / "run", script(code)))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    try:
        told = (json.loads(line).get("message", "") for line in process.stdout)
        child = psutil.Process(int(next(text for text in told if text.startswith("child ")).split()[1]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        psutil.wait_procs([child], 30)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
