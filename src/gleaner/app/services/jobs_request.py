"""What a training is asked to be, and whether it can be: checked before anything is queued."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from gleaner.app.errors import InvalidInput
from gleaner.wire.machine_config import NAME_PATTERN

TASKS = ("single_label_classification", "multi_label_classification", "object_detection")
CUSTOM = "custom"
"""The type of what a training script makes: whatever it says itself."""
SHORTEST_S, LONGEST_S, DEFAULT_S = 5.0, 86_400.0, 60.0
CUSTOM_DEFAULT_S = 6 * 3600.0
"""Of a script: it ends by itself; this is for one that hangs."""
_LONGEST_MODEL_NAME = 40
_MOST_ARGUMENTS, _LONGEST_ARGUMENT = 100, 4000
_ARGUMENT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_TAKEN = frozenset(
    {"dataset_file", "binary_data_file", "tabular_data_file", "sequences_file", "model_output_directory"}
)


@dataclass(frozen=True)
class TrainingRequest:
    dataset_id: str
    model_name: str
    model_type: str
    labels: list[str]
    organization_id: str = ""
    model_version: str = ""
    time_budget_s: float = DEFAULT_S
    backbone: str = ""
    """`hf:…` or `timm:…`; empty for Gleaner's own weights."""
    accept_license: bool = False


@dataclass(frozen=True)
class CustomRequest:
    """A run of a training script of the registry; the dataset is of the script's organization, too."""

    dataset_id: str
    organization_id: str
    script_name: str
    model_name: str
    script_version: str = "latest"
    model_version: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    container: str = ""
    time_budget_s: float = CUSTOM_DEFAULT_S


def checked_labels(request: TrainingRequest) -> list[str]:
    if request.model_type not in TASKS:
        raise InvalidInput(f"{request.model_type!r} is no type of model", f"Use one of {', '.join(TASKS)}.")
    check_frame(request.model_name, request.time_budget_s)
    labels = list(dict.fromkeys(label.strip() for label in request.labels if label.strip()))
    if not labels:
        raise InvalidInput("there is no label to learn", "Choose at least one tag of the dataset as a label.")
    return labels


def checked_backbone(request: TrainingRequest) -> dict[str, Any] | None:
    """As the job keeps it; None for Gleaner's own weights."""
    from gleaner.learn.backbone_name import check_backbone
    from gleaner.learn.errors import RunProblem

    try:
        name = check_backbone(request.backbone, request.model_type == "object_detection")
    except RunProblem as problem:
        raise InvalidInput(problem.message.rstrip("."), problem.hint) from problem
    return {"name": str(name), "accept_license": request.accept_license} if name else None


def check_frame(model_name: str, time_budget_s: float) -> None:
    """What every training has."""
    if not NAME_PATTERN.match(model_name) or len(model_name) > _LONGEST_MODEL_NAME:
        raise InvalidInput(
            f"{model_name!r} cannot name a model",
            f"Use up to {_LONGEST_MODEL_NAME} letters, digits, - and _, and start with a letter or digit.",
        )
    if not SHORTEST_S <= time_budget_s <= LONGEST_S:
        raise InvalidInput(
            f"{time_budget_s:g} s is no time for training", f"Choose {SHORTEST_S:g} to {LONGEST_S:g} seconds."
        )


def check_arguments(arguments: dict[str, str]) -> None:
    if len(arguments) > _MOST_ARGUMENTS:
        raise InvalidInput(f"{len(arguments)} arguments are too many", f"Send at most {_MOST_ARGUMENTS}.")
    for name, value in arguments.items():
        if not _ARGUMENT.fullmatch(name) or len(value) > _LONGEST_ARGUMENT or "\0" in value:
            raise InvalidInput(
                f"{name[:100]!r} cannot be an argument of a script",
                f"Names have letters, digits, - and _; values have up to {_LONGEST_ARGUMENT} characters.",
            )
        if name in _TAKEN:
            raise InvalidInput(f"the argument {name} is given by Gleaner", "Leave it out.")


def require_examples(labels: list[str], found: dict[str, Any]) -> None:
    counts = {entry["label"]: entry["count"] for entry in found.get("counts", [])}
    empty = [label for label in labels if not counts.get(label)]
    if empty:
        raise InvalidInput(
            f"no picture of the dataset has the label {empty[0]!r}",
            "Tag some pictures with it, or leave the label out.",
        )
    if len(labels) == 1 and "untagged" in found and not found["untagged"] and len(counts) < 2:
        raise InvalidInput(
            f"every picture is {labels[0]!r}: there is nothing to tell it apart from",
            "Add some pictures without that tag, or of something else.",
        )
