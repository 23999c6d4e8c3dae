"""`gleaner train` as a person runs it: a folder in, a model and a report out."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

COMMAND = [sys.executable, "-m", "gleaner.cli.main", "train"]
COLORS = {"red": (40, 40, 220), "blue": (220, 60, 40)}  # BGR


def draw(path: Path, color: tuple[int, int, int], seed: int) -> None:
    """A disc somewhere on a clouded wall."""
    random = np.random.default_rng(seed)
    clouds = cv2.resize(random.integers(70, 190, (5, 7, 3), dtype=np.uint8), (128, 96), interpolation=cv2.INTER_CUBIC)
    place = (int(random.integers(25, 100)), int(random.integers(25, 70)))
    cv2.circle(clouds, place, int(random.integers(12, 24)), color, -1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), clouds)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Twelve pictures in each of two folders, and a file that is no picture."""
    for number, (label, color) in enumerate(COLORS.items()):
        for each in range(12):
            draw(tmp_path / "discs" / label / f"{each}.jpg", color, 100 * number + each)
    (tmp_path / "discs" / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    return tmp_path / "discs"


def gleaner(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_folder_per_class_becomes_a_model_and_a_report(folders: Path, tmp_path: Path) -> None:
    done = gleaner(folders, "--time", "6s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "single-label classification: blue, red; 25 pictures, 6 s" in done.stderr
    assert "pictures never seen in training" in done.stdout
    out = tmp_path / "discs-model"
    for_tflite = {"discs.tflite"} if find_spec("ai_edge_litert") else set()
    assert {path.name for path in out.iterdir()} == for_tflite | {
        "model.onnx",
        "labels.txt",
        "report.json",
        "report.html",
        "samples",
        "split.json",
    }
    assert (out / "labels.txt").read_text().split() == ["blue", "red"]
    report = json.loads((out / "report.json").read_text())
    assert [one["id"] for one in report["skipped"]] == ["red/broken.jpg"]
    assert report["model_name"] == "discs" and len(report["dataset"]["hash"]) == 64
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    picture = np.zeros([1 if isinstance(side, str) else side for side in session.get_inputs()[0].shape], np.uint8)
    assert session.run(None, {"image": picture})[0].shape == (1, 2)
    page = (out / "report.html").read_text()
    assert "red/broken.jpg" in page and page.count("<section") >= 6
    assert not re.findall(r'(?:src|href)=["\']?(?!data:)[a-z]+:', page), "the page asks nobody for anything"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["discs", "discs-model"]
    again = gleaner(folders, "--time", "6s", cwd=tmp_path)
    assert again.returncode == 2 and "is there already: give --replace" in again.stderr


@pytest.mark.timeout(200)
def test_ctrl_c_ends_it_and_leaves_nothing(folders: Path, tmp_path: Path) -> None:
    # Shells make what runs behind them deaf to Ctrl-C, and that is inherited.
    listening = ["env", "--default-signal=INT", *COMMAND]
    process = subprocess.Popen(
        [*listening, str(folders), "--time", "10min"], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stderr is not None
    try:
        assert any("Training for" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert "Stopped. Nothing was written." in said and "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["discs"]


def test_what_cannot_be_learned_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_bytes(b"no zip")
    for number in range(3):
        draw(tmp_path / "flat" / f"{number}.jpg", (0, 0, 200), number)
        draw(tmp_path / "one" / "cat" / f"{number}.jpg", (0, 0, 200), number)
    for arguments, words in (
        (["empty"], "There are no pictures"),
        (["text.zip"], "no readable zip"),
        (["flat"], "no classes to learn. Put the pictures into a folder per class"),
        (["flat", "--kind", "detector"], "no boxes to learn. Draw boxes first"),
        (["flat", "--kind", "poet"], "choose single, multi or detector"),
        (["flat", "--backbone", "resnet50"], "names no backbone"),
        (["flat", "--time", "soon"], "give 60s, 5min, 1h"),
        (["one", "--label", "dog"], "There is no label 'dog' in one. It has: cat"),
        (["one"], "All pictures are “cat”"),
    ):
        done = gleaner(*arguments, cwd=tmp_path)
        assert done.returncode in (1, 2), done
        assert words in done.stderr.replace("\n", " "), done.stderr
        assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "flat", "one", "text.zip"]
