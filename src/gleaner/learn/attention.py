"""What a classifier looked at. Its last layer weighs means and maxima of two maps, so each cell's share of a label's logit is
known exactly (class activation maps, Zhou et al. 2016): a mean takes a little from every cell, a maximum all of it from one.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gleaner.learn.network import Classifier, prepared
from gleaner.wire.picture import Rgb

_VEIL = 0.72
"""How dark a place becomes that spoke for nothing."""
_TINT = np.array([255, 170, 0], np.float32)


@torch.no_grad()
def attention(network: Classifier, picture: Rgb, label: int) -> NDArray[np.float32]:
    """(H/8, W/8) of what spoke for `label` in a uint8 (H, W, 3) picture of the input size; negative where against it.

    All cells together are about the label's logit, less the bias.
    """
    network.eval()
    maps = network.backbone.maps(prepared(picture[None]))
    weights = torch.split(network.head.weight[label], [m.shape[1] for m in maps for _ in ("mean", "maximum")])
    shares = [_share(one[0], weights[2 * i], weights[2 * i + 1]) for i, one in enumerate(maps)]
    height, width = shares[-1].shape
    total = np.zeros((height, width), np.float32)
    for share in shares:
        grown = cv2.resize(share.numpy(), (width, height), interpolation=cv2.INTER_LINEAR)
        total += grown * (share.numel() / grown.size)  # a coarse cell stands for many fine ones; the sum stays
    return total


def _share(values: Tensor, mean_weight: Tensor, max_weight: Tensor) -> Tensor:
    """(h, w) from a map (C, h, w)."""
    channels, height, width = values.shape
    share = torch.einsum("c,chw->hw", mean_weight, values) / (height * width)
    flat = values.reshape(channels, -1)
    best, where = flat.max(1)
    return (share.reshape(-1).index_add(0, where, max_weight * best)).reshape(height, width)


def overlaid(picture: Rgb, heat: NDArray[np.float32]) -> Rgb:
    """The picture dimmed where nothing spoke for the label, warm where most did."""
    height, width = picture.shape[:2]
    for_it = cv2.GaussianBlur(np.maximum(heat, 0), (0, 0), 0.8)
    grown = np.maximum(cv2.resize(for_it, (width, height), interpolation=cv2.INTER_CUBIC), 0)
    strength = (grown / max(float(np.quantile(grown, 0.995)), 1e-9)).clip(0, 1)[..., None] ** 0.8
    base = picture.astype(np.float32) * (1 - _VEIL * (1 - strength))
    return np.ascontiguousarray((base * (1 - 0.3 * strength) + _TINT * 0.3 * strength).clip(0, 255).astype(np.uint8))
