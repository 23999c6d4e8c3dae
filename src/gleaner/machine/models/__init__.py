"""The built-in models. A new one is a file here and a line in `NAMES`."""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module

from gleaner.machine.models.base import ModelSpec

NAMES: tuple[str, ...] = (
    "camera_sim",
    "camera_image_dir",
    "camera_image_file",
    "camera_video",
    "camera_webcam",
    "camera_transform",
    "base_sim",
    "sensor_system",
    "sensor_fake",
    "mlmodel_onnx",
    "mlmodel_tflite",
    "vision_mlmodel",
    "vision_color_detector",
    "data_manager",
)

_LOG = logging.getLogger(__name__)


@cache
def all_specs() -> tuple[ModelSpec, ...]:
    """Every model; a model whose file cannot be imported here is left out, with a warning, and the others work."""
    specs = []
    for name in NAMES:
        try:
            specs.append(load(name))
        except ImportError as error:
            _LOG.warning("model %s is not available on this machine: %s", name, error)
    return tuple(specs)


def load(name: str) -> ModelSpec:
    """The spec in one file of this folder. Raises ImportError."""
    spec = import_module(f"{__name__}.{name}").SPEC
    assert isinstance(spec, ModelSpec)
    return spec


def find(api: str, model: str) -> ModelSpec | None:
    """The spec for an API triplet and a model triplet; a model alias counts as the model."""
    for spec in all_specs():
        if spec.api == api and model in (spec.model, *spec.aliases):
            return spec
    return None
