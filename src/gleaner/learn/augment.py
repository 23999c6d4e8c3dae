"""Varies a batch of pictures: place, size, turn, perspective, colour, light, blur, noise and covered patches.

All geometry is one resampling and all colour one matrix per picture, because augmentation must not cost more than the
network does. Random numbers come from the given generator only, so a seed repeats a run's pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

_GREY = torch.full((3, 3), 1 / 3)
_TURN = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
"""Rotation about the grey axis = hue."""
_NOISE_BANK_SIZE = 1 << 22


@dataclass(frozen=True)
class AugmentOptions:
    """Ranges; angles in radians, shifts as a share of half the picture, colour as shares."""

    mirror: bool = True
    zoom: tuple[float, float] = (0.7, 1.4)
    rotation: float = 0.35
    shear: float = 0.12
    perspective: float = 0.08
    shift: float = 0.25
    stretch: float = 0.12
    brightness: float = 0.35
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.03
    """Of a full turn. Small: colour is often the label."""
    gamma: float = 0.35
    white_balance: float = 0.06
    blur_share: float = 0.35
    noise: float = 0.05
    erase_share: float = 0.4


class Augmenter:
    """One per run: owns its random generator and a bank of normal noise (drawing it anew costs more than a layer)."""

    def __init__(self, seed: int, options: AugmentOptions | None = None) -> None:
        self.options = options or AugmentOptions()
        self._random = Generator().manual_seed(seed)
        self._noise = torch.randn(_NOISE_BANK_SIZE, generator=self._random)

    def batch(self, pictures: Tensor, size: tuple[int, int]) -> Tensor:
        """uint8 (N, 3, H, W) → float 0–1 (N, 3, *size)."""
        pixels = pictures.float().div_(255)
        grid = _sampling_grid(self._geometry(len(pixels), size), size)
        pixels = functional.grid_sample(pixels, grid, "bilinear", "reflection", align_corners=False)
        pixels = self._add_noise(self._blur(self._recolour(pixels)))
        return self._erase(pixels.clamp_(0, 1))

    def recolour(self, pictures: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) → float 0–1: colour, light, blur and noise, everything where it was."""
        pixels = pictures.float().div_(255)
        return self._add_noise(self._blur(self._recolour(pixels))).clamp_(0, 1)

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._random) * (high - low) + low

    def _geometry(self, count: int, size: tuple[int, int]) -> Tensor:
        """(N, 3, 3): where each output point, in −1…1, comes from."""
        o = self.options
        zoom = torch.exp(self._uniform(math.log(o.zoom[0]), math.log(o.zoom[1]), count))
        turn, aspect = self._uniform(-o.rotation, o.rotation, count), size[1] / size[0]
        cos, sin = turn.cos() / zoom, turn.sin() / zoom
        flip = torch.where(self._uniform(0, 1, count) < (0.5 if o.mirror else 0.0), -1.0, 1.0)
        wide = torch.exp(self._uniform(-o.stretch, o.stretch, count))
        shear, right, down = (self._uniform(-a, a, count) for a in (o.shear, o.shift, o.shift))
        tilt_x, tilt_y = (self._uniform(-o.perspective, o.perspective, count) for _ in range(2))
        rows = (
            torch.stack([cos * flip * wide, -sin / aspect + shear, right], 1),
            torch.stack([sin * aspect * flip * wide, cos, down], 1),
            torch.stack([tilt_x, tilt_y, torch.ones(count)], 1),
        )
        return torch.stack(rows, 1)

    def _recolour(self, pixels: Tensor) -> Tensor:
        """Hue, saturation, contrast, brightness and white balance are one 3×3 matrix and a bias per picture."""
        o, (count, _, height, width) = self.options, pixels.shape
        flat = pixels.reshape(count, 3, -1)
        # A quadratic stands in for gamma: pow() takes twenty times as long.
        flat = flat + (flat - flat * flat) * self._uniform(-o.gamma, o.gamma, count, 1, 1)
        angle = self._uniform(-o.hue, o.hue, count, 1, 1) * (2 * math.pi)
        matrix = angle.cos() * (torch.eye(3) - _GREY) + _GREY + angle.sin() * _TURN
        strong = 1 + self._uniform(-o.saturation, o.saturation, count, 1, 1)
        matrix = matrix * strong + _GREY * (1 - strong)
        contrast = 1 + self._uniform(-o.contrast, o.contrast, count, 1, 1)
        gain = torch.exp(self._uniform(-o.brightness, o.brightness, count, 1, 1))
        gain = gain * (1 + self._uniform(-o.white_balance, o.white_balance, count, 3, 1))
        mean = flat.mean((1, 2), keepdim=True)
        return torch.baddbmm(gain * mean * (1 - contrast), gain * contrast * matrix, flat).view(count, 3, height, width)

    def _blur(self, pixels: Tensor) -> Tensor:
        chosen = torch.nonzero(self._uniform(0, 1, len(pixels)) < self.options.blur_share).flatten()
        if len(chosen):
            soft = pixels[chosen]
            for _ in range(int(torch.randint(1, 3, (1,), generator=self._random))):
                soft = functional.avg_pool2d(functional.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, 1)
            pixels[chosen] = torch.lerp(pixels[chosen], soft, self._uniform(0, 1, len(chosen), 1, 1, 1))
        return pixels

    def _add_noise(self, pixels: Tensor) -> Tensor:
        count, size = len(pixels), pixels[0].numel()
        if size >= _NOISE_BANK_SIZE:
            return pixels
        starts = torch.randint(0, _NOISE_BANK_SIZE - size, (count,), generator=self._random).tolist()
        for picture, start, amount in zip(
            pixels, starts, self._uniform(0, self.options.noise, count).tolist(), strict=True
        ):
            picture.add_(self._noise[start : start + size].view(picture.shape), alpha=amount)
        return pixels

    def _erase(self, pixels: Tensor) -> Tensor:
        """Covers 2–10 % of some pictures with a plain rectangle, so that no single detail decides."""
        _, _, height, width = pixels.shape
        for index in torch.nonzero(self._uniform(0, 1, len(pixels)) < self.options.erase_share).flatten().tolist():
            share, ratio, row, column = self._uniform(0, 1, 4).tolist()
            area, ratio = (0.02 + 0.08 * share) * height * width, 0.4 + 2.1 * ratio
            tall = min(height - 1, max(1, int(math.sqrt(area * ratio))))
            wide = min(width - 1, max(1, int(math.sqrt(area / ratio))))
            top, left = int(row * (height - tall)), int(column * (width - wide))
            pixels[index, :, top : top + tall, left : left + wide] = self._uniform(0, 1, 3, 1, 1)
        return pixels


def _sampling_grid(matrices: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    ys = torch.linspace(-1 + 1 / height, 1 - 1 / height, height)
    xs = torch.linspace(-1 + 1 / width, 1 - 1 / width, width)
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)]).reshape(1, 3, -1)
    moved = matrices @ points
    return (moved[:, :2] / moved[:, 2:].clamp_min(0.2)).transpose(1, 2).reshape(-1, height, width, 2)
