"""A bank of closed contours, each from one formula: a superformula (Gielis 2003), bent by a few Fourier terms.

In the spirit of FractalDB and VisualAtom: what a formula draws has an exact answer to learn, and belongs to nobody.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

ANGLES = 256
SYMMETRIES = 9
"""Orders 0 to 8 of the superformula's symmetry; 0 is a circle before it is bent."""
SPECTRUM = 12
"""Magnitudes of the radius' first Fourier terms: the same however the shape is turned."""
_TERMS = range(2, 8)


class Contours(NamedTuple):
    """`radius` (C, 256) over the angle −π…π, at most 1; `symmetry` (C,) order; `spectrum` (C, 12), about 0–3."""

    radius: Tensor
    symmetry: Tensor
    spectrum: Tensor


def angles() -> Tensor:
    return torch.linspace(-math.pi, math.pi, ANGLES + 1)[:-1]


def make_contours(count: int, random: Generator) -> Contours:
    """The same contours for the same generator."""
    angle = angles()

    def between(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=random, device=random.device) * (high - low) + low

    symmetry = torch.randint(0, SYMMETRIES, (count, 1), generator=random, device=random.device)
    outer, cosine, sine = (between(low, 2.2, 1).exp() for low in (-1.2, -0.7, -0.7))
    turned = symmetry * angle / 4
    bulge = turned.cos().abs() ** cosine + turned.sin().abs() ** sine
    radius = bulge.clamp_min(1e-4) ** (-1 / outer)
    radius = radius / radius.amax(1, keepdim=True)
    order = torch.tensor([*_TERMS], device=random.device).view(1, -1, 1)
    normal = torch.randn((count, len(_TERMS), 1), generator=random, device=random.device)
    bend = normal / order * between(0, 1, 1, 1) ** 2 * 0.6
    waves = bend * torch.cos(order * angle + between(0, 2 * math.pi, len(_TERMS), 1))
    radius = radius * (1 + waves.sum(1)).clamp_min(0.3)
    radius = radius / radius.amax(1, keepdim=True)
    magnitude = torch.fft.rfft(radius).abs()
    spectrum = (magnitude[:, 1 : SPECTRUM + 1] / magnitude[:, :1]).sqrt() * 3
    return Contours(radius, symmetry.flatten(), spectrum)
