"""The network: a small residual trunk that halves the picture early, a two-step feature pyramid and one linear layer.

About 1.2 million parameters. Strides 2 and 4 come first so that most work happens on few pixels (the CPU's time goes into
the first layers otherwise). Every map is pooled by mean and by maximum: the mean alone washes out an object that fills
two per cent of the picture. `export.py` writes the same layers as an ONNX graph, so a change here needs one there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib.resources import files
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gleaner.learn.picture_file import Pictures
from gleaner.wire.picture import Rgb

MEAN, STD = 0.45, 0.25
"""Of the scaled channels; one value for all three keeps the graph and the augmentation simple."""
_DEEP, _NECK = 192, 64


class ConvUnit(nn.Module):
    """Convolution, batch norm and, unless it ends a residual branch, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, activate: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return functional.silu(x, inplace=True) if self.activate else x


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels)
        self.second = ConvUnit(channels, channels, activate=False)
        nn.init.zeros_(self.second.norm.weight)  # starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(x + self.second(self.first(x)))


class Trunk(nn.Module, ABC):
    """Maps of a picture, each pooled by its mean and by its maximum."""

    features: int
    """How many numbers that makes."""

    @abstractmethod
    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, channels, h, w) each, of normalized (N, 3, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = [pool for feature in self.maps(x) for pool in (feature.mean((2, 3)), feature.amax((2, 3)))]
        return torch.cat(pooled, 1)


class Backbone(Trunk):
    """(N, 3, H, W) normalized → (N, 512): mean and maximum of the stride-32 and the stride-8 map."""

    features = 2 * (_DEEP + _NECK)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvUnit(3, 24, stride=2), ConvUnit(24, 24, stride=2))
        self.stage8 = nn.Sequential(ConvUnit(24, 48, stride=2), Residual(48))
        self.stage16 = nn.Sequential(ConvUnit(48, 96, stride=2), Residual(96))
        self.stage32 = nn.Sequential(ConvUnit(96, _DEEP, stride=2), Residual(_DEEP))
        self.lateral8, self.lateral16, self.lateral32 = (ConvUnit(c, _NECK, kernel=1) for c in (48, 96, _DEEP))
        self.smooth16, self.smooth8 = ConvUnit(_NECK, _NECK), ConvUnit(_NECK, _NECK)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The stride-32 map (N, 192, H/32, W/32) and the stride-8 map that has seen it (N, 64, H/8, W/8)."""
        at8 = self.stage8(self.stem(x))
        at16 = self.stage16(at8)
        at32 = self.stage32(at16)
        mixed16 = self.smooth16(self.lateral16(at16) + _grow(self.lateral32(at32), at16))
        return at32, self.smooth8(self.lateral8(at8) + _grow(mixed16, at8))


class Classifier(nn.Module):
    """Backbone, dropout and one logit per label; a sigmoid turns each into its own yes or no."""

    def __init__(self, label_count: int, backbone: Trunk | None = None) -> None:
        super().__init__()
        self.backbone = backbone or Backbone()
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(self.backbone.features, label_count)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.dropout(self.backbone(x))))


def build_classifier(label_count: int, pretrained: bool = True, backbone: Trunk | None = None) -> Classifier:
    """Over `backbone` as it is, or else Gleaner's own, with the starting weights if `pretrained`."""
    if backbone is None:
        backbone = Backbone()
        if pretrained:
            load_backbone(backbone)
    network = Classifier(label_count, backbone)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def load_backbone(backbone: Backbone) -> None:
    """Fills in the starting weights that come with Gleaner (`weights/README.md`)."""
    with files("gleaner.learn.weights").joinpath("backbone.npz").open("rb") as file, np.load(file) as arrays:
        state = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    wrong = [name for name in missing if not name.endswith("num_batches_tracked")] + list(unexpected)
    if wrong:
        raise ValueError(f"backbone.npz does not fit the network: {', '.join(wrong[:5])}")


def planar(pictures: Rgb) -> Tensor:
    """(N, 3, H, W) of (N, H, W, 3), in the same memory."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def normalize(pixels: Tensor) -> Tensor:
    """Float pixels in 0–1, (N, 3, H, W), to what the network expects."""
    return ((pixels - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def prepared(pictures: Rgb) -> Tensor:
    """What the network expects, (N, 3, H, W), of pictures (N, H, W, 3)."""
    return normalize(planar(pictures).float() / 255)


def prepared_batches(pictures: Pictures, size: int) -> Iterator[Tensor]:
    """All of them, `size` at a time."""
    for start in range(0, len(pictures), size):
        yield prepared(pictures[start : start + size])


def parameter_count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _grow(small: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(small, size=like.shape[2:], mode="nearest")
