"""The built-in models. A new one is a file here and a line in `MODELS`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module

from gleaner.machine.models.base import ModelSpec


@dataclass(frozen=True)
class Listed:
    """What is known of a model without its file: a machine loads only those that it is configured with."""

    file: str
    api: str
    model: str
    aliases: tuple[str, ...] = ()

    def load(self) -> ModelSpec:
        """Raises ImportError."""
        return load(self.file)


MODELS: tuple[Listed, ...] = (
    Listed("camera_sim", "rdk:component:camera", "gleaner:camera:sim", ("gleaner:builtin:sim", "rdk:builtin:sim")),
    Listed(
        "camera_image_dir",
        "rdk:component:camera",
        "gleaner:camera:image-dir",
        ("gleaner:builtin:image_dir", "rdk:builtin:image_dir"),
    ),
    Listed("camera_image_file", "rdk:component:camera", "rdk:builtin:image_file", ()),
    Listed(
        "camera_video",
        "rdk:component:camera",
        "gleaner:camera:video",
        ("gleaner:builtin:video", "rdk:builtin:ffmpeg", "viam:camera:ffmpeg"),
    ),
    Listed("camera_webcam", "rdk:component:camera", "rdk:builtin:webcam", ()),
    Listed("camera_transform", "rdk:component:camera", "rdk:builtin:transform", ()),
    Listed("base_sim", "rdk:component:base", "gleaner:base:sim", ("gleaner:builtin:sim", "rdk:builtin:sim")),
    Listed("sensor_system", "rdk:component:sensor", "gleaner:sensor:system", ()),
    Listed("sensor_fake", "rdk:component:sensor", "rdk:builtin:fake", ("gleaner:sensor:fake",)),
    Listed(
        "mlmodel_onnx",
        "rdk:service:mlmodel",
        "gleaner:mlmodel:onnx-cpu",
        ("viam:mlmodel-onnx:onnx-cpu", "rdk:builtin:onnx_cpu"),
    ),
    Listed("mlmodel_tflite", "rdk:service:mlmodel", "viam:mlmodel-tflite:tflite_cpu", ("rdk:builtin:tflite_cpu",)),
    Listed("vision_mlmodel", "rdk:service:vision", "rdk:builtin:mlmodel", ()),
    Listed("vision_color_detector", "rdk:service:vision", "rdk:builtin:color_detector", ()),
    Listed("data_manager", "rdk:service:data_manager", "rdk:builtin:builtin", ()),
)
"""A test holds it against the files."""
NAMES = tuple(listed.file for listed in MODELS)


@cache
def load(name: str) -> ModelSpec:
    """The spec in one file of this folder. Raises ImportError."""
    spec = import_module(f"{__name__}.{name}").SPEC
    assert isinstance(spec, ModelSpec)
    return spec


def find(api: str, model: str) -> ModelSpec | None:
    """The spec for an API triplet and a model triplet; a model alias counts as the model. Raises ImportError."""
    for listed in MODELS:
        if listed.api == api and model in (listed.model, *listed.aliases):
            return listed.load()
    return None
