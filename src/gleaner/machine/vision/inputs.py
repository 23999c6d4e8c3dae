"""From a picture to the tensor a model wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gleaner.machine.vision.labels import ModelAnswerProblem
from gleaner.wire.picture import Rgb, resize_rgb

EXPECTED_INPUT = "image"


@dataclass(frozen=True)
class InputLayout:
    """How the model's first input wants its picture. Sizes are None where the model takes any."""

    name: str
    dtype: str
    channels_first: bool
    height: int | None
    width: int | None

    @property
    def size(self) -> tuple[int, int] | None:
        return (self.height, self.width) if self.height and self.width else None


@dataclass(frozen=True)
class Normalization:
    """Applied to float inputs only: `(pixel / 255 - mean) / std` per channel, in the order the model gets them."""

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    bgr: bool = False


def input_layout(name: str, dtype: str, shape: Sequence[int], remap: Mapping[str, str]) -> InputLayout:
    """From the first input's metadata. `remap` maps the model's names to expected ones.

    Raises:
        ModelAnswerProblem: fewer than four dimensions, or numbers that are neither uint8 nor float32.
    """
    if len(shape) < 4:
        raise ModelAnswerProblem(f"input {name!r} has shape {list(shape)}; a picture needs four dimensions")
    if dtype not in ("uint8", "float32"):
        raise ModelAnswerProblem(f"input {name!r} takes {dtype}; only uint8 and float32 pictures can be made")
    first_three = list(shape).index(3) if 3 in shape else -1
    channels_first = first_three == 1
    height, width = (shape[2], shape[3]) if channels_first else (shape[1], shape[2])
    sent = next((own for own, expected in remap.items() if expected == EXPECTED_INPUT), name)
    return InputLayout(sent, dtype, channels_first, height if height > 0 else None, width if width > 0 else None)


def make_input(picture: Rgb, layout: InputLayout, normalization: Normalization) -> NDArray[np.generic]:
    """(1, H, W, 3) or (1, 3, H, W), uint8 or float32."""
    height, width = layout.height or picture.shape[0], layout.width or picture.shape[1]
    pixels = resize_rgb(picture, height, width)
    if normalization.bgr:
        pixels = pixels[..., ::-1]
    tensor: NDArray[np.generic] = pixels
    if layout.dtype == "float32":
        mean, std = (np.array(v[:3], np.float32) for v in (normalization.mean, normalization.std))
        tensor = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    if layout.channels_first:
        tensor = tensor.transpose(2, 0, 1)
    return np.ascontiguousarray(tensor[None])
