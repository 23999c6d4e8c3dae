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
from gleaner.learn.detect.network import Found, build_detector
from gleaner.learn.detect.quality import map50
from gleaner.learn.export import export_classifier
from gleaner.learn.fit import Samples
from gleaner.learn.graph import model_properties
from gleaner.learn.paired import BoxesScored, LabelsScored, RightScored, difference
from gleaner.learn.previous import FOLDER, Answer, compare, said_of
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


def labelled(test: list[Example], *, right: bool) -> list[Answer]:
    """What a classifier says that is always right, or that takes red for blue and nothing for red."""
    truths = [np.array([label in one.labels for label in LABELS]) for one in test]
    return [Answer(right, labels=truth if right else np.array([not truth[0], truth[0]])) for truth in truths]


def boxed(test: list[Example]) -> list[Answer]:
    """What a detector finds that is always right."""
    answers = []
    for one in test:
        edges = [[LABELS.index(b.label), b.x_min, b.y_min, b.x_max, b.y_max] for b in one.boxes]
        truth = np.array(edges, np.float32).reshape(-1, 5)
        boxes = torch.from_numpy(truth[:, 1:])
        found = Found(boxes, torch.full((len(boxes),), 0.9), torch.from_numpy(truth[:, 0]).long())
        answers.append(Answer(True, boxes=(found, truth)))
    return answers


def test_the_version_before_answers_the_same_pictures(tmp_path: Path) -> None:
    test = examples(tmp_path)
    before(tmp_path, Task.SINGLE_LABEL, learned=("id-0", "id-1"))
    found = compare(tmp_path, request(), test, labelled(test, right=False), lambda: True)
    assert found is not None
    assert found["version"] == "3"
    assert found["pictures"] == len(test) - 2, "what it learned from is no test"
    assert found["right_before"] >= 0.8 * found["pictures"]
    assert (found["right_now"], found["verdict"]) == (0, "worse")
    assert found["measure"] == "macro_f1"
    assert found["before"] > 0.8
    assert found["now"] < 0.2
    assert said_of(found).endswith(f"before, on {found['pictures']} test pictures")


@pytest.mark.parametrize("order", [LABELS, LABELS[::-1]])
def test_better_is_said_too_whatever_the_order_of_the_labels(tmp_path: Path, order: tuple[str, ...]) -> None:
    test = examples(tmp_path)
    before(tmp_path, Task.SINGLE_LABEL, swapped=True)
    now = labelled(test, right=True)
    if order != LABELS:
        now = [Answer(True, labels=one.labels[::-1]) for one in now if one.labels is not None]
    found = compare(tmp_path, request(labels=order), test, now, lambda: True)
    assert found is not None
    assert found["right_before"] <= len(test) // 3 + 2, "only the walls without a disc"
    assert (found["right_now"], found["now"], found["verdict"]) == (len(test), 1.0, "better")


def test_detectors_are_compared_by_map50(tmp_path: Path) -> None:
    test = examples(tmp_path)
    before(tmp_path, Task.DETECTION)
    found = compare(tmp_path, request(Task.DETECTION), test, boxed(test), lambda: True)
    assert found is not None
    assert found["right_before"] == PER_LABEL, "untrained it finds nothing, which is right where nothing is"
    assert (found["measure"], found["now"], found["verdict"]) == ("map50", 1.0, "better")
    assert found["before"] < 0.2


def test_pictures_of_nothing_are_compared_as_a_whole(tmp_path: Path) -> None:
    test = [one for one in examples(tmp_path) if not one.labels]
    before(tmp_path, Task.SINGLE_LABEL)
    now = [Answer(False, labels=np.array([True, False])) for _ in test]
    found = compare(tmp_path, request(), test, now, lambda: True)
    assert found is not None
    assert (found["measure"], found["now"], found["verdict"]) == ("accuracy", 0.0, "worse")


def test_there_may_be_nothing_to_compare_with(tmp_path: Path) -> None:
    test = examples(tmp_path)
    now = labelled(test, right=True)
    assert compare(tmp_path, request(), test, now, lambda: True) is None
    before(tmp_path, Task.SINGLE_LABEL)
    assert compare(tmp_path, request(labels=("red", "green")), test, now, lambda: True) is None
    none = compare(tmp_path, request(), test, now, lambda: False)
    assert none is not None
    assert (none["pictures"], none["before"], none["now"], none["verdict"]) == (0, None, None, "unknown")


@pytest.mark.parametrize(
    ("only_before", "only_now", "both", "chance"),
    [(0, 0, 40, 1), (3, 0, 37, 1 / 8), (4, 0, 36, 1 / 16), (0, 4, 36, 1 / 16), (2, 1, 9, 1 / 2), (5, 2, 9, 29 / 128)],
)
def test_of_right_and_wrong_it_is_mcnemars_exact_test(
    only_before: int, only_now: int, both: int, chance: float
) -> None:
    pairs = [(True, False)] * only_before + [(False, True)] * only_now + [(True, True)] * both
    before_, now = np.array(pairs).T
    found = difference(RightScored(before_, now))
    assert found.chance == pytest.approx(chance)
    assert found.now - found.before == pytest.approx((only_now - only_before) / len(pairs))


def test_many_pictures_are_judged_by_a_thousand_exchanges() -> None:
    """12 against 4: a coin shows 12 heads or more of 16 in 3.8 of a hundred."""
    pairs = [(True, False)] * 12 + [(False, True)] * 4 + [(True, True)] * 84
    before_, now = np.array(pairs).T
    assert difference(RightScored(before_, now)).chance == pytest.approx(0.0384, abs=0.015)


def test_one_weak_label_of_many_counts_as_much_as_the_others() -> None:
    """90 pictures of one label are right before and now; of the rare one, ten, the new version misses all."""
    targets = np.zeros((100, 2), bool)
    targets[:90, 0], targets[90:, 1] = True, True
    now = targets.copy()
    now[90:] = False
    found = difference(LabelsScored(targets, now, targets))
    assert (found.before, found.now) == (1.0, 0.5)
    assert found.chance < 0.01


def test_map50_of_joined_versions_is_that_of_each_alone() -> None:
    random = np.random.default_rng(4)

    def answer(truth: np.ndarray) -> Found:  # type: ignore[type-arg]
        boxes = truth[:, 1:] + random.normal(0, 3, (len(truth), 4))
        labels = random.permutation(truth[:, 0])
        return Found(
            torch.from_numpy(boxes).float(), torch.from_numpy(random.random(len(truth))), torch.tensor(labels).long()
        )

    corners = [random.uniform(0, 60, (3, 2)) for _ in range(30)]
    truths = [
        np.concatenate([random.integers(0, 3, (3, 1)), low, low + random.uniform(15, 40, (3, 2))], 1).astype(np.float32)
        for low in corners
    ]
    versions = [[(answer(truth), truth) for truth in truths] for _ in range(2)]
    found = BoxesScored(*versions).quality(np.zeros(30, bool))
    alone = [map50([one for one, _ in version], truths) for version in versions]
    assert found == pytest.approx(alone)
    assert BoxesScored(*versions).quality(np.ones(30, bool)) == pytest.approx(alone[::-1])
