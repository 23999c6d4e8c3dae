"""Whether a new version is worse than the one before it, on the same test pictures.

The pictures are the new version's test pictures that the old one did not learn from. A picture counts as right when every label,
or every box, is. Both versions answer each, so what decides is only the pictures where one is right and the other is not: McNemar's
exact test, as for a coin that is thrown that often.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gleaner.learn import metrics
from gleaner.learn.detect.network import Found
from gleaner.learn.detect.report import has_every_box
from gleaner.learn.graph import open_session
from gleaner.learn.request import Example, RunRequest, Task
from gleaner.learn.split import Split
from gleaner.wire.picture import PictureProblem, Rgb, read_rgb, resize_rgb

SPLIT_FILE = "split.json"
FOLDER = "previous"
FEWEST, MOST = 5, 500
CHANCE = 0.1
"""A difference is taken for real when it would come this rarely between two equally good versions."""


class Session(Protocol):
    def run(self, names: Sequence[str] | None, inputs: dict[str, Any]) -> list[NDArray[Any]]: ...


def write_split(path: Path, examples: Sequence[Example], split: Split) -> None:
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    path.write_text(json.dumps({name: [examples[i].id for i in part] for name, part in parts.items()}))


def compare(
    run_dir: Path, request: RunRequest, test: Sequence[Example], right_now: Sequence[bool], goes_on: Callable[[], bool]
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
    pairs: list[tuple[bool, bool]] = []
    for example, now in zip(test, right_now, strict=True):
        if example.id in known or len(pairs) >= MOST or not goes_on():
            continue
        try:
            picture = _input(session, example.path)
        except PictureProblem:
            continue
        pairs.append((is_right(session, picture, example, labels, threshold, request), bool(now)))
    return {"version": request.previous_version, **judged(pairs)}


def judged(pairs: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    """Of each picture (right before, right now): counts, and `verdict`: worse, better, alike, or unknown with too few pictures."""
    only_before = sum(before and not now for before, now in pairs)
    only_now = sum(now and not before for before, now in pairs)
    verdict = "alike" if len(pairs) >= FEWEST else "unknown"
    if verdict == "alike" and chance_of(max(only_before, only_now), only_before + only_now) <= CHANCE:
        verdict = "worse" if only_before > only_now else "better"
    return {
        "pictures": len(pairs),
        "right_before": sum(before for before, _ in pairs),
        "right_now": sum(now for _, now in pairs),
        "verdict": verdict,
    }


def chance_of(heads: int, throws: int) -> float:
    """That a fair coin shows heads so often, or oftener."""
    return float(sum(math.comb(throws, k) for k in range(heads, throws + 1)) / 2**throws)


def _input(session: Any, path: Path) -> Rgb:
    _, height, width, _ = session.get_inputs()[0].shape
    return resize_rgb(read_rgb(path.read_bytes(), fit=(height, width)), height, width)


def is_right(
    session: Session, picture: Rgb, example: Example, labels: Sequence[str], threshold: float, request: RunRequest
) -> bool:
    """Whether an exported model says every label, or every box, of a picture of its input size, and none too many."""
    answers = _detector if request.task is Task.DETECTION else _classifier
    return answers(session, picture, example, labels, threshold, request)


def _classifier(
    session: Session, picture: Rgb, example: Example, labels: Sequence[str], threshold: float, request: RunRequest
) -> bool:
    scores = np.asarray(session.run(["probability"], {"image": picture[None]})[0], np.float64)
    said = metrics.decide(scores, threshold, request.task is Task.SINGLE_LABEL)[0]
    return bool(all(said[i] == (label in example.labels) for i, label in enumerate(labels)))


def _detector(
    session: Session, picture: Rgb, example: Example, labels: Sequence[str], threshold: float, request: RunRequest
) -> bool:
    import torch

    location, category, score = (each[0] for each in session.run(None, {"image": picture[None]}))
    boxes = torch.from_numpy(np.ascontiguousarray(location[:, [1, 0, 3, 2]]))  # y first in the file
    found = Found(boxes, torch.from_numpy(score), torch.from_numpy(category.astype(np.int64)))
    truth = [[labels.index(b.label), b.x_min, b.y_min, b.x_max, b.y_max] for b in example.boxes]
    return has_every_box(found, np.array(truth, np.float32).reshape(-1, 5), threshold, len(labels))
