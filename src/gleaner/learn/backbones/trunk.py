"""A network of somebody else as a trunk: what it wants is made inside, so that nothing around it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gleaner.learn.network import MEAN, STD, Trunk

_MOST_EXTRA_TOKENS = 16
"""Before those of places: one for the class, perhaps one that was distilled into, and registers."""


@dataclass(frozen=True)
class Wants:
    """How the network was trained to see. `size`: (height, width) it was trained at; `patch`: side of a transformer's patch."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] = (224, 224)
    patch: int = 0


class ForeignTrunk(Trunk):
    """`body` takes (N, 3, H, W) and gives a map (N, C, h, w) or tokens (N, T, C), of which the last are the places.

    Raises ValueError where it gives neither.
    """

    def __init__(self, body: nn.Module, wants: Wants, sizes: Sequence[tuple[int, int]]) -> None:
        """`sizes`: what it will be asked; a network that does not take them is given its own size."""
        super().__init__()
        self.body, self.patch = body, wants.patch
        mean, std = (torch.tensor(one).view(1, -1, 1, 1) for one in (wants.mean, wants.std))
        self.register_buffer("scale", STD / std, persistent=False)
        self.register_buffer("shift", (MEAN - mean) / std, persistent=False)
        self.own_size: tuple[int, int] | None = None
        try:
            found = [self._probe(size) for size in sizes]
        except (ValueError, RuntimeError):
            self.own_size = wants.size
            found = [self._probe(size) for size in sizes]
        self.features = 2 * found[0].shape[1]

    @torch.no_grad()
    def _probe(self, size: tuple[int, int]) -> Tensor:
        self.eval()
        return self.maps(torch.zeros(1, 3, *size))[0]

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        x = x * self.get_buffer("scale") + self.get_buffer("shift")
        if self.own_size is not None:
            x = functional.interpolate(x, size=self.own_size, mode="bilinear", align_corners=False)
        found = self.body(x)
        if found.ndim == 3:
            height, width = self._grid(found.shape[1], x.shape[2], x.shape[3])
            found = found[:, -height * width :].transpose(1, 2).reshape(len(found), -1, height, width)
        if found.ndim != 4:
            raise ValueError(f"it answers with {found.ndim} axes, neither with a map nor with tokens")
        return (found,)

    def _grid(self, tokens: int, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of places: the finest grid that leaves no more than a few tokens over."""
        for side in dict.fromkeys([self.patch, 4, 8, 14, 16, 32, 64]):
            if not side:
                continue
            for rows, columns in (
                (height // side, width // side),
                (-(-height // side), -(-width // side)),
            ):
                if rows * columns and 0 <= tokens - rows * columns <= _MOST_EXTRA_TOKENS:
                    return rows, columns
        raise ValueError(f"its {tokens} tokens form no grid over {width}×{height} pixels")
