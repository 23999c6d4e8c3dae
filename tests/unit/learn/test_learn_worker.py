"""The worker as the app starts it: a process, its events, its output folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest

from gleaner.learn.request import read_examples, read_request
from gleaner.wire.picture import read_rgb, resize_rgb

COMMAND = [sys.executable, "-m", "gleaner.learn.worker"]
COLORS = {"red": (40, 40, 220), "blue": (220, 60, 40), "": (120, 120, 120)}  # BGR


def draw(label: str, seed: int) -> np.ndarray:
    """A disc of the label's colour (none for "") somewhere on a clouded wall."""
    random = np.random.default_rng([seed, len(label)])
    clouds = cv2.resize(
        random.integers(70, 190, (5, 7, 1), dtype=np.uint8).repeat(3, 2), (128, 96), interpolation=cv2.INTER_CUBIC
    )
    if label:
        place = (int(random.integers(25, 100)), int(random.integers(25, 70)))
        cv2.circle(clouds, place, int(random.integers(12, 24)), COLORS[label], -1, cv2.LINE_AA)
    return np.asarray(np.clip(clouds + random.normal(0, 4, clouds.shape), 0, 255), np.uint8)


def make_run(run_dir: Path, per_label: int = 10, **changes: Any) -> Path:
    lines = []
    for number, label in enumerate(list(COLORS) * per_label):
        name = f"{number}.jpg"
        (run_dir / name).write_bytes(cv2.imencode(".jpg", draw(label, number))[1].tobytes())
        tags = [{"annotation_label": label}] if label else []
        lines.append({"image_path": name, "binary_data_id": f"id-{number}", "classification_annotations": tags})
    (run_dir / "dataset.jsonl").write_text("\n".join(map(json.dumps, lines)))
    request = {
        "task": "single_label_classification", "labels": ["red", "blue"], "dataset": "dataset.jsonl", "seed": 3,
        "budget_s": 9.0, "output_dir": "out", "model_name": "discs", "model_version": "v1", "dataset_hash": "abc", "threads": 2,
    }  # fmt: skip
    (run_dir / "run.json").write_text(json.dumps({**request, **changes}))
    return run_dir


def work(run_dir: Path, **environment: str) -> tuple[int, list[dict[str, Any]]]:
    ran = subprocess.run(
        [*COMMAND, run_dir], capture_output=True, text=True, timeout=90, check=False, env={**os.environ, **environment}
    )
    return ran.returncode, [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    run_dir = make_run(tmp_path_factory.mktemp("run"))
    (run_dir / "0.jpg").write_bytes(b"\xff\xd8 broken")
    status, events = work(run_dir)
    assert status == 0, events[-3:]
    return run_dir, events


@pytest.mark.slow
def test_events_follow_the_contract(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    _, events = finished
    assert events[-1] == {"event": "done"}
    assert {e["event"] for e in events} == {"log", "progress", "metrics", "warning", "done"}
    for event in events:
        if event["event"] == "metrics":
            assert set(event) == {
                "event", "t_s", "step", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"
            }  # fmt: skip
        if event["event"] == "log":
            assert event["time"].endswith("Z")
    fractions = [e["fraction"] for e in events if e["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert any("could not be used" in e["message"] for e in events if e["event"] == "warning")


@pytest.mark.slow
def test_the_report_follows_the_contract(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    run_dir, _ = finished
    report = json.loads((run_dir / "out" / "report.json").read_text())
    assert set(report) >= {
        "format", "task", "labels", "model_name", "model_version", "created_at", "dataset", "config", "versions", "summary",
        "per_label", "confusion", "threshold_curve", "wrong", "skipped", "history", "timings", "model",
        "label_errors", "learning_curve",
    }  # fmt: skip
    summary, split = report["summary"], report["dataset"]["split"]
    assert set(summary) == {"accuracy", "accuracy_interval", "macro_f1", "test_count", "suggested_threshold", "ece"}
    assert summary["test_count"] == split["test"] >= 6
    assert sum(split.values()) == report["dataset"]["item_count"] == 29
    assert summary["accuracy_interval"][0] <= summary["accuracy"] <= summary["accuracy_interval"][1]
    assert [row["label"] for row in report["per_label"]] == ["red", "blue"]
    confusion = report["confusion"]
    assert confusion["labels"] == ["red", "blue", "none of these"]
    assert sum(map(sum, confusion["matrix"])) == summary["test_count"]
    for cell, ids in confusion["cells"].items():
        row, column = map(int, cell.split(","))
        assert len(ids) == confusion["matrix"][row][column]
    assert [s["id"] for s in report["skipped"]] == ["id-0"]
    assert len(report["history"]) >= 3
    for wrong in report["wrong"]:
        assert (run_dir / "out" / wrong["sample"]).is_file()
        assert (run_dir / "out" / wrong["looked_at"]["sample"]).is_file()
    assert report["label_errors"]["checked"] or report["label_errors"]["reason"]
    assert set(report["timings"]) >= {"train_s", "export_s", "inference_ms"}
    assert set(report["model"]) >= {"size_bytes", "parameters", "input_shape"}
    for written in report["model"]["formats"].values():
        assert written.get("reason") or (run_dir / "out" / written["file"]).stat().st_size == written["size_bytes"]
    assert report["dataset"]["hash"] == "abc"


@pytest.mark.slow
def test_the_model_names_discs_it_never_saw_and_stays_silent_on_walls(
    finished: tuple[Path, list[dict[str, Any]]],
) -> None:
    run_dir, _ = finished
    out = run_dir / "out"
    labels = (out / "labels.txt").read_text().splitlines()
    assert labels == ["red", "blue"]
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    _, height, width, _ = session.get_inputs()[0].shape
    right = 0
    questions = list(COLORS) * 10
    for number, label in enumerate(questions):
        picture = read_rgb(cv2.imencode(".jpg", draw(label, 1000 + number))[1].tobytes())
        scores = session.run(["probability"], {"image": resize_rgb(picture, height, width)[None]})[0][0]
        said = labels[int(scores.argmax())] if scores.max() >= 0.5 else ""
        right += said == label
    assert right >= 0.8 * len(questions)


@pytest.mark.slow
def test_several_labels_per_picture_are_reported_one_by_one(tmp_path: Path) -> None:
    make_run(tmp_path, 6, task="multi_label_classification", budget_s=3.0)
    lines = [json.loads(line) for line in (tmp_path / "dataset.jsonl").read_text().splitlines()]
    for line in lines[2::3]:  # the plain walls now carry both
        line["classification_annotations"] = [{"annotation_label": "red"}, {"annotation_label": "blue"}]
    (tmp_path / "dataset.jsonl").write_text("\n".join(map(json.dumps, lines)))
    status, events = work(tmp_path)
    assert status == 0, events[-2:]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert all(row["support"] >= 2 for row in report["per_label"])
    assert sum(map(sum, report["confusion"]["matrix"])) >= report["summary"]["test_count"]
    assert any("untagged" in e["message"] for e in events if e["event"] == "warning")


@pytest.mark.parametrize(
    ("changes", "per_label", "message", "hint"),
    [
        ({"labels": ["red", "green"]}, 2, "“green” has 0", "Tag more pictures"),
        ({"dataset": "nowhere.jsonl"}, 2, "nowhere.jsonl cannot be read", "again"),
    ],
)
def test_mistakes_fail_early_with_message_and_hint(
    tmp_path: Path, changes: dict[str, Any], per_label: int, message: str, hint: str
) -> None:
    status, events = work(make_run(tmp_path, per_label, **changes))
    assert status == 1
    (failed,) = events  # nothing else was started
    assert failed["event"] == "failed"
    assert message in failed["message"]
    assert hint in failed["hint"]
    assert not (tmp_path / "out").exists()


def test_pictures_that_all_turn_out_broken_fail_with_the_count(tmp_path: Path) -> None:
    make_run(tmp_path, 2)
    for picture in tmp_path.glob("*.jpg"):
        picture.write_bytes(b"no picture")
    status, events = work(tmp_path)
    assert status == 1
    assert "“red” has 0" in events[-1]["message"]
    assert any("could not be used" in e["message"] for e in events if e["event"] == "warning")


def test_missing_torch_says_what_to_install(tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    run = tmp_path / "run"
    run.mkdir()
    status, events = work(make_run(run, 3), PYTHONPATH=str(shadow))
    assert status == 1
    assert "gleaner[train]" in events[-1]["hint"]


@pytest.mark.parametrize("wait_for", ["progress", "metrics"])
def test_sigterm_ends_the_run_within_two_seconds_and_leaves_no_output(tmp_path: Path, wait_for: str) -> None:
    make_run(tmp_path, 10, budget_s=60.0)
    with subprocess.Popen([*COMMAND, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if json.loads(line)["event"] == wait_for:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
        assert "Canceled" in process.stdout.read()
    assert not (tmp_path / "out").exists()


def make_detection_run(run_dir: Path, count: int = 45, **changes: Any) -> Path:
    """Discs with their boxes, each third picture without one."""
    make_run(run_dir, count // 3, task="object_detection", budget_s=14.0, **changes)
    lines = []
    for number, line in enumerate(map(json.loads, (run_dir / "dataset.jsonl").read_text().splitlines())):
        picture, label = read_rgb((run_dir / line["image_path"]).read_bytes()), list(COLORS)[number % 3]
        boxes = []
        if label:
            strong = picture.max(2).astype(int) - picture.min(2) > 90
            ys, xs = np.nonzero(strong)
            edges = xs.min() / 128, ys.min() / 96, (xs.max() + 1) / 128, (ys.max() + 1) / 96
            names = ("x_min_normalized", "y_min_normalized", "x_max_normalized", "y_max_normalized")
            boxes = [{"annotation_label": label, **dict(zip(names, map(float, edges), strict=True))}]
        lines.append({**line, "classification_annotations": [], "bounding_box_annotations": boxes})
    (run_dir / "dataset.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return run_dir


@pytest.mark.slow
def test_a_detector_learns_where_things_are(tmp_path: Path) -> None:
    status, events = work(make_detection_run(tmp_path))
    assert status == 0 and events[-1] == {"event": "done"}, events[-3:]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    summary = report["summary"]
    assert report["task"] == "object_detection" and summary["box_count"] > 0
    assert summary["map50"] > 0.6, summary
    assert summary["map50_interval"][0] <= summary["map50"] <= summary["map50_interval"][1]
    assert any("without a box of the chosen labels" in event.get("message", "") for event in events)
    assert (tmp_path / "out" / "labels.txt").read_text().split() == ["red", "blue"]
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    assert [output.name for output in session.get_outputs()] == ["location", "category", "score"]
    assert report["model"]["largest_difference"] < 1e-3


def test_a_box_without_area_is_named_with_its_line(tmp_path: Path) -> None:
    lines = (make_detection_run(tmp_path) / "dataset.jsonl").read_text().splitlines()
    broken = json.loads(lines[0])
    broken["bounding_box_annotations"][0]["x_max_normalized"] = 0
    (tmp_path / "dataset.jsonl").write_text("\n".join([json.dumps(broken), *lines[1:]]))
    examples, skipped = read_examples(tmp_path, read_request(tmp_path))
    assert len(examples) == len(lines) - 1
    assert [one.id for one in skipped] == ["line 1"] and "no area" in skipped[0].reason
