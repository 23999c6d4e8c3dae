"""What a run is asked to do: `run.json` and the dataset in Viam's export format, checked before anything slow starts."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gleaner.learn.errors import RunProblem
from gleaner.wire.validation_words import in_words

FEWEST_PER_LABEL = 2
"""One to learn from and one to test with."""
NOT_ACCEPTED = "has a model's boxes that nobody has accepted"
"""Such a picture is neither learned from nor tested on: its boxes may be wrong, and without them their things would be
taught to be background."""


class Task(StrEnum):
    SINGLE_LABEL = "single_label_classification"
    MULTI_LABEL = "multi_label_classification"
    DETECTION = "object_detection"


class RunRequest(BaseModel):
    """`run.json`."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    task: Task
    labels: tuple[str, ...] = Field(min_length=1, description="Labels to learn; other tags of the dataset are ignored.")
    dataset: str = Field(default="dataset.jsonl", description="File of examples, relative to the run directory.")
    seed: int = 0
    budget_s: float = Field(default=60.0, gt=0, le=7 * 86400, description="Wall-clock seconds until training stops.")
    output_dir: str = "out"
    model_name: str = "model"
    model_version: str = ""
    dataset_hash: str = ""
    previous_version: str = Field(
        default="", description="That of the files in the folder `previous`, with which the new model is compared."
    )
    backbone: str = Field(
        default="", description="What a classifier starts from instead of Gleaner's own weights (`backbone_name.py`)."
    )
    accept_license: bool = Field(default=False, description="Whatever the backbone's licence is.")
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)


@dataclass(frozen=True)
class LabelledBox:
    """Edges as shares of the picture, 0–1."""

    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True)
class Example:
    """One picture of the dataset. `labels` and `boxes` hold only labels that the run asked for."""

    id: str
    path: Path
    labels: frozenset[str]
    taken_s: float | None
    """Capture time, seconds since the epoch."""
    component: str
    """Part and component that took it; bursts are looked for within one."""
    boxes: tuple[LabelledBox, ...] = ()
    """Empty unless the task is detection; then `labels` are those of the boxes."""
    split: str = ""
    """`train`, `val` or `test` where the dataset says it."""


@dataclass(frozen=True)
class Skipped:
    id: str
    reason: str


def read_request(run_dir: Path) -> RunRequest:
    """Raises RunProblem naming every wrong field, or for a task this version cannot do."""
    path = run_dir / "run.json"
    try:
        request = RunRequest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RunProblem(
            f"The run description {path} cannot be read: {error.strerror}.", "Start the training again."
        ) from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {in_words(e)}" for e in error.errors())
        raise RunProblem(f"The run description {path} is not valid: {wrong}.", "Start the training again.") from error
    if len(set(request.labels)) != len(request.labels):
        raise RunProblem("A label is listed twice.", "Choose each label once.")
    if any("\n" in label or "\r" in label or not label.strip() for label in request.labels):
        raise RunProblem(
            "A label is empty or has a line break in it.", "Rename that tag; labels are kept one per line."
        )
    return request


def read_examples(run_dir: Path, request: RunRequest) -> tuple[list[Example], list[Skipped]]:
    """The dataset's pictures with the chosen labels; what cannot be used is listed, not fatal."""
    path = run_dir / request.dataset
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunProblem(f"The dataset file {path} cannot be read: {error}.", "Start the training again.") from error
    examples: list[Example] = []
    skipped: list[Skipped] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = _read_line(line, number, run_dir, request)
        if isinstance(found, Skipped):
            skipped.append(found)
        elif found.id in seen:
            skipped.append(Skipped(found.id, "listed twice in the dataset"))
        else:
            seen.add(found.id)
            examples.append(found)
    return examples, skipped


def not_accepted(skipped: Sequence[Skipped]) -> int:
    """Pictures that a model boxed and nobody has looked at."""
    return sum(one.reason.startswith(NOT_ACCEPTED) for one in skipped)


def check_examples(label_sets: Sequence[frozenset[str]], request: RunRequest, waiting: int = 0) -> list[str]:
    """Warnings about a thin dataset, of which `waiting` pictures are left out as not accepted yet.

    Raises RunProblem when nothing useful can come of it.
    """
    counts = {label: sum(label in labels for labels in label_sets) for label in request.labels}
    boxes = request.task is Task.DETECTION
    few = [f"“{label}” has {count}" for label, count in counts.items() if count < FEWEST_PER_LABEL]
    if few and waiting:
        raise RunProblem(
            f"Too few pictures that somebody has looked at: {', '.join(few)}; each label needs at least "
            f"{FEWEST_PER_LABEL}. {waiting} more have a model's boxes that nobody has accepted.",
            "Accept those that are right: one by one in the box editor, or the surest of the dataset at once.",
        )
    if few:
        raise RunProblem(
            f"Too few pictures: {', '.join(few)}; each label needs at least {FEWEST_PER_LABEL}.",
            f"{'Draw boxes in' if boxes else 'Tag'} more pictures with it (10 or more work well), or leave the label out.",
        )
    unlabelled = sum(not labels for labels in label_sets)
    if len(request.labels) == 1 and not unlabelled and not boxes:
        raise RunProblem(
            f"All pictures are “{request.labels[0]}”: there is nothing to tell it apart from.",
            "Add pictures without that tag to the dataset, or choose a second label.",
        )
    warnings = []
    if waiting:
        warnings.append(f"Left out: {waiting} pictures with a model's boxes that nobody has accepted.")
    thin = [f"“{label}” ({count})" for label, count in counts.items() if count < 10]
    if thin:
        warnings.append(f"Few pictures of {', '.join(thin)}: below 10 the result is often weak. Add more if you can.")
    if boxes and unlabelled:
        warnings.append(
            f"Pictures without a box of the chosen labels: {unlabelled}. They teach what is none of these; "
            "remove from the dataset what nobody has looked at yet."
        )
    if not boxes and not unlabelled:
        warnings.append(
            "No untagged pictures: the model cannot learn what “none of these” looks like. "
            "Add some pictures that show none of the labels."
        )
    return warnings


def _read_line(line: str, number: int, run_dir: Path, request: RunRequest) -> Example | Skipped:
    boxes: tuple[LabelledBox, ...] = ()
    try:
        value: Any = json.loads(line)
        picture_id = str(value.get("binary_data_id") or value["image_path"])
        path = run_dir / value["image_path"]
        if request.task is Task.DETECTION:
            notes = [a for a in value.get("bounding_box_annotations") or () if a["annotation_label"] in request.labels]
            waiting = sum(a.get("confidence") is not None for a in notes)
            if waiting:
                return Skipped(picture_id, f"{NOT_ACCEPTED} ({waiting})")
            boxes = _boxes(notes)
            labels = frozenset(box.label for box in boxes)
        else:
            tags = {str(a["annotation_label"]) for a in value.get("classification_annotations") or ()}
            labels = frozenset(tags & set(request.labels))
        component = f"{value.get('part_id') or ''}/{value.get('component_name') or ''}"
        taken_s = _seconds(value.get("timestamp"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Skipped(f"line {number}", f"the dataset line cannot be read ({error!r})")
    if request.task is Task.SINGLE_LABEL and len(labels) > 1:
        listed = ", ".join(sorted(labels))
        return Skipped(picture_id, f"has {len(labels)} of the chosen labels ({listed}); a single-label model needs one")
    return Example(picture_id, path, labels, taken_s, component, boxes, str(value.get("split") or ""))


def _boxes(values: Sequence[Any]) -> tuple[LabelledBox, ...]:
    """Clipped to the picture. Raises ValueError for one that has no area there."""
    found = []
    for value in values:
        edges = [float(value[f"{edge}_normalized"]) for edge in ("x_min", "y_min", "x_max", "y_max")]
        x_min, y_min, x_max, y_max = (min(1.0, max(0.0, edge)) for edge in edges)
        if not (x_min < x_max and y_min < y_max):
            raise ValueError(f"a box of {value['annotation_label']!r} has no area: {edges}")
        found.append(LabelledBox(value["annotation_label"], x_min, y_min, x_max, y_max))
    return tuple(found)


def _seconds(timestamp: object) -> float | None:
    if not isinstance(timestamp, str) or not timestamp:
        return None
    try:
        return datetime.fromisoformat(timestamp.replace(" +0000 UTC", "+00:00")).timestamp()
    except ValueError:
        return None
