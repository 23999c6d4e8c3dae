"""report.json: what the model page shows. Format 1, as `docs/architecture.md` "Training run" and `docs/learning.md` tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gleaner.learn import metrics
from gleaner.learn.request import Example, RunRequest, Task
from gleaner.wire.picture import PictureProblem, Rgb, read_rgb, resize_rgb

NONE_OF_THESE = "none of these"
MOST_SAMPLES, MOST_LOOKED_AT = 100, 30
_SAMPLE_SIDE, _SAMPLE_QUALITY = 320, 85
_MOST_CELL_IDS = 200


LookedAt = Callable[[int, int, Rgb], Rgb]
"""(test picture, label, its small copy) → that copy with what spoke for the label made to stand out."""


@dataclass(frozen=True)
class Judged:
    """The model's answers on pictures it never saw."""

    examples: Sequence[Example]
    probabilities: NDArray[np.float64]
    targets: NDArray[np.bool_]


def describe_quality(request: RunRequest, test: Judged, curve_from: Judged, threshold: float) -> dict[str, Any]:
    """The report's figures: summary, per_label, confusion, threshold_curve."""
    single = request.task is Task.SINGLE_LABEL
    said = metrics.decide(test.probabilities, threshold, single)
    scores = metrics.label_scores(test.probabilities, said, test.targets)
    right = int((said == test.targets).all(1).sum()) if len(said) else 0
    tested = [score for score in scores if score.support]
    matrix, cells = metrics.confusion(said, test.targets)
    return {
        "summary": {
            "accuracy": short(right / len(said)) if len(said) else None,
            "accuracy_interval": [short(v) for v in metrics.wilson_interval(right, len(said))],
            "macro_f1": short(float(np.mean([s.f1 for s in tested]))) if tested else None,
            "test_count": len(said),
            "suggested_threshold": threshold,
            "ece": short(metrics.expected_calibration_error(test.probabilities, test.targets)),
        },
        "per_label": [
            {
                "label": label,
                "support": score.support,
                "precision": short(score.precision),
                "recall": short(score.recall),
                "f1": short(score.f1),
                "average_precision": None if score.average_precision is None else short(score.average_precision),
            }
            for label, score in zip(request.labels, scores, strict=True)
        ],
        "confusion": {
            "labels": [*request.labels, NONE_OF_THESE],
            "matrix": matrix.tolist(),
            "cells": {
                f"{row},{column}": [test.examples[i].id for i in pictures[:_MOST_CELL_IDS]]
                for (row, column), pictures in sorted(cells.items())
            },
        },
        "threshold_curve": [
            {"threshold": t, "precision": short(p), "recall": short(r), "f1": short(f)}
            for t, p, r, f in metrics.threshold_curve(curve_from.probabilities, curve_from.targets, single)
        ],
    }


def list_wrong(
    request: RunRequest, test: Judged, threshold: float, samples_dir: Path, looked_at: LookedAt
) -> list[dict[str, Any]]:
    """The wrong test pictures, the most confidently wrong first, the first hundred with a small copy in `samples_dir`, the first
    thirty also with what the model looked at for the label it found likeliest."""
    said = metrics.decide(test.probabilities, threshold, request.task is Task.SINGLE_LABEL)
    wrong = np.flatnonzero((said != test.targets).any(1))
    error = np.abs(test.probabilities - test.targets).max(1) if len(said) else np.zeros(0)
    samples_dir.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, index in enumerate(wrong[np.argsort(-error[wrong], kind="stable")].tolist()):
        example = test.examples[index]
        name = f"{number:03d}.jpg"
        sample = sample_of(example.path) if number < MOST_SAMPLES else None
        if sample is not None:
            write_jpeg(samples_dir / name, sample)
        seen = None
        if sample is not None and number < MOST_LOOKED_AT:
            label = int(test.probabilities[index].argmax())
            write_jpeg(samples_dir / f"{number:03d}-seen.jpg", looked_at(index, label, sample))
            seen = {"label": request.labels[label], "sample": f"{samples_dir.name}/{number:03d}-seen.jpg"}
        listed.append(
            {
                "id": example.id,
                "expected": sorted(example.labels, key=request.labels.index),
                "predicted": _strongest(request.labels, test.probabilities[index]),
                "sample": None if sample is None else f"{samples_dir.name}/{name}",
                "looked_at": seen,
            }
        )
    return listed


def _strongest(labels: Sequence[str], probabilities: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The three most likely labels."""
    order = np.argsort(-probabilities, kind="stable")[:3].tolist()
    return [{"label": labels[i], "confidence": short(float(probabilities[i]))} for i in order]


def sample_of(source: Path) -> Rgb | None:
    """A small copy, at most 320 pixels wide or high; None if it cannot be read."""
    try:
        picture = read_rgb(source.read_bytes())
    except (OSError, PictureProblem):
        return None
    scale = min(1.0, _SAMPLE_SIDE / max(picture.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return np.ascontiguousarray(resize_rgb(picture, height, width))


def write_jpeg(target: Path, picture: Rgb) -> None:
    import simplejpeg

    target.write_bytes(simplejpeg.encode_jpeg(picture, quality=_SAMPLE_QUALITY))


def write_sample(source: Path, target: Path) -> bool:
    picture = sample_of(source)
    if picture is None:
        return False
    write_jpeg(target, picture)
    return True


def short(value: float) -> float:
    return round(float(value), 5)
