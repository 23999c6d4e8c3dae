"""Pictures of flat shapes in front of clutter, with tight boxes: 320×240, twelve classes (six shapes, red and blue), 1–4 a picture.

Every picture is drawn from its own number, so a set is the same everywhere. Distractors have the same colours or the same shapes,
never both; shapes are turned, squeezed, covered in part, seen at an angle, lit unevenly, blurred and noisy. `USUAL` pictures have
things of 32–124 pixels that do not cover each other, as those had that the goal was set with; in `HARD` ones they are smaller and may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gleaner.wire.picture import Rgb

WIDTH, HEIGHT = 320, 240
COLORS = {"red": (200, 25, 30), "blue": (25, 60, 190)}
OTHERS = [(25, 140, 50), (235, 205, 30), (235, 120, 20), (22, 22, 24), (130, 130, 135)]
SHAPES = ("circle", "square", "triangle", "star", "hexagon", "cross")
CLASSES = tuple(f"{color}_{shape}" for color in COLORS for shape in SHAPES)
Outline = NDArray[np.float64]


class Place(NamedTuple):
    """A circle in pixels."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Difficulty:
    radius: tuple[float, float]
    apart: bool
    """Things, and distractors from things, keep a distance."""
    tilt: float


USUAL = Difficulty((16, 62), apart=True, tilt=0.05)
HARD = Difficulty((11, 48), apart=False, tilt=0.14)
Masks = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""0–255: the thing's visible face, and everything that it covers."""


def picture(number: int, seed: int, difficulty: Difficulty = USUAL) -> tuple[Rgb, NDArray[np.float32]]:
    """(240, 320, 3) and its boxes (n, 5): class number, x_min, y_min, x_max, y_max in pixels."""
    random = np.random.default_rng((seed, number))
    canvas = _background(random)
    wanted = [int(random.integers(len(CLASSES))) for _ in range(int(random.integers(1, 5)))]
    taken: list[Place] = []
    for _ in wanted:
        taken.append(_place(random, difficulty, taken))
    for _ in range(int(random.integers(3, 9))):
        _distractor(canvas, random, taken if difficulty.apart else [])
    drawn = [_thing(canvas, label, place, random) for label, place in zip(wanted, taken, strict=True)]
    canvas, things = _at_an_angle(canvas, drawn, random, difficulty.tilt)
    boxes = []
    for index, (label, (mask, _)) in enumerate(zip(wanted, things, strict=True)):
        seen = mask.copy()
        for _, covered in things[index + 1 :]:
            seen[covered > 127] = 0
        ys, xs = np.nonzero(seen > 127)
        if len(xs) > 40 and len(xs) > 0.4 * max(1, int((mask > 127).sum())):
            boxes.append([label, xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    return _photographed(canvas, random), np.array(boxes, np.float32).reshape(-1, 5)


def pictures(count: int, seed: int, difficulty: Difficulty = USUAL) -> tuple[Rgb, list[NDArray[np.float32]]]:
    made = [picture(number, seed, difficulty) for number in range(count)]
    return np.stack([one for one, _ in made]), [boxes for _, boxes in made]


def _outline(shape: str) -> Outline:
    """In a circle of radius 1."""
    corners = {"square": 4, "triangle": 3, "hexagon": 6, "circle": 40}.get(shape, 0)
    if corners:
        angles = np.arange(corners) / corners * 2 * np.pi + np.pi / corners
        return np.stack([np.cos(angles), np.sin(angles)], 1)
    if shape == "star":
        angles = np.arange(10) / 10 * 2 * np.pi
        return np.stack([np.cos(angles), np.sin(angles)], 1) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
    a = 0.33
    return np.array(
        [[a, 1], [a, a], [1, a], [1, -a], [a, -a], [a, -1], [-a, -1], [-a, -a], [-1, -a], [-1, a], [-a, a], [-a, 1.0]]
    )


def _turned(angle: float) -> Outline:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _background(random: np.random.Generator) -> NDArray[np.float32]:
    base = random.uniform(60, 190, 3)
    canvas = np.ones((HEIGHT, WIDTH, 3), np.float32) * base.astype(np.float32)
    for cells, strength in ((4, 40), (12, 20), (60, 10)):
        clouds = random.normal(0, strength, (cells * 3 // 4 + 1, cells, 1)).astype(np.float32)
        canvas += cv2.resize(clouds, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
    if random.random() < 0.5:
        period, angle = random.uniform(8, 40), random.uniform(0, np.pi)
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        canvas += (np.sin((x * np.cos(angle) + y * np.sin(angle)) / period * 6.28) > 0)[..., None] * random.uniform(
            5, 40
        )
    return canvas


def _fill(canvas: NDArray[np.float32], outline: Outline, color: NDArray[np.float64]) -> NDArray[np.uint8]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    share = mask[..., None].astype(np.float32) / 255
    canvas *= 1 - share
    canvas += share * color.astype(np.float32)
    return mask


def _place(random: np.random.Generator, difficulty: Difficulty, taken: list[Place]) -> Place:
    """Away from the others if that can be; the smallest size goes nearly everywhere."""
    low, high = np.log(difficulty.radius)
    for attempt in range(40):
        radius = float(np.exp(random.uniform(low, high if attempt < 30 else low)))
        place = _anywhere(radius, random)
        if not difficulty.apart or _is_free(place, taken):
            return place
    return place


def _anywhere(radius: float, random: np.random.Generator) -> Place:
    inside = radius * 0.9
    x, y = random.uniform([inside, inside], [WIDTH - inside, HEIGHT - inside])
    return Place(float(x), float(y), radius)


def _is_free(place: Place, taken: list[Place]) -> bool:
    return all(np.hypot(place.x - other.x, place.y - other.y) > place.radius + other.radius for other in taken)


def _placed(outline: Outline, place: Place, random: np.random.Generator) -> Outline:
    squeeze = np.diag(random.uniform(0.8, 1.1, 2))
    return np.asarray(outline * place.radius @ squeeze @ _turned(random.normal(0, 0.4)).T + [place.x, place.y])


def _distractor(canvas: NDArray[np.float32], random: np.random.Generator, taken: list[Place]) -> None:
    """A blob in a wanted colour, or a wanted shape in another colour."""
    place = _anywhere(float(np.exp(random.uniform(np.log(6), np.log(40)))), random)
    if not _is_free(place, taken):
        return
    if random.random() < 0.5:
        angles = np.sort(random.uniform(0, 6.28, int(random.integers(3, 9))))
        outline = np.stack([np.cos(angles), np.sin(angles)], 1) * random.uniform(0.4, 1.0, (len(angles), 1))
        color = (
            np.array(list(COLORS.values())[int(random.integers(2))])
            if random.random() < 0.5
            else random.uniform(10, 240, 3)
        )
    else:
        outline, color = (
            _outline(SHAPES[int(random.integers(len(SHAPES)))]),
            np.array(OTHERS[int(random.integers(len(OTHERS)))]),
        )
    _fill(canvas, _placed(outline, place, random), color + random.normal(0, 12, 3))


def _thing(canvas: NDArray[np.float32], label: int, place: Place, random: np.random.Generator) -> Masks:
    color, _, shape = CLASSES[label].partition("_")
    paint = np.array(COLORS[color]) * random.uniform(0.85, 1.12) + random.normal(0, 9, 3)
    outline = _placed(_outline(shape), place, random)
    covered = np.zeros((HEIGHT, WIDTH), np.uint8)
    if random.random() < 0.4:  # on a paper card
        middle = outline.mean(0)
        card = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.abs(outline - middle).max() * 1.25 + middle
        covered = _fill(canvas, card, np.full(3, 230.0))
    mask = _fill(canvas, outline, paint)
    covered = np.maximum(covered, mask)
    if random.random() < 0.25:  # something in front of it
        middle = outline.mean(0) + random.uniform(-1, 1, 2) * np.ptp(outline, 0) * 0.6
        bar = np.array([[-1, -0.25], [1, -0.25], [1, 0.25], [-1, 0.25]]) * np.ptp(outline, 0).max() * 0.5
        front = _fill(canvas, bar @ _turned(random.uniform(0, 3)).T + middle, random.uniform(30, 220, 3))
        mask[front > 127] = 0
        covered = np.maximum(covered, front)
    return mask, covered


def _at_an_angle(
    canvas: NDArray[np.float32], drawn: list[Masks], random: np.random.Generator, tilt: float
) -> tuple[NDArray[np.float32], list[Masks]]:
    corners = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]], np.float32)
    # Outwards only: no empty border comes into view.
    outwards = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * random.uniform(0, tilt, (4, 2)) * [WIDTH, HEIGHT]
    matrix = cv2.getPerspectiveTransform(corners, (corners + outwards).astype(np.float32))
    pictures: list[Any] = [canvas, *(mask for pair in drawn for mask in pair)]
    tilted: list[Any] = [cv2.warpPerspective(one, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR) for one in pictures]
    canvas, *masks = tilted
    return canvas, list(zip(masks[::2], masks[1::2], strict=True))


def _photographed(canvas: NDArray[np.float32], random: np.random.Generator) -> Rgb:
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    angle = random.uniform(0, 6.28)
    light = 1 + random.uniform(0, 0.5) * ((x / WIDTH - 0.5) * np.cos(angle) + (y / HEIGHT - 0.5) * np.sin(angle))
    lit = canvas * light[..., None] * random.uniform(0.5, 1.2) * (1 + random.normal(0, 0.06, 3))
    if random.random() < 0.5:
        lit = cv2.GaussianBlur(lit, (0, 0), random.uniform(0.5, 1.8))
    return np.asarray(np.clip(lit + random.normal(0, random.uniform(1, 10), lit.shape), 0, 255), np.uint8)
