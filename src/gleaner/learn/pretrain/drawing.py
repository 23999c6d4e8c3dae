"""Draws batches of pictures: painted contours over noise, stripes and cards, in uneven light; and says what is where.

All of it is tensor operations on one device, so the same lines draw a hundred pictures a second on a laptop and a
hundred thousand on a graphics card.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from gleaner.learn.pretrain.contours import ANGLES, Contours, angles

#: Paints and signs as people make them; RGB.
PAINTS = (
    (200, 25, 30), (235, 120, 20), (235, 205, 30), (120, 200, 40), (25, 140, 60), (40, 190, 190), (25, 60, 190),
    (120, 50, 170), (235, 130, 180), (120, 75, 40), (22, 22, 24), (130, 130, 135), (240, 240, 238),
)  # fmt: skip
MOST_SHAPES = 4
_PRESENT = (0.95, 0.35)
"""How likely the first and the last shape of a picture is there."""
_RADIUS = (0.055, 0.30)
"""Of the picture's shorter side."""
_COARSE = (4, 12, 40)
"""Sizes of the background's noise, in pixels a spot."""
_CARD_SHARE, _STRIPES_SHARE = 0.3, 0.4
_LEAST_SEEN, _LEAST_PX = 0.25, 25
"""A shape that others cover further than this, or that is smaller, is not asked for."""


class Drawn(NamedTuple):
    """`pixels` (N, 3, H, W) 0–1, `boxes` (N, K, 4) in pixels, `contour`, `paint` (N, K) numbers, `asked` (N, K) bool."""

    pixels: Tensor
    boxes: Tensor
    contour: Tensor
    paint: Tensor
    asked: Tensor


@dataclass(frozen=True)
class _Canvas:
    random: Generator
    count: int
    height: int
    width: int

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand((self.count, *shape), generator=self.random, device=self.random.device)
        return drawn * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        return torch.randn((self.count, *shape), generator=self.random, device=self.random.device)

    def below(self, end: int, *shape: int) -> Tensor:
        return torch.randint(0, end, (self.count, *shape), generator=self.random, device=self.random.device)

    def chance(self, share: float, *shape: int) -> Tensor:
        return self.between(0, 1, *shape) < share

    def places(self) -> tuple[Tensor, Tensor]:
        """Rows and columns of the pixels, (H, W) each."""
        where = self.random.device
        rows = torch.arange(self.height, dtype=torch.float32, device=where)
        columns = torch.arange(self.width, dtype=torch.float32, device=where)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return y, x


class _Shape(NamedTuple):
    """One shape on each picture: its cover (N, 1, H, W) 0–1, its card's (N, 1, H, W), its box (N, 4)."""

    cover: Tensor
    card: Tensor
    box: Tensor


def draw(contours: Contours, count: int, size: tuple[int, int], random: Generator) -> Drawn:
    """`size` is (height, width). Random numbers come from the generator alone, on whose device all is made."""
    canvas = _Canvas(random, count, *size)
    paints = torch.tensor(PAINTS, device=random.device) / 255
    pixels, slope = _background(canvas)
    contour, paint = canvas.below(len(contours.radius), MOST_SHAPES), canvas.below(len(paints), MOST_SHAPES)
    likely = torch.linspace(*_PRESENT, MOST_SHAPES, device=random.device)
    present = canvas.between(0, 1, MOST_SHAPES) < likely
    boxes: list[Tensor] = []
    seen: list[Tensor] = []
    for place in range(MOST_SHAPES):
        here = present[:, place, None, None, None]
        shape = _shape(canvas, contours.radius[contour[:, place]])
        card = shape.card * (here & canvas.chance(_CARD_SHARE, 1, 1, 1))
        pixels = pixels * (1 - card) + card * canvas.between(0.75, 1, 1, 1, 1)
        paint_here = paints[paint[:, place]].view(count, 3, 1, 1) * canvas.between(0.8, 1.15, 1, 1, 1)
        cover = shape.cover * here
        pixels = pixels * (1 - cover) + (paint_here + canvas.normal(3, 1, 1) * 0.04) * cover
        hidden = torch.maximum(cover, card)[:, 0] > 0.5
        seen = [one & ~hidden for one in seen] + [cover[:, 0] > 0.5]
        boxes.append(shape.box)
    found = torch.stack(boxes, 1)
    area = torch.stack(seen, 1).flatten(2).sum(2)
    whole = (found[..., 2] - found[..., 0]) * (found[..., 3] - found[..., 1])
    asked = present & (area > _LEAST_SEEN * whole) & (area > _LEAST_PX)
    limit = torch.tensor([size[1], size[0], size[1], size[0]], device=random.device)
    return Drawn(_lit(canvas, pixels, slope), found.clamp_min(0).minimum(limit), contour, paint, asked)


def _background(canvas: _Canvas) -> tuple[Tensor, Tensor]:
    """A tint with spots of several sizes, sometimes striped; and a slope across the picture for its light."""
    tint = canvas.between(0.12, 0.82, 3, 1, 1)
    grey = tint.mean(1, keepdim=True)
    pixels = grey + (tint - grey) * canvas.between(0, 1, 1, 1, 1)
    for spot in _COARSE:
        small = (max(2, canvas.height // spot), max(2, canvas.width // spot))
        spots = canvas.normal(1, *small) * canvas.between(0, 0.1, 1, 1, 1)
        spots = spots + canvas.normal(3, *small) * canvas.between(0, 0.03, 1, 1, 1)
        pixels = pixels + functional.interpolate(spots, size=(canvas.height, canvas.width), mode="bilinear")
    y, x = canvas.places()
    turn = canvas.between(0, math.pi, 1, 1)
    along = (x * turn.cos() + y * turn.sin()) / canvas.between(2, 20, 1, 1)
    soft = torch.sin(along) * canvas.between(0, 0.12, 1, 1) * canvas.chance(_STRIPES_SHARE, 1, 1)
    hard = soft.sign() * soft.abs().sqrt() * 0.3
    pixels = pixels + torch.where(canvas.chance(0.5, 1, 1), soft, hard)[:, None]
    return pixels, (x / canvas.width - 0.5) * turn.cos() + (y / canvas.height - 0.5) * turn.sin()


def _shape(canvas: _Canvas, radius: Tensor) -> _Shape:
    """Contours (N, 256) at random places, sizes and turns; most stand upright, as things and signs do."""
    side = min(canvas.height, canvas.width)
    size = torch.exp(canvas.between(math.log(_RADIUS[0]), math.log(_RADIUS[1]), 1, 1)) * side
    column, row = canvas.between(0, 1, 1, 1) * canvas.width, canvas.between(0, 1, 1, 1) * canvas.height
    turn = torch.where(canvas.chance(0.7, 1, 1), canvas.normal(1, 1) * 0.35, canvas.between(-math.pi, math.pi, 1, 1))
    wide, tall = canvas.between(0.8, 1.1, 1, 1), canvas.between(0.8, 1.1, 1, 1)
    cos, sin = turn.cos(), turn.sin()
    y, x = canvas.places()
    across, down = x - column, y - row
    own_x, own_y = (across * cos + down * sin) / wide, (down * cos - across * sin) / tall
    distance = (own_x**2 + own_y**2 + 1e-6).sqrt()
    step = ((torch.atan2(own_y, own_x) + math.pi) / (2 * math.pi) * ANGLES).long().clamp(0, ANGLES - 1)
    edge = radius.gather(1, step.flatten(1)).view_as(distance) * size
    cover = ((edge - distance) * 1.2 + 0.5).clamp(0, 1)
    card = torch.maximum(own_x.abs(), own_y.abs()) < size * 1.2
    angle = angles().to(radius.device)
    outline_x, outline_y = radius * angle.cos() * wide[:, 0], radius * angle.sin() * tall[:, 0]
    edge_x = (outline_x * cos[:, 0] - outline_y * sin[:, 0]) * size[:, 0] + column[:, 0]
    edge_y = (outline_x * sin[:, 0] + outline_y * cos[:, 0]) * size[:, 0] + row[:, 0]
    box = torch.stack([edge_x.amin(1), edge_y.amin(1), edge_x.amax(1), edge_y.amax(1)], 1)
    return _Shape(cover[:, None], card[:, None].float(), box)


def _lit(canvas: _Canvas, pixels: Tensor, slope: Tensor) -> Tensor:
    """Light that falls off to one side, exposure, and the camera's noise."""
    light = 1 + canvas.between(0, 0.4, 1, 1) * slope
    pixels = pixels * light[:, None] * torch.exp(canvas.between(-0.7, 0.2, 1, 1, 1))
    noise = canvas.normal(3, canvas.height, canvas.width) * canvas.between(0, 0.06, 1, 1, 1)
    return (pixels + noise).clamp(0, 1)
