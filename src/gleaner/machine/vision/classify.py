"""From a model's output tensors to labels with confidences, by Viam's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gleaner.machine.vision.labels import LabelFilter, ModelAnswerProblem, label_of

PROBABILITY = "probability"


def decode_classes(
    outputs: Mapping[str, NDArray[Any]], remap: Mapping[str, str], labels: list[str]
) -> list[tuple[str, float]]:
    """Every label with its confidence, in the model's order.

    Raises:
        ModelAnswerProblem: no output can be the probabilities, or their number is not that of the labels.
    """
    scores = _to_confidences(_probabilities(outputs, remap))
    if labels and len(labels) != len(scores):
        raise ModelAnswerProblem(f"the model answers {len(scores)} classes, but there are {len(labels)} labels")
    return [(label_of(i, labels), float(score)) for i, score in enumerate(scores)]


def select_classes(classes: Sequence[tuple[str, float]], keep: LabelFilter, count: int) -> list[tuple[str, float]]:
    """Those that pass, the `count` most confident first; all in the model's order when count ≤ 0."""
    passing = [(label, confidence) for label, confidence in classes if keep.passes(label, confidence)]
    if count <= 0:
        return passing
    return sorted(passing, key=lambda item: -item[1])[:count]


def _probabilities(outputs: Mapping[str, NDArray[Any]], remap: Mapping[str, str]) -> NDArray[np.float64]:
    names = [own for own, expected in remap.items() if expected == PROBABILITY and own in outputs]
    names += [PROBABILITY] if PROBABILITY in outputs else []
    names += list(outputs) if len(outputs) == 1 else []
    if not names:
        listed = ", ".join(sorted(outputs))
        raise ModelAnswerProblem(f"no output named {PROBABILITY!r} among {listed}; set remap_output_names")
    return np.asarray(outputs[names[0]], dtype=np.float64).ravel()


def _to_confidences(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits become a softmax, or a sigmoid when there is only one; then percentages become shares."""
    if len(values) > 1 and (values.min() < 0 or values.max() > 1):
        powers = np.exp(values - values.max())
        values = powers / powers.sum()
    elif len(values) == 1 and abs(values[0]) > 1:
        values = np.exp(-np.logaddexp(0.0, -values))
    values = np.where(values < 0, 0.0, values)
    return np.where(values > 1, values / 100, values)
