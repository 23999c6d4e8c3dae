"""report.json: what the model page shows. Format 1, as `docs/architecture.md` "Training run" and `docs/learning.md` tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gleaner.learn import metrics
from gleaner.learn.request import Example, RunRequest, Task
from gleaner.wire.picture import PictureProblem, read_rgb, resize_rgb

NONE_OF_THESE = "none of these"
MOST_SAMPLES = 100
_SAMPLE_SIDE, _SAMPLE_QUALITY = 320, 85
_MOST_CELL_IDS = 200


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
            "accuracy": _short(right / len(said)) if len(said) else None,
            "accuracy_interval": [_short(v) for v in metrics.wilson_interval(right, len(said))],
            "macro_f1": _short(float(np.mean([s.f1 for s in tested]))) if tested else None,
            "test_count": len(said),
            "suggested_threshold": threshold,
            "ece": _short(metrics.expected_calibration_error(test.probabilities, test.targets)),
        },
        "per_label": [
            {
                "label": label,
                "support": score.support,
                "precision": _short(score.precision),
                "recall": _short(score.recall),
                "f1": _short(score.f1),
                "average_precision": None if score.average_precision is None else _short(score.average_precision),
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
            {"threshold": t, "precision": _short(p), "recall": _short(r), "f1": _short(f)}
            for t, p, r, f in metrics.threshold_curve(curve_from.probabilities, curve_from.targets, single)
        ],
    }


def list_wrong(request: RunRequest, test: Judged, threshold: float, samples_dir: Path) -> list[dict[str, Any]]:
    """The wrong test pictures, the most confidently wrong first, the first hundred with a small copy in `samples_dir`."""
    said = metrics.decide(test.probabilities, threshold, request.task is Task.SINGLE_LABEL)
    wrong = np.flatnonzero((said != test.targets).any(1))
    error = np.abs(test.probabilities - test.targets).max(1) if len(said) else np.zeros(0)
    samples_dir.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, index in enumerate(wrong[np.argsort(-error[wrong], kind="stable")].tolist()):
        example = test.examples[index]
        name = f"{number:03d}.jpg"
        has_sample = number < MOST_SAMPLES and _write_sample(example.path, samples_dir / name)
        listed.append(
            {
                "id": example.id,
                "expected": sorted(example.labels, key=request.labels.index),
                "predicted": _strongest(request.labels, test.probabilities[index]),
                "sample": f"{samples_dir.name}/{name}" if has_sample else None,
            }
        )
    return listed


def _strongest(labels: Sequence[str], probabilities: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The three most likely labels."""
    order = np.argsort(-probabilities, kind="stable")[:3].tolist()
    return [{"label": labels[i], "confidence": _short(float(probabilities[i]))} for i in order]


def _write_sample(source: Path, target: Path) -> bool:
    import simplejpeg

    try:
        picture = read_rgb(source.read_bytes())
    except (OSError, PictureProblem):
        return False
    scale = min(1.0, _SAMPLE_SIDE / max(picture.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    small = np.ascontiguousarray(resize_rgb(picture, height, width))
    target.write_bytes(simplejpeg.encode_jpeg(small, quality=_SAMPLE_QUALITY))
    return True


def _short(value: float) -> float:
    return round(float(value), 5)
