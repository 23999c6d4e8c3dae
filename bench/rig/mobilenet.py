"""MobileNetV3-Small from scratch, as a peer: Howard et al. 2019, "Searching for MobileNetV3", table 2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: kernel, expanded channels, channels out, squeeze-and-excite, hard-swish, stride
_ROWS = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)


class MobileNetV3Small(nn.Module):
    """(N, 3, H, W) → (N, labels); 1.5 million parameters, as `Classifier` for `learn.fit`."""

    def __init__(self, label_count: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv(3, 16, 3, 2, nn.Hardswish)]
        channels = 16
        for kernel, expanded, out, excites, hard, stride in _ROWS:
            blocks.append(_Bneck(channels, expanded, out, kernel, stride, excites, nn.Hardswish if hard else nn.ReLU))
            channels = out
        blocks.append(_conv(channels, 576, 1, 1, nn.Hardswish))
        self.features = nn.Sequential(*blocks)
        self.between = nn.Sequential(nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2))
        self.head = nn.Linear(1024, label_count)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.between(self.features(x).mean((2, 3))))
        return found


class _Bneck(nn.Module):
    def __init__(
        self, inside: int, expanded: int, out: int, kernel: int, stride: int, excites: bool, act: type[nn.Module]
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(inside, expanded, 1, 1, act)] if expanded != inside else []
        layers.append(_conv(expanded, expanded, kernel, stride, act, groups=expanded))
        if excites:
            layers.append(_Excite(expanded))
        layers.append(nn.Sequential(nn.Conv2d(expanded, out, 1, bias=False), nn.BatchNorm2d(out, 1e-3, 0.01)))
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and inside == out

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return x + found if self.adds else found


class _Excite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        fewer = max(8, (channels // 4 + 4) // 8 * 8)
        self.down, self.up = nn.Conv2d(channels, fewer, 1), nn.Conv2d(fewer, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        share = self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True))))
        return x * nn.functional.hardsigmoid(share)


def _conv(inside: int, out: int, kernel: int, stride: int, act: type[nn.Module], groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inside, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out, 1e-3, 0.01), act())
