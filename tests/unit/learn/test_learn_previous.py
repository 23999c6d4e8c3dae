"""A new version beside the one before, on the same test pictures, with real model files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_learn_quick import discs
from test_learn_worker import COLORS, draw

from gleaner.learn.backbones.start import own_start
from gleaner.learn.detect.export import export_detector
from gleaner.learn.detect.network import build_detector
from gleaner.learn.export import export_classifier
from gleaner.learn.fit import Samples
from gleaner.learn.graph import model_properties
from gleaner.learn.previous import FOLDER, chance_of, compare, judged
from gleaner.learn.quick import quick_classifier
from gleaner.learn.request import Example, LabelledBox, RunRequest, Task

LABELS = ("red", "blue")
PER_LABEL = 8


def request(task: Task = Task.SINGLE_LABEL, labels: tuple[str, ...] = LABELS) -> RunRequest:
    return RunRequest(task=task, labels=labels, previous_version="3")


def examples(folder: Path) -> list[Example]:
    found = []
    for number, label in enumerate(list(COLORS) * PER_LABEL):
        path = folder / f"{number}.jpg"
        path.write_bytes(cv2.imencode(".jpg", draw(label, 700 + number))[1].tobytes())
        boxes = (LabelledBox("red", 0.2, 0.2, 0.6, 0.6),) if label else ()
        found.append(Example(f"id-{number}", path, frozenset({label} - {""}), None, "cam", boxes))
    return found


def before(run_dir: Path, task: Task, *, swapped: bool = False, learned: tuple[str, ...] = ()) -> None:
    folder = run_dir / FOLDER
    folder.mkdir()
    properties = model_properties(list(LABELS), task.value, 0.5, "3")
    if task is Task.DETECTION:
        torch.manual_seed(0)
        export_detector(build_detector(len(LABELS)).eval(), (96, 128), folder / "model.onnx", properties)
    else:
        samples = discs(0, 12)
        targets = samples.targets.flip(1) if swapped else samples.targets
        network = quick_classifier(Samples(samples.pictures, targets), own_start().trunk())
        export_classifier(network, (96, 128), folder / "model.onnx", properties)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    (folder / "report.json").write_text(json.dumps({"summary": {"suggested_threshold": 0.5}}))
    (folder / "split.json").write_text(json.dumps({"train": list(learned), "validation": [], "test": []}))


def test_the_version_before_answers_the_same_pictures(tmp_path: Path) -> None:
    test = examples(tmp_path)
    before(tmp_path, Task.SINGLE_LABEL, learned=("id-0", "id-1"))
    found = compare(tmp_path, request(), test, [False] * len(test), lambda: True)
    assert found is not None
    assert found["version"] == "3"
    assert found["pictures"] == len(test) - 2, "what it learned from is no test"
    assert found["right_before"] >= 0.8 * found["pictures"]
    assert (found["right_now"], found["verdict"]) == (0, "worse")


def test_better_is_said_too(tmp_path: Path) -> None:
    test = examples(tmp_path)
    before(tmp_path, Task.SINGLE_LABEL, swapped=True)
    found = compare(tmp_path, request(), test, [True] * len(test), lambda: True)
    assert found is not None
    assert found["right_before"] <= len(test) // 3 + 2, "only the walls without a disc"
    assert (found["right_now"], found["verdict"]) == (len(test), "better")


def test_a_detector_is_right_when_every_box_is(tmp_path: Path) -> None:
    test = examples(tmp_path)
    before(tmp_path, Task.DETECTION)
    found = compare(tmp_path, request(Task.DETECTION), test, [True] * len(test), lambda: True)
    assert found is not None
    assert found["right_before"] == PER_LABEL, "untrained it finds nothing, which is right where nothing is"
    assert found["verdict"] == "better"


def test_there_may_be_nothing_to_compare_with(tmp_path: Path) -> None:
    test = examples(tmp_path)
    assert compare(tmp_path, request(), test, [True] * len(test), lambda: True) is None
    before(tmp_path, Task.SINGLE_LABEL)
    assert compare(tmp_path, request(labels=("red", "green")), test, [True] * len(test), lambda: True) is None
    none = compare(tmp_path, request(), test, [True] * len(test), lambda: False)
    assert none is not None
    assert (none["pictures"], none["verdict"]) == (0, "unknown")


@pytest.mark.parametrize(
    ("only_before", "only_now", "both", "verdict"),
    [
        (0, 0, 40, "alike"),
        (3, 0, 37, "alike"),
        (4, 0, 36, "worse"),
        (0, 4, 36, "better"),
        (9, 4, 87, "alike"),
        (12, 4, 84, "worse"),
        (4, 0, 0, "unknown"),
    ],
)
def test_a_difference_counts_when_chance_makes_it_rarely(
    only_before: int, only_now: int, both: int, verdict: str
) -> None:
    pairs = [(True, False)] * only_before + [(False, True)] * only_now + [(True, True)] * both
    found = judged(pairs)
    assert (found["verdict"], found["pictures"]) == (verdict, len(pairs))
    assert found["right_before"] - found["right_now"] == only_before - only_now


def test_the_chance_is_a_coins() -> None:
    assert chance_of(0, 0) == 1
    assert chance_of(4, 4) == pytest.approx(1 / 16)
    assert chance_of(2, 3) == pytest.approx(np.mean([bin(n).count("1") >= 2 for n in range(8)]))
