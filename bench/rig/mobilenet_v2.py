"""MobileNetV2 with 35 % of its channels under a small head, as Frigate trains its classifiers: a peer.

Network: Sandler et al. 2018, "MobileNetV2", table 2. Recipe: Frigate's `frigate/util/classification.py` (0.17): 224×224, pixels / 255,
no augmentation, 128 hidden units, dropout 0.3, cross-entropy, Adam 1e-3, batches of 16. It begins with ImageNet's weights and learns
the head alone; these cannot be had without a network, so here all layers learn, from scratch, for the seconds that are given, and of
all pictures instead of four fifths.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SIZE = (224, 224)
_BATCH = 16
_ALPHA = 0.35
#: expansion, channels, repeats, stride
_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class FrigateClassifier(nn.Module):
    """(N, 3, 224, 224) in 0–1 → (N, labels) logits."""

    def __init__(self, label_count: int) -> None:
        super().__init__()
        inside = _channels(32)
        blocks: list[nn.Module] = [_conv(3, inside, 3, 2)]
        for expansion, channels, repeats, stride in _ROWS:
            for number in range(repeats):
                out = _channels(channels)
                blocks.append(_Bottleneck(inside, out, expansion, stride if number == 0 else 1))
                inside = out
        self.features = nn.Sequential(*blocks, _conv(inside, 1280, 1, 1))
        self.head = nn.Sequential(nn.Linear(1280, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, label_count))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.features(x).mean((2, 3)))
        return found


def accuracy(
    learned: tuple[NDArray[np.uint8], NDArray[np.int64]],
    asked: tuple[NDArray[np.uint8], NDArray[np.int64]],
    labels: int,
    seconds: float,
    seed: int,
) -> float:
    """Of the asked ones, after so many seconds on the learned; pictures are (N, 224, 224, 3)."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = FrigateClassifier(labels)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    pictures, targets = learned
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        order = random.permutation(len(pictures))
        for start in range(0, len(order) - 1, _BATCH):
            chosen = order[start : start + _BATCH]
            loss = nn.functional.cross_entropy(network(_pixels(pictures[chosen])), torch.from_numpy(targets[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if time.monotonic() - began >= seconds:
                break
    network.eval()
    with torch.no_grad():
        said = np.concatenate(
            [network(_pixels(asked[0][i : i + 32])).argmax(1).numpy() for i in range(0, len(asked[0]), 32)]
        )
    return float((said == asked[1]).mean())


def _pixels(pictures: NDArray[np.uint8]) -> Tensor:
    planar = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return planar.contiguous(memory_format=torch.channels_last)


def _channels(full: int) -> int:
    """A multiple of 8, not much less than the share."""
    share = full * _ALPHA
    found = max(8, int(share + 4) // 8 * 8)
    return found + 8 if found < 0.9 * share else found


class _Bottleneck(nn.Module):
    def __init__(self, inside: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inside * expansion
        layers: list[nn.Module] = [_conv(inside, wide, 1, 1)] if expansion > 1 else []
        layers.append(_conv(wide, wide, 3, stride, groups=wide))
        layers.append(nn.Sequential(nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out, 1e-3, 0.01)))
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and inside == out

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return x + found if self.adds else found


def _conv(inside: int, out: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inside, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out, 1e-3, 0.01), nn.ReLU6())
