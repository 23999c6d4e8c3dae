"""What the detector is taught by: which cells answer for which box, and how wrong their answers are.

Cells are chosen by how well they already do (task-aligned assignment, Feng et al. 2021) with a soft preference for the
box's middle that carries the first seconds; labels learn by the varifocal loss (Zhang et al. 2021), boxes by complete IoU
(Zheng et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gleaner.learn.detect.boxes import complete_iou, iou
from gleaner.learn.detect.network import STRIDE, boxes_of

CELLS_PER_BOX = 9
_MIDDLE = 3.0
"""How fast a cell's claim fades with its distance from the middle, in box areas."""
_REACH_PX = 2.0
"""A cell this far outside of a box may still answer for it: a box smaller than a cell may hold no cell's middle."""
_LEAST_QUALITY = 0.05


class Loss(NamedTuple):
    """Scalars, and how many of the boxes some cell has found with the right label (IoU and confidence above one half)."""

    label: Tensor
    box: Tensor
    found: int
    boxes: int


class _Claims(NamedTuple):
    """Per picture and cell: whether it answers for a box, for which, and how good its answer should be (0–1)."""

    taken: Tensor
    box: Tensor
    quality: Tensor
    found: int


def detection_loss(logits: Tensor, reaches: Tensor, truths: Sequence[Tensor]) -> Loss:
    """`truths`: per picture (n, 5) of label number, x_min, y_min, x_max, y_max in pixels."""
    scores, predicted = logits.flatten(2).transpose(1, 2), boxes_of(reaches)
    labels, boxes, present = _padded(truths)
    claims = _assign(scores.detach(), predicted.detach(), labels, boxes, present, logits.shape[2:])
    wanted = torch.zeros_like(scores)
    picture, cell = torch.nonzero(claims.taken, as_tuple=True)
    box, quality = claims.box[picture, cell], claims.quality[picture, cell]
    wanted[picture, cell, labels[picture, box]] = quality
    weight = torch.where(wanted > 0, wanted.clamp_min(0.3), 0.75 * scores.detach().sigmoid() ** 2)
    scale = quality.sum().clamp_min(1)
    label_loss = (functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none") * weight).sum() / scale
    if len(picture):
        overlap = complete_iou(predicted[picture, cell], boxes[picture, box])
        box_loss = ((1 - overlap) * quality).sum() / scale
    else:
        box_loss = reaches.sum() * 0
    return Loss(label_loss, box_loss, claims.found, int(present.sum()))


def _padded(truths: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (N, M), boxes (N, M, 4) and which of them exist (N, M)."""
    most = max(1, *(len(t) for t in truths)) if truths else 1
    values = torch.zeros(len(truths), most, 5)
    present = torch.zeros(len(truths), most, dtype=torch.bool)
    for row, truth in enumerate(truths):
        values[row, : len(truth)] = truth
        present[row, : len(truth)] = True
    return values[..., 0].long(), values[..., 1:], present


@torch.no_grad()
def _assign(
    scores: Tensor, predicted: Tensor, labels: Tensor, boxes: Tensor, present: Tensor, cells: Sequence[int]
) -> _Claims:
    near, distance = _nearness(boxes, cells)
    near &= present[..., None]
    overlap = iou(predicted[:, None], boxes[:, :, None])
    most = labels.shape[1]
    sure = scores.sigmoid().gather(2, labels[:, None, :].expand(-1, scores.shape[1], most)).transpose(1, 2)
    claim = (sure.clamp_min(1e-4).sqrt() * overlap**3 + 1e-9) * torch.exp(-distance * _MIDDLE) * near
    best = claim.topk(min(CELLS_PER_BOX, claim.shape[2]), 2)
    chosen = torch.zeros_like(near).scatter_(2, best.indices, best.values > 0)
    strength, box = torch.where(chosen, claim, claim.new_tensor(-1.0)).max(1)
    taken = strength > 0
    # The best cell of a box should say as much as its box overlaps, the others in proportion.
    strongest = strength.new_zeros(labels.shape).scatter_reduce(1, box, strength.clamp_min(0), "amax")
    reached = torch.where(chosen, overlap, overlap.new_tensor(0.0)).amax(2)
    quality = (strength / (strongest.gather(1, box) + 1e-9) * reached.gather(1, box)).clamp(0, 1)
    found = ((overlap > 0.5) & (sure > 0.5) & chosen).any(2) & present
    return _Claims(taken, box, torch.where(taken, quality.clamp_min(_LEAST_QUALITY), 0.0), int(found.sum()))


def _nearness(boxes: Tensor, cells: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(N, M, h·w): whether a cell's middle lies in a box or hardly outside, and its squared distance in box areas."""
    y, x = torch.meshgrid(*(torch.arange(side) * STRIDE + STRIDE / 2 for side in cells), indexing="ij")
    x, y = x.reshape(1, 1, -1), y.reshape(1, 1, -1)
    left, top, right, bottom = (boxes[..., side : side + 1] for side in range(4))
    inside = torch.minimum(torch.minimum(x - left, right - x), torch.minimum(y - top, bottom - y)) > -_REACH_PX
    area = ((right - left) * (bottom - top)).clamp_min(STRIDE * STRIDE)
    return inside, ((x - (left + right) / 2) ** 2 + (y - (top + bottom) / 2) ** 2) / area
