"""From a model's output tensors to boxes with labels and confidences, by Viam's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gleaner.machine.vision.labels import ModelAnswerProblem, label_of

LOCATION, CATEGORY, SCORE = "location", "category", "score"
DEFAULT_BOX_ORDER = (1, 0, 3, 2)
"""Top, left, bottom, right, as TensorFlow's detectors answer."""


@dataclass(frozen=True)
class Box:
    """Pixels of the original picture."""

    label: str
    confidence: float
    x_min: int
    y_min: int
    x_max: int
    y_max: int


@dataclass(frozen=True)
class DetectorNames:
    """Which of the model's outputs are which; `category` is None when `score` holds one number per class."""

    location: str
    score: str
    category: str | None


def find_outputs(outputs: Mapping[str, NDArray[Any]], remap: Mapping[str, str]) -> DetectorNames:
    """By remapped name, by the expected name, else by shape and kind of number.

    Raises:
        ModelAnswerProblem: boxes or scores cannot be told.
    """
    known: dict[str, str] = {}
    for expected in (LOCATION, CATEGORY, SCORE):
        own = next((name for name, to in remap.items() if to == expected and name in outputs), None)
        if own or expected in outputs:
            known[expected] = own or expected
    free = [name for name in outputs if name not in known.values()]
    if LOCATION not in known:
        _claim(known, free, LOCATION, next((n for n in free if _is_location(outputs[n])), None))
    single_score = SCORE in known and outputs[known[SCORE]].ndim == 3
    if CATEGORY not in known and not single_score and len(outputs) > 2:
        _claim(known, free, CATEGORY, next((n for n in free if _is_category(outputs[n], outputs)), None))
    if SCORE not in known:
        floats = [n for n in free if outputs[n].ndim in (2, 3) and np.issubdtype(outputs[n].dtype, np.floating)]
        _claim(known, free, SCORE, floats[0] if floats else None)
    if LOCATION not in known or SCORE not in known:
        listed = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise ModelAnswerProblem(f"boxes and scores cannot be told among the outputs {listed}; set remap_output_names")
    if CATEGORY not in known and outputs[known[SCORE]].ndim != 3:
        raise ModelAnswerProblem("no output holds the category of each box; set remap_output_names")
    return DetectorNames(known[LOCATION], known[SCORE], known.get(CATEGORY))


def decode_boxes(
    outputs: Mapping[str, NDArray[Any]],
    names: DetectorNames,
    labels: list[str],
    order: Sequence[int],
    input_size: tuple[int, int],
    picture_size: tuple[int, int],
) -> list[Box]:
    """All boxes, in the model's order. Sizes are (height, width).

    Raises:
        ModelAnswerProblem: sizes disagree, or a category has no label.
    """
    location = np.asarray(outputs[names.location], np.float64).reshape(-1)
    score, category = _scores(outputs, names)
    if not len(location) == 4 * len(score) == 4 * len(category):
        raise ModelAnswerProblem(
            f"{len(location)} box numbers, {len(score)} scores and {len(category)} categories do not belong together"
        )
    corners = location.reshape(-1, 4)[:, np.argsort(order)]  # now left, top, right, bottom
    if len(corners) and corners[0].sum() >= 4.0:  # pixels of the resized input
        corners = corners / np.array([input_size[1], input_size[0]] * 2, np.float64)
    height, width = picture_size
    pixels = (np.clip(corners, 0.0, 1.0) * np.array([width - 1, height - 1] * 2)).astype(int)
    found = zip(pixels.tolist(), score.tolist(), category.tolist(), strict=True)
    return [Box(label_of(max(0, c), labels), s, *corner) for corner, s, c in found]


def _scores(outputs: Mapping[str, NDArray[Any]], names: DetectorNames) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    score = np.asarray(outputs[names.score], np.float64)
    if names.category is None or score.ndim == 3:
        per_class = score.reshape(-1, score.shape[-1])
        category = per_class.argmax(1)
        return per_class[np.arange(len(per_class)), category], category
    return score.reshape(-1), np.asarray(outputs[names.category]).reshape(-1).astype(np.int64)


def _claim(known: dict[str, str], free: list[str], role: str, name: str | None) -> None:
    if name is not None:
        known[role] = name
        free.remove(name)


def _is_location(array: NDArray[Any]) -> bool:
    return array.ndim == 3 and array.shape[-1] == 4


def _is_category(array: NDArray[Any], outputs: Mapping[str, NDArray[Any]]) -> bool:
    """Two dimensions and whole numbers, judged on as many as the model says it detected."""
    if array.ndim != 2:
        return False
    if np.issubdtype(array.dtype, np.integer):
        return True
    counts = [a for a in outputs.values() if a.ndim == 1 and a.size == 1]
    count = int(counts[0][0]) if counts else array.size
    total = float(array.reshape(-1)[:count].sum())
    return total == int(total)
