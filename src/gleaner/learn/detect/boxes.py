"""How much boxes overlap. Boxes are (…, 4): x_min, y_min, x_max, y_max."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (…, 4); the shapes broadcast."""
    return _iou(a, b)[0]


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the distance of the middles and the difference of the shapes; −1.5 … 1."""
    overlap, wide_a, high_a, wide_b, high_b = _iou(a, b)
    around_w = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    around_h = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    across = (a[..., 0] + a[..., 2] - b[..., 0] - b[..., 2]) ** 2
    down = (a[..., 1] + a[..., 3] - b[..., 1] - b[..., 3]) ** 2
    distance = (across + down) / 4 / (around_w**2 + around_h**2 + 1e-7)
    shape = 4 / math.pi**2 * (torch.atan(wide_b / (high_b + 1e-7)) - torch.atan(wide_a / (high_a + 1e-7))) ** 2
    with torch.no_grad():
        share = shape / (shape - overlap + 1 + 1e-7)
    return overlap - distance - share * shape


def _iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    wide = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp_min(0)
    high = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp_min(0)
    wide_a, high_a = a[..., 2] - a[..., 0], a[..., 3] - a[..., 1]
    wide_b, high_b = b[..., 2] - b[..., 0], b[..., 3] - b[..., 1]
    common = wide * high
    return common / (wide_a * high_a + wide_b * high_b - common + 1e-7), wide_a, high_a, wide_b, high_b
