"""A detector's report.json: the classifier's figures where they mean the same, counted in boxes at IoU 0.5, and COCO's mAP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gleaner.learn import metrics
from gleaner.learn.detect import quality
from gleaner.learn.detect.network import Found
from gleaner.learn.detect.scenes import Boxes
from gleaner.learn.report import MOST_SAMPLES, NONE_OF_THESE, sample_of, short, write_jpeg
from gleaner.learn.request import Example, RunRequest

_MOST_CELL_IDS = 200
_EXPECTED, _SAID = (40, 200, 90), (255, 90, 60)
"""RGB of the boxes drawn into samples."""


@dataclass(frozen=True)
class JudgedBoxes:
    """The model's answers on pictures it never saw; `size` (height, width) is that of all boxes' pixels."""

    examples: Sequence[Example]
    found: Sequence[Found]
    truths: Sequence[Boxes]
    size: tuple[int, int]


@dataclass(frozen=True)
class _Pairs:
    """One picture's (expected label, said label) pairs; the number of labels stands for nothing. `said`: its boxes above the threshold."""

    pairs: list[tuple[int, int]]
    said: list[int]

    @property
    def is_right(self) -> bool:
        return all(expected == said for expected, said in self.pairs)


def suggest_threshold(judged: JudgedBoxes, label_count: int) -> float:
    """Where F1 over all boxes is best; of a flat top the middle of the part nearest to one half."""
    got = quality.answers(judged.found, judged.truths, label_count)
    if not got.true_counts.sum():
        return 0.5
    rates = [f1 for _, _, _, f1 in _curve(got)]
    return metrics.middle_of_best(rates)


def describe_quality(
    request: RunRequest, test: JudgedBoxes, curve_from: JudgedBoxes, threshold: float
) -> dict[str, Any]:
    """The report's figures: summary, per_label, confusion, threshold_curve."""
    labels = request.labels
    got = quality.answers(test.found, test.truths, len(labels))
    said, right = got.counted(threshold)
    per_label = []
    for number, label in enumerate(labels):
        support = int(got.true_counts[number])
        precision, recall, f1 = quality.precision_recall_f1(int(right[number]), int(said[number]), support)
        precisions = [
            quality.average_precision(quality.match(test.found, test.truths, number, overlap))
            for overlap in quality.OVERLAPS
        ]
        known = [value for value in precisions if value is not None]
        per_label.append(
            {
                "label": label,
                "support": support,
                "precision": short(precision),
                "recall": short(recall),
                "f1": short(f1),
                "average_precision": short(known[0]) if known else None,
                "average_precision_50_95": short(float(np.mean(known))) if known else None,
            }
        )
    pairs = [_pairs(found, truth, threshold, len(labels)) for found, truth in zip(test.found, test.truths, strict=True)]
    whole = sum(each.is_right for each in pairs)
    tested = [each for each in per_label if each["support"]]
    curve = quality.answers(curve_from.found, curve_from.truths, len(labels))
    return {
        "summary": {
            "accuracy": short(whole / len(pairs)) if pairs else None,
            "accuracy_interval": [short(v) for v in metrics.wilson_interval(whole, len(pairs))],
            "macro_f1": short(float(np.mean([each["f1"] for each in tested]))) if tested else None,
            "test_count": len(pairs),
            "box_count": int(got.true_counts.sum()),
            "map50": _optional(quality.map50(test.found, test.truths)),
            "map50_interval": _interval(quality.map50_interval(test.found, test.truths, request.seed)),
            "map50_95": _optional(quality.map50_95(test.found, test.truths)),
            "suggested_threshold": threshold,
            "ece": short(_ece(got)),
        },
        "per_label": per_label,
        "confusion": _confusion(labels, test.examples, pairs),
        "threshold_curve": [
            {"threshold": t, "precision": short(p), "recall": short(r), "f1": short(f)} for t, p, r, f in _curve(curve)
        ],
    }


def list_wrong(request: RunRequest, test: JudgedBoxes, threshold: float, samples_dir: Path) -> list[dict[str, Any]]:
    """The test pictures with a missed, a wrong or an invented box, the most mistakes first, the first hundred with a small copy in
    `samples_dir` that has the expected boxes in green and the said ones in red."""
    samples_dir.mkdir(parents=True, exist_ok=True)
    none = len(request.labels)
    judged = [_pairs(found, truth, threshold, none) for found, truth in zip(test.found, test.truths, strict=True)]
    mistakes = [sum(expected != said for expected, said in each.pairs) for each in judged]
    listed = []
    for number, index in enumerate(i for i in np.argsort(-np.array(mistakes), kind="stable").tolist() if mistakes[i]):
        example, found, each = test.examples[index], test.found[index], judged[index]
        name = f"{number:03d}.jpg"
        said = [(request.labels[int(found.labels[i])], float(found.scores[i])) for i in each.said]
        has_sample = number < MOST_SAMPLES and write_boxes_sample(test, index, each.said, samples_dir / name)
        listed.append(
            {
                "id": example.id,
                "expected": sorted((box.label for box in example.boxes), key=request.labels.index),
                "predicted": [{"label": label, "confidence": short(score)} for label, score in said],
                "sample": f"{samples_dir.name}/{name}" if has_sample else None,
            }
        )
    return listed


def calibration_error(judged: JudgedBoxes, label_count: int) -> float:
    return _ece(quality.answers(judged.found, judged.truths, label_count))


def _ece(got: quality.Answers) -> float:
    shown = got.scores >= quality.CALIBRATED_FROM
    return metrics.expected_calibration_error(got.scores[shown], got.right[shown])


def _curve(got: quality.Answers) -> list[tuple[float, float, float, float]]:
    true = int(got.true_counts.sum())
    points = []
    for threshold in metrics.THRESHOLDS:
        said, right = got.counted(threshold)
        points.append((threshold, *quality.precision_recall_f1(int(right.sum()), int(said.sum()), true)))
    return points


def _pairs(found: Found, truth: Boxes, threshold: float, none: int) -> _Pairs:
    """Each true box takes the free said box that overlaps it most (at least half), whatever its label."""
    said = [i for i, score in enumerate(found.scores.tolist()) if score >= threshold]
    labels, said_labels = truth[:, 0].astype(int).tolist(), found.labels[said].tolist()
    common = quality.overlaps(truth[:, 1:], found.boxes.numpy()[said])
    missed, invented = set(range(len(labels))), set(range(len(said)))
    pairs = []
    while missed and invented:
        row, column = (int(i) for i in np.unravel_index(int(common.argmax()), common.shape))
        if common[row, column] < 0.5:
            break
        pairs.append((labels[row], said_labels[column]))
        missed.remove(row)
        invented.remove(column)
        common[row, :], common[:, column] = -1, -1
    pairs += [(labels[row], none) for row in sorted(missed)]
    pairs += [(none, said_labels[column]) for column in sorted(invented)]
    return _Pairs(pairs, said)


def has_every_box(found: Found, truth: Boxes, threshold: float, label_count: int) -> bool:
    """Whether the boxes above the threshold are the true ones, with their labels, and no others."""
    return _pairs(found, truth, threshold, label_count).is_right


def _confusion(labels: Sequence[str], examples: Sequence[Example], pairs: Sequence[_Pairs]) -> dict[str, Any]:
    matrix = np.zeros((len(labels) + 1, len(labels) + 1), np.int64)
    cells: dict[tuple[int, int], list[str]] = {}
    for example, each in zip(examples, pairs, strict=True):
        for pair in each.pairs:
            matrix[pair] += 1
            ids = cells.setdefault(pair, [])
            if example.id not in ids[-1:] and len(ids) < _MOST_CELL_IDS:
                ids.append(example.id)
    return {
        "labels": [*labels, NONE_OF_THESE],
        "matrix": matrix.tolist(),
        "cells": {f"{row},{column}": ids for (row, column), ids in sorted(cells.items())},
    }


def write_boxes_sample(test: JudgedBoxes, index: int, said: Sequence[int], target: Path) -> bool:
    """A small copy with the expected boxes in green and the said ones in red; False if the picture cannot be read."""
    picture = sample_of(test.examples[index].path)
    if picture is None:
        return False
    height, width = picture.shape[:2]
    scale = np.array([width, height, width, height]) / np.array([test.size[1], test.size[0]] * 2)
    boxes = [(box, _EXPECTED, 3) for box in test.truths[index][:, 1:]]
    boxes += [(box, _SAID, 1) for box in test.found[index].boxes.numpy()[list(said)]]
    for box, colour, thickness in boxes:
        x0, y0, x1, y1 = (round(float(edge)) for edge in box * scale)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, thickness)
    write_jpeg(target, picture)
    return True


def _optional(value: float | None) -> float | None:
    return None if value is None else short(value)


def _interval(values: tuple[float, float] | None) -> list[float] | None:
    return None if values is None else [short(value) for value in values]
