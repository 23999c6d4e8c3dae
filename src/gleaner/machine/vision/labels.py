"""Label files: which name belongs to which output of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class ModelAnswerProblem(ValueError):
    """A model's tensors or labels do not fit together; the message says which and what was expected."""


def parse_labels(text: str) -> list[str]:
    """One label per line, blank lines skipped; a single line is divided at commas, else at spaces (Viam's rule)."""
    lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines()]
    lines = [line for line in lines if line]
    if len(lines) != 1:
        return lines
    parts = lines[0].split(",") if "," in lines[0] else lines[0].split()
    return [part.strip() for part in parts if part.strip()]


def read_labels(path: str) -> list[list[str]]:
    """The ways to read a label file, Viam's first. A single line with spaces may also be the name of a model's only
    class ("red star"); the number of the model's answers decides.

    Raises:
        ModelAnswerProblem: the file cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelAnswerProblem(f"the label file {path} cannot be read: {error}") from error
    labels, whole = parse_labels(text), text.removeprefix("\ufeff").strip()
    return [labels, [whole]] if len(labels) > 1 and "\n" not in whole else [labels]


def label_of(index: int, labels: list[str]) -> str:
    """The number itself when there are no labels."""
    if not labels:
        return str(index)
    if not 0 <= index < len(labels):
        raise ModelAnswerProblem(f"the model answered class {index}, but there are only {len(labels)} labels")
    return labels[index]


class LabelFilter:
    """`label_confidences`, when given, is a whitelist with its own minimums and `minimum` is ignored (Viam's rule)."""

    def __init__(self, minimum: float, label_confidences: Mapping[str, float]) -> None:
        self._minimum = minimum
        self._by_label = {label.casefold(): least for label, least in label_confidences.items()}

    def passes(self, label: str, confidence: float) -> bool:
        if not self._by_label:
            return confidence >= self._minimum
        least = self._by_label.get(label.casefold())
        return least is not None and confidence >= least
