"""The built-in models. A new one is a file here and a line in `NAMES`."""

from __future__ import annotations

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


@cache
def all_specs() -> tuple[ModelSpec, ...]:
    return tuple(import_module(f"{__name__}.{name}").SPEC for name in NAMES)


def find(api: str, model: str) -> ModelSpec | None:
    """The spec for an API triplet and a model triplet; a model alias counts as the model."""
    for spec in all_specs():
        if spec.api == api and model in (spec.model, *spec.aliases):
            return spec
    return None
