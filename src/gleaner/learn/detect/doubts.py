"""Boxes that are likely wrong: missing ones, ones with another label, and ones around nothing.

What the detector says surely although nobody boxed it counts most where it learned from that very picture: it was taught there
that this is background, and did not believe it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from gleaner.learn.detect import quality
from gleaner.learn.detect.network import Found
from gleaner.learn.detect.report import JudgedBoxes, write_boxes_sample
from gleaner.learn.detect.scenes import Boxes
from gleaner.learn.metrics import Floats
from gleaner.learn.report import short
from gleaner.learn.request import RunRequest

MOST_DOUBTS = 60
FREE, SAME = 0.3, 0.5
"""Overlap (IoU) below which a said box is of no true one, and from which it is of that one."""
SURE, HARDLY = 0.7, 0.05
"""Calibrated scores."""
_BATCH = 16

InTime = Callable[[float], bool]


class Kind(StrEnum):
    MISSING = "missing"
    LABEL = "label"
    NOTHING = "nothing"


@dataclass(frozen=True)
class BoxDoubt:
    kind: Kind
    confidence: float
    label: int | None
    """That the box carries; None for a missing one."""
    said: int | None
    """Number of the said box; None where there is nothing."""


def find_box_doubts(found: Found, truth: Boxes, usual: Floats) -> list[BoxDoubt]:
    """Of one picture. `usual`: mean score that true boxes of each label get."""
    scores, labels = found.scores.numpy(), found.labels.numpy()
    common = quality.overlaps(truth[:, 1:], found.boxes.numpy())
    doubts = []
    nearest = common.max(0) if len(truth) else np.zeros(len(scores))
    for said in np.flatnonzero((scores >= SURE) & (nearest < FREE)).tolist():
        doubts.append(BoxDoubt(Kind.MISSING, float(scores[said]), None, said))
    for row, label in enumerate(truth[:, 0].astype(int).tolist()):
        here = common[row] >= SAME
        own = scores[here & (labels == label)].max(initial=0.0)
        other = np.flatnonzero(here & (labels != label) & (scores >= SURE))
        if own < HARDLY and len(other):
            best = int(other[scores[other].argmax()])
            doubts.append(BoxDoubt(Kind.LABEL, float(scores[best]), label, best))
        elif usual[label] >= SURE and scores[common[row] >= FREE].max(initial=0.0) < HARDLY:
            doubts.append(BoxDoubt(Kind.NOTHING, float(usual[label]), label, None))
    return doubts


def usual_scores(judged: Sequence[JudgedBoxes], label_count: int) -> Floats:
    """Mean score of the true boxes of each label; nought where too few tell."""
    got: list[list[float]] = [[] for _ in range(label_count)]
    for each in judged:
        for found, truth in zip(each.found, each.truths, strict=True):
            common = quality.overlaps(truth[:, 1:], found.boxes.numpy())
            for row, label in enumerate(truth[:, 0].astype(int).tolist()):
                mine = (common[row] >= SAME) & (found.labels.numpy() == label)
                got[label].append(float(found.scores.numpy()[mine].max(initial=0.0)))
    return np.array([float(np.mean(one)) if len(one) >= 4 else 0.0 for one in got])


def review_boxes(
    request: RunRequest,
    kept: Sequence[tuple[str, JudgedBoxes]],
    learned: Sequence[int],
    judge: Callable[[Sequence[int]], JudgedBoxes],
    samples_dir: Path,
    in_time: InTime,
) -> dict[str, Any]:
    """`label_errors` of a detector's report: of the parts kept from training, then of as many of those learned from as there is
    time for."""
    usual = usual_scores([judged for _, judged in kept], len(request.labels))
    parts, checked = list(kept), sum(len(judged.examples) for _, judged in kept)
    for begin in range(0, len(learned), _BATCH):
        if not in_time(1.0):
            break
        parts.append(("train", judge(learned[begin : begin + _BATCH])))
        checked += len(parts[-1][1].examples)
    listed = []
    for part, judged in parts:
        for index, (found, truth) in enumerate(zip(judged.found, judged.truths, strict=True)):
            if doubts := find_box_doubts(found, truth, usual):
                listed.append((max(one.confidence for one in doubts), part, judged, index, doubts))
    listed.sort(key=lambda one: (-one[0], one[2].examples[one[3]].id))
    samples_dir.mkdir(parents=True, exist_ok=True)
    return {
        "checked": checked,
        "reason": "",
        "pictures": [_entry(request, samples_dir, number, *one[1:]) for number, one in enumerate(listed[:MOST_DOUBTS])],
    }


def _entry(
    request: RunRequest,
    samples_dir: Path,
    number: int,
    part: str,
    judged: JudgedBoxes,
    index: int,
    doubts: list[BoxDoubt],
) -> dict[str, Any]:
    example, labels = judged.examples[index], judged.found[index].labels.tolist()
    name = f"tag-{number:03d}.jpg"
    said = [one.said for one in doubts if one.said is not None]
    drawn = write_boxes_sample(judged, index, said, samples_dir / name)
    boxes = [
        {
            "kind": one.kind.value,
            "label": None if one.label is None else request.labels[one.label],
            "suggested": None if one.said is None else request.labels[labels[one.said]],
            "confidence": short(one.confidence),
        }
        for one in doubts
    ]
    return {
        "id": example.id,
        "expected": sorted((box.label for box in example.boxes), key=request.labels.index),
        "suggested": [box["suggested"] for box in boxes if box["suggested"]],
        "confidence": short(max(one.confidence for one in doubts)),
        "boxes": boxes,
        "part": part,
        "sample": f"{samples_dir.name}/{name}" if drawn else None,
    }
