"""What is learned from drawn pictures: where shapes are, how symmetric, which paint and which outline; and which of
each are in the picture at all. The first makes a detector's trunk, the last a classifier's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gleaner.learn.detect.loss import detection_loss
from gleaner.learn.detect.network import STRIDE, Detector
from gleaner.learn.network import ConvUnit
from gleaner.learn.pretrain.contours import SPECTRUM, SYMMETRIES, Contours
from gleaner.learn.pretrain.drawing import PAINTS, Drawn

_FINE, _DEEP = 64, 192
_BOX, _SPECTRUM, _PRESENCE = 2.0, 3.0, 0.2
"""Weights of the losses, so that each falls by a similar amount."""
_PAIRS = SYMMETRIES * len(PAINTS)


class Told(NamedTuple):
    """Maps (N, 1, h, w), (N, 4, h, w), (N, 34, h, w) and (N, 139): is a shape here, how far it reaches, its symmetry, paint
    and spectrum; which (symmetry, paint) pairs, symmetries and paints the picture has."""

    shape: Tensor
    reach: Tensor
    kind: Tensor
    presence: Tensor


class PretrainNetwork(nn.Module):
    """A detector of one label, "shape", with one more head on its fine map and one on its coarse one."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = Detector(1)
        self.kind_head = nn.Sequential(ConvUnit(_FINE, _FINE), nn.Conv2d(_FINE, SYMMETRIES + len(PAINTS) + SPECTRUM, 1))
        self.presence_head = nn.Linear(2 * _DEEP, _PAIRS + SYMMETRIES + len(PAINTS))

    def forward(self, x: Tensor) -> Told:
        coarse, fine = self.detector.backbone.maps(x)
        pooled = torch.cat([coarse.mean((2, 3)), coarse.amax((2, 3))], 1)
        shape, reach = self.detector.label_head(fine), self.detector.box_head(fine)
        return Told(shape, reach, self.kind_head(fine), self.presence_head(pooled))


class PretrainLoss(NamedTuple):
    total: Tensor
    found: float
    """Share of the shapes that were found (IoU and confidence above one half)."""
    symmetry: float
    paint: float
    """Shares of the shapes whose symmetry and paint were told right."""


def pretrain_loss(told: Told, drawn: Drawn, contours: Contours) -> PretrainLoss:
    truths = [
        torch.cat([own.new_zeros(int(asked.sum()), 1), own[asked]], 1)
        for own, asked in zip(drawn.boxes, drawn.asked, strict=True)
    ]
    where = detection_loss(told.shape, told.reach, truths)
    picture, place = torch.nonzero(drawn.asked, as_tuple=True)
    symmetry, paint = contours.symmetry[drawn.contour[picture, place]], drawn.paint[picture, place]
    middle = (drawn.boxes[picture, place, :2] + drawn.boxes[picture, place, 2:]) / 2 / STRIDE
    row, column = middle[:, 1].long(), middle[:, 0].long()
    kind = told.kind[picture, :, row.clamp(0, told.kind.shape[2] - 1), column.clamp(0, told.kind.shape[3] - 1)]
    said_symmetry, said_paint, said_spectrum = torch.split(kind, [SYMMETRIES, len(PAINTS), SPECTRUM], 1)
    spectrum = contours.spectrum[drawn.contour[picture, place]]
    total = where.label + _BOX * where.box + _PRESENCE * _presence_loss(told.presence, picture, symmetry, paint)
    if not len(picture):  # a mean over no shape is no number
        return PretrainLoss(total, 0.0, 0.0, 0.0)
    total = total + functional.cross_entropy(said_symmetry, symmetry) + functional.cross_entropy(said_paint, paint)
    total = total + _SPECTRUM * functional.smooth_l1_loss(said_spectrum, spectrum)
    right = [(said.argmax(1) == true).float().mean() for said, true in ((said_symmetry, symmetry), (said_paint, paint))]
    return PretrainLoss(total, where.found / max(1, where.boxes), float(right[0]), float(right[1]))


def _presence_loss(presence: Tensor, picture: Tensor, symmetry: Tensor, paint: Tensor) -> Tensor:
    """Pairs bind a shape to its paint: knowing that there is a star and something red is not enough."""
    wanted = torch.zeros_like(presence)
    wanted[picture, symmetry * len(PAINTS) + paint] = 1
    wanted[picture, _PAIRS + symmetry] = 1
    wanted[picture, _PAIRS + SYMMETRIES + paint] = 1
    each = functional.binary_cross_entropy_with_logits(presence, wanted, reduction="none")
    return each.sum(1).mean()
