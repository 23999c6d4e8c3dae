"""Whether a new version is worse than the one before it, on the same test pictures.

The pictures are the new version's test pictures that the old one did not learn from. Both answer each; how much better the answers
of one are (a detector's mAP50, a classifier's mean F1 of its labels) and how often chance makes such a difference says `paired.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gleaner.learn import metrics
from gleaner.learn.detect.network import Found
from gleaner.learn.detect.report import has_every_box
from gleaner.learn.detect.scenes import Boxes
from gleaner.learn.graph import open_session
from gleaner.learn.paired import BoxesScored, Flags, LabelsScored, RightScored, Scored, difference
from gleaner.learn.request import Example, RunRequest, Task
from gleaner.learn.split import Split
from gleaner.wire.picture import PictureProblem, Rgb, read_rgb, resize_rgb

SPLIT_FILE = "split.json"
FOLDER = "previous"
FEWEST, MOST = 5, 500
CHANCE = 0.1
"""A difference is taken for real when it would come this rarely between two equally good versions."""


NAMES = {"map50": "mAP50", "macro_f1": "F1", "accuracy": "right"}
"""Of the measures, in words."""


@dataclass(frozen=True)
class Qualities:
    """How good two models are, 0 to 1, on the same pictures; `measure` in words."""

    before: float
    now: float
    measure: str
    pictures: int


class Session(Protocol):
    def run(self, names: Sequence[str] | None, inputs: dict[str, Any]) -> list[NDArray[Any]]: ...


@dataclass(frozen=True)
class Answer:
    """What one version says to a picture: which labels, in the order of the request's; or its boxes beside the true ones."""

    is_right: bool
    """Every label, or every box, and none too many."""
    labels: Flags | None = None
    boxes: tuple[Found, Boxes] | None = None


def write_split(path: Path, examples: Sequence[Example], split: Split) -> None:
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    path.write_text(json.dumps({name: [examples[i].id for i in part] for name, part in parts.items()}))


def compare(
    run_dir: Path, request: RunRequest, test: Sequence[Example], now: Sequence[Answer], goes_on: Callable[[], bool]
) -> dict[str, Any] | None:
    """The report's `compared`; None without a version before, or one of other labels. `goes_on`: there is time for another picture."""
    folder = run_dir / FOLDER
    if not request.previous_version or not (folder / "model.onnx").is_file():
        return None
    labels = (folder / "labels.txt").read_text(encoding="utf-8").split("\n")[:-1]
    if set(labels) != set(request.labels):
        return None
    learned = json.loads((folder / SPLIT_FILE).read_text())
    known = {*learned["train"], *learned["validation"]}
    threshold = float(json.loads((folder / "report.json").read_text())["summary"]["suggested_threshold"])
    session = open_session(folder / "model.onnx")
    both: list[tuple[Example, Answer, Answer]] = []
    for example, new in zip(test, now, strict=True):
        if example.id in known or len(both) >= MOST or not goes_on():
            continue
        try:
            picture = _input(session, example.path)
        except PictureProblem:
            continue
        both.append((example, answer(session, picture, example, labels, threshold, request), new))
    return {"version": request.previous_version, **judged(both, request)}


def judged(both: Sequence[tuple[Example, Answer, Answer]], request: RunRequest) -> dict[str, Any]:
    """Of each picture the answers before and now: `measure`, `before` and `now` (null without a picture), how many were right
    altogether, and `verdict`: worse, better, alike, or unknown with too few pictures.
    """
    counts = {
        "pictures": len(both),
        "right_before": sum(before.is_right for _, before, _ in both),
        "right_now": sum(now.is_right for _, _, now in both),
    }
    if not both:
        return counts | {"measure": "accuracy", "before": None, "now": None, "verdict": "unknown"}
    scored = _scored(both, request)
    found = difference(scored)
    verdict = "alike" if len(both) >= FEWEST else "unknown"
    if verdict == "alike" and found.chance <= CHANCE:
        verdict = "worse" if found.now < found.before else "better"
    figures = {"measure": scored.measure, "before": round(found.before, 4), "now": round(found.now, 4)}
    return counts | figures | {"verdict": verdict}


def qualities(both: Sequence[tuple[Example, Answer, Answer]], request: RunRequest) -> Qualities:
    """Of two models' answers to at least one picture."""
    scored = _scored(both, request)
    return Qualities(*scored.quality(np.zeros(len(both), bool)), NAMES[scored.measure], len(both))


def said_of(compared: dict[str, Any]) -> str:
    """In words: both versions' figures."""
    if not compared["pictures"]:
        return "no test picture was left"
    name = NAMES[compared["measure"]]
    return f"{name} {compared['now']:.1%}, {compared['before']:.1%} before, on {compared['pictures']} test pictures"


def _scored(both: Sequence[tuple[Example, Answer, Answer]], request: RunRequest) -> Scored:
    befores, nows = [before for _, before, _ in both], [now for _, _, now in both]
    boxes = [[one.boxes for one in answers if one.boxes is not None] for answers in (befores, nows)]
    if request.task is Task.DETECTION and any(len(truth) for _, truth in boxes[1]):
        return BoxesScored(*boxes)
    targets = np.array([[label in example.labels for label in request.labels] for example, _, _ in both], bool)
    if request.task is not Task.DETECTION and targets.any():
        before, now = (np.array([one.labels for one in answers], bool) for answers in (befores, nows))
        return LabelsScored(before, now, targets)
    before, now = (np.array([one.is_right for one in answers], bool) for answers in (befores, nows))
    return RightScored(before, now)


def _input(session: Any, path: Path) -> Rgb:
    _, height, width, _ = session.get_inputs()[0].shape
    return resize_rgb(read_rgb(path.read_bytes(), fit=(height, width)), height, width)


def answer(
    session: Session, picture: Rgb, example: Example, labels: Sequence[str], threshold: float, request: RunRequest
) -> Answer:
    """What an exported model with these labels says to a picture of its input size."""
    answers = _detector if request.task is Task.DETECTION else _classifier
    return answers(session, picture, example, labels, threshold, request)


def _classifier(
    session: Session, picture: Rgb, example: Example, labels: Sequence[str], threshold: float, request: RunRequest
) -> Answer:
    scores = np.asarray(session.run(["probability"], {"image": picture[None]})[0], np.float64)
    decided = metrics.decide(scores, threshold, request.task is Task.SINGLE_LABEL)[0]
    said = decided[[labels.index(label) for label in request.labels]]
    is_right = all(said[i] == (label in example.labels) for i, label in enumerate(request.labels))
    return Answer(bool(is_right), labels=said)


def _detector(
    session: Session, picture: Rgb, example: Example, labels: Sequence[str], threshold: float, request: RunRequest
) -> Answer:
    import torch

    location, category, score = (each[0] for each in session.run(None, {"image": picture[None]}))
    boxes = torch.from_numpy(np.ascontiguousarray(location[:, [1, 0, 3, 2]]))  # y first in the file
    order = np.array([request.labels.index(label) for label in labels])
    found = Found(boxes, torch.from_numpy(score), torch.from_numpy(order[category.astype(np.int64)]))
    edges = [[request.labels.index(b.label), b.x_min, b.y_min, b.x_max, b.y_max] for b in example.boxes]
    truth = np.array(edges, np.float32).reshape(-1, 5)
    return Answer(has_every_box(found, truth, threshold, len(labels)), boxes=(found, truth))
