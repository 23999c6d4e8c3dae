"""Things that hang on walls besides the signs. Every function draws into a float32 BGR wall picture in place.

Positions are pixels of the wall picture, x to the right, y down. None of it is a filled star, circle, triangle, square,
hexagon or pentagon in a sign's colour: distracting is wanted, ambiguous is not.
"""

from __future__ import annotations

import cv2
import numpy as np

from gleaner.sim.materials import Bgr, Picture, Plane, cloud

PAPERS: tuple[Bgr, ...] = ((214, 226, 232), (196, 214, 222), (222, 222, 216), (180, 204, 226))
SKIES: tuple[tuple[Bgr, Bgr, Bgr], ...] = (
    ((196, 142, 70), (196, 206, 226), (94, 84, 62)),  # noon: sky above, sky at the horizon, hills
    ((120, 74, 92), (120, 160, 232), (66, 48, 56)),  # dusk
    ((104, 96, 40), (188, 206, 186), (58, 74, 44)),  # forest
    ((130, 128, 126), (206, 206, 208), (74, 70, 66)),  # black and white
)


def _box(mask: Plane, pad: int = 0) -> tuple[slice, slice]:
    """Where the mask is not empty: drawing there only is ten times faster than over the whole wall."""
    rows, columns = np.flatnonzero(mask.max(axis=1)), np.flatnonzero(mask.max(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    y0, y1 = max(int(rows[0]) - pad, 0), min(int(rows[-1]) + 1 + pad, mask.shape[0])
    x0, x1 = max(int(columns[0]) - pad, 0), min(int(columns[-1]) + 1 + pad, mask.shape[1])
    return slice(y0, y1), slice(x0, x1)


def shadow(wall: Picture, mask: Plane, offset_px: tuple[float, float], blur_px: float, strength: float) -> None:
    """Darkens what lies behind an object whose `mask` (height, width, 0–1) is about to be drawn."""
    box = _box(mask, pad=int(blur_px * 3 + max(abs(offset_px[0]), abs(offset_px[1]))) + 2)
    part = mask[box]
    if not part.size:
        return
    move = np.array([[1, 0, offset_px[0]], [0, 1, offset_px[1]]], np.float32)
    moved = cv2.warpAffine(part, move, (part.shape[1], part.shape[0]))
    wall[box] *= 1 - strength * cv2.GaussianBlur(moved, (0, 0), blur_px)[:, :, None]


def lay(wall: Picture, mask: Plane, paint: Picture | Bgr) -> None:
    """Puts paint (one colour, or a picture as large as the wall) where the mask is."""
    box = _box(mask)
    color = np.asarray(paint, np.float32)
    if color.ndim == 3:
        color = color[box]
    wall[box] += (color - wall[box]) * mask[box][:, :, None]


def polygon_mask(shape: tuple[int, ...], points: Plane) -> Plane:
    """(height, width) float32, 0–1, antialiased."""
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def _place(wall: Picture, card: Picture, center: tuple[float, float], angle_deg: float) -> None:
    """Turns a flat card by a few degrees and hangs it with a soft shadow."""
    h, w = card.shape[:2]
    reach = int(np.hypot(h, w) / 2) + 24
    left, top = int(center[0]) - reach, int(center[1]) - reach
    x0, y0 = max(left, 0), max(top, 0)
    part = wall[y0 : top + 2 * reach, x0 : left + 2 * reach]
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), angle_deg, 1.0)
    turn[:, 2] += np.array(center) - (w / 2 + x0, h / 2 + y0)
    size = (part.shape[1], part.shape[0])
    mask = cv2.warpAffine(np.ones((h, w), np.float32), turn, size, flags=cv2.INTER_LINEAR)
    shadow(part, mask, (2.0, 4.0), 4.0, 0.45)
    turned = cv2.warpAffine(card, turn, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lay(part, mask, np.asarray(turned, np.float32))


def _landscape(rng: np.random.Generator, width: int, height: int) -> tuple[Picture, Bgr]:
    """A hazy view of hills → (picture, colour of the nearest hill)."""
    top, low, hills = (np.asarray(c, np.float32) for c in SKIES[int(rng.integers(len(SKIES)))])
    fade = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    photo = (top * (1 - fade) + low * fade + np.zeros((height, width, 3), np.float32)).astype(np.float32)
    photo *= 1 + 0.03 * cloud(rng, height, width, 30, 3, 3)[:, :, None]
    for layer in range(3):
        ridge = height * (0.5 + 0.16 * layer) + cloud(rng, 1, width, width * 0.35, 4)[0] * height * (0.1 - 0.02 * layer)
        below = np.arange(height)[:, None] > ridge[None, :]
        photo[below] = (low * (0.5 - 0.25 * layer) + hills * (0.5 + 0.25 * layer)) * (1.15 - 0.2 * layer)
    return photo, (float(hills[0]), float(hills[1]), float(hills[2]))


def poster(rng: np.random.Generator, wall: Picture, center: tuple[float, float], size: tuple[int, int]) -> None:
    """A printed landscape with a title and lines of text."""
    w, h = size
    card = np.full((h, w, 3), PAPERS[int(rng.integers(len(PAPERS)))], np.float32)
    m, photo_h = 7, int(h * 0.66)
    card[m : m + photo_h, m : w - m], hills = _landscape(rng, w - 2 * m, photo_h)
    y = m + photo_h + 10
    ink = (hills[0] * 0.7, hills[1] * 0.7, hills[2] * 0.7)
    cv2.rectangle(card, (m, y), (m + int((w - 2 * m) * rng.uniform(0.4, 0.8)), y + 8), ink, -1)
    for line in range(int((h - y - 22) / 9)):
        start = (m, y + 20 + 9 * line)
        cv2.line(card, start, (m + int((w - 2 * m) * rng.uniform(0.6, 1.0)), start[1]), (120, 122, 124), 2)
    card *= 1 + 0.02 * cloud(rng, h, w, 60, 3)[:, :, None]
    _place(wall, card, center, float(rng.normal(0, 1.6)))


def frame(
    rng: np.random.Generator, wall: Picture, center: tuple[float, float], size: tuple[int, int], wood: Bgr
) -> None:
    """A framed photograph behind a mount and glass."""
    w, h = size
    card = np.zeros((h, w, 3), np.float32) + np.asarray(wood, np.float32)
    cv2.rectangle(card, (1, 1), (w - 2, h - 2), (wood[0] * 1.35, wood[1] * 1.35, wood[2] * 1.35), 2, cv2.LINE_AA)
    card[9 : h - 9, 9 : w - 9] = (208, 216, 220)
    card[22 : h - 22, 22 : w - 22] = _landscape(rng, w - 44, h - 44)[0]
    across = np.add.outer(np.arange(h, dtype=np.float32), np.arange(w, dtype=np.float32))
    card += (np.clip(1 - np.abs(across - (h + w) * 0.36) / 26, 0, 1) * 22)[:, :, None]
    _place(wall, card, center, float(rng.normal(0, 0.8)))


def notes(rng: np.random.Generator, wall: Picture, center: tuple[float, float], count: int) -> None:
    """Pale sticky notes with handwriting."""
    for _ in range(count):
        side = int(rng.integers(36, 44))
        pale: Bgr = ((196, 238, 244), (222, 226, 206), (214, 204, 238), (200, 232, 208))[int(rng.integers(4))]
        card = np.full((side, int(side * 1.15), 3), pale, np.float32)
        card *= np.linspace(0.93, 1.03, side, dtype=np.float32)[:, None, None]
        for line in range(3):
            y = 11 + 9 * line
            xs = np.arange(6, int(side * rng.uniform(0.7, 1.05)), 3)
            ys = y + rng.normal(0, 1.5, len(xs))
            cv2.polylines(card, [np.stack([xs, ys], 1).astype(np.int32)], False, (92, 84, 80), 1, cv2.LINE_AA)
        _place(
            wall,
            card,
            (center[0] + float(rng.normal(0, 46)), center[1] + float(rng.normal(0, 34))),
            float(rng.normal(0, 6)),
        )


def cable(
    wall: Picture, start: tuple[float, float], end: tuple[float, float], sag_px: float, width_px: int, color: Bgr
) -> None:
    """A hanging cable: a parabola with its shadow."""
    t = np.linspace(0, 1, 60)
    points = np.stack(
        [start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t + 4 * sag_px * t * (1 - t)], 1
    )
    mask = np.zeros(wall.shape[:2], np.uint8)
    cv2.polylines(mask, [np.round(points * 16).astype(np.int32)], False, 255, width_px, cv2.LINE_AA, 4)
    plane = mask.astype(np.float32) / 255
    shadow(wall, plane, (4, 7), 3.0, 0.4)
    lay(wall, plane, color)
    highlight = np.zeros(wall.shape[:2], np.uint8)
    cv2.polylines(
        highlight, [np.round((points - (0, width_px * 0.22)) * 16).astype(np.int32)], False, 90, 1, cv2.LINE_AA, 4
    )
    lay(
        wall,
        highlight.astype(np.float32) / 255,
        (min(color[0] * 2.2 + 40, 255), min(color[1] * 2.2 + 40, 255), min(color[2] * 2.2 + 40, 255)),
    )


def pipe(wall: Picture, at_px: int, radius_px: int, metal: Bgr, upright: bool) -> None:
    """A round pipe from end to end with couplings."""
    long_side = wall.shape[0] if upright else wall.shape[1]
    across = np.linspace(-1, 1, 2 * radius_px, dtype=np.float32)
    shade = 0.35 + 0.75 * np.exp(-(((across + 0.35) / 0.42) ** 2)) + 0.12 * np.clip(across, 0, 1)
    body = np.asarray(metal, np.float32)[None, None, :] * shade[:, None, None] * np.ones((1, long_side, 1), np.float32)
    for x in range(long_side // 6, long_side, long_side // 3):
        body[:, x - 9 : x + 9] *= 1.12
        body[:, x - 10 : x - 8] *= 0.6
        body[:, x + 8 : x + 10] *= 0.6
    target = np.swapaxes(wall, 0, 1) if upright else wall
    low, high = at_px - radius_px, at_px + radius_px
    soft = np.linspace(0.5, 1, 26, dtype=np.float32)[:, None, None]
    room = target[high : high + 26]
    room *= soft[: len(room)]
    target[low:high] = body


def outlet(wall: Picture, x: int, y: int) -> None:
    mask = polygon_mask(wall.shape, np.array([[x, y], [x + 34, y], [x + 34, y + 48], [x, y + 48]], float))
    shadow(wall, mask, (1.5, 3), 2.5, 0.5)
    lay(wall, mask, (214, 220, 222))
    cv2.rectangle(wall, (x + 1, y + 1), (x + 33, y + 47), (178, 184, 188), 1, cv2.LINE_AA)
    for dy in (10, 29):
        for dx in (11, 20):
            cv2.rectangle(wall, (x + dx, y + dy), (x + dx + 2, y + dy + 8), (70, 70, 70), -1)


def vent(wall: Picture, x: int, y: int, w: int, h: int) -> None:
    mask = polygon_mask(wall.shape, np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], float))
    shadow(wall, mask, (2, 4), 3, 0.5)
    lay(wall, mask, (150, 156, 158))
    for line in range(y + 8, y + h - 7, 9):
        cv2.line(wall, (x + 8, line), (x + w - 8, line), (52, 54, 55), 4)
        cv2.line(wall, (x + 8, line + 4), (x + w - 8, line + 4), (196, 200, 202), 1)


def radiator(wall: Picture, x: int, width: int, height: int) -> None:
    """A ribbed iron radiator standing on the floor."""
    bottom = wall.shape[0] - 34
    mask = polygon_mask(
        wall.shape,
        np.array([[x, bottom - height], [x + width, bottom - height], [x + width, bottom], [x, bottom]], float),
    )
    shadow(wall, mask, (6, 8), 9, 0.55)
    across = (np.arange(width, dtype=np.float32) % 26) / 26 * 2 - 1
    ribs = 0.5 + 0.55 * np.exp(-(((across + 0.2) / 0.5) ** 2)) - 0.35 * (np.abs(across) > 0.86)
    body = (
        np.asarray((196, 202, 204), np.float32)
        * ribs[None, :, None]
        * np.linspace(1.08, 0.82, height, dtype=np.float32)[:, None, None]
    )
    body[:10] *= 1.1
    body[-8:] *= 0.7
    wall[bottom - height : bottom, x : x + width] = body
    for leg in (x + 8, x + width - 20):
        cv2.rectangle(wall, (leg, bottom), (leg + 12, wall.shape[0]), (120, 124, 126), -1)


def shelf(rng: np.random.Generator, wall: Picture, x: int, y: int, width: int, wood: Bgr) -> None:
    """A board with books and boxes; `y` is its top edge."""
    left = x + 10
    while left < x + width - 40:
        w, h = int(rng.integers(11, 26)), int(rng.integers(60, 104))
        if rng.random() < 0.16:
            w, h = 62, 54
        shade = rng.uniform(55, 190)
        spine = (shade * rng.uniform(0.7, 1.15), shade * rng.uniform(0.75, 1.1), shade * rng.uniform(0.75, 1.2))
        round_ = 0.72 + 0.4 * np.sin(np.linspace(0.3, 2.6, w, dtype=np.float32))
        wall[y - h : y, left : left + w] = np.asarray(spine, np.float32) * round_[None, :, None]
        cv2.rectangle(
            wall, (left + 3, y - h + 10), (left + w - 4, y - h + 16), tuple(min(c * 1.5 + 20, 235) for c in spine), -1
        )
        left += w + 1 + (int(rng.integers(12, 40)) if rng.random() < 0.18 else 0)
    mask = polygon_mask(wall.shape, np.array([[x, y], [x + width, y], [x + width, y + 15], [x, y + 15]], float))
    shadow(wall, mask, (4, 16), 9, 0.55)
    lay(wall, mask, wood)
    cv2.line(wall, (x, y + 1), (x + width, y + 1), tuple(c * 1.4 for c in wood), 2)


def window(rng: np.random.Generator, wall: Picture, x: int, y: int, w: int, h: int) -> None:
    """A metal-framed window on a blurred evening courtyard."""
    mask = polygon_mask(
        wall.shape,
        np.array([[x - 12, y - 12], [x + w + 12, y - 12], [x + w + 12, y + h + 20], [x - 12, y + h + 20]], float),
    )
    shadow(wall, mask, (0, 6), 7, 0.5)
    lay(wall, mask, (74, 80, 84))
    fade = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    outside = (
        np.asarray((228, 206, 176), np.float32) * (1 - fade)
        + np.asarray((176, 206, 232), np.float32) * fade
        + np.zeros((h, w, 3), np.float32)
    )
    trees = cloud(rng, h, w, 46, 4) + (np.linspace(-3.2, 2.6, h, dtype=np.float32)[:, None])
    leaf = np.clip(cv2.GaussianBlur((trees > 0).astype(np.float32), (0, 0), 5), 0, 1)[:, :, None]
    outside += (
        (np.asarray((92, 128, 104), np.float32) * (1 + 0.16 * cloud(rng, h, w, 22, 3))[:, :, None] - outside)
        * leaf
        * 0.85
    )
    wall[y : y + h, x : x + w] = outside
    for i in range(1, 3):
        cv2.rectangle(wall, (x + w * i // 3 - 3, y), (x + w * i // 3 + 3, y + h), (70, 76, 80), -1)
    cv2.rectangle(wall, (x, y + h // 2 - 3), (x + w, y + h // 2 + 3), (70, 76, 80), -1)
    cv2.rectangle(wall, (x - 22, y + h + 12), (x + w + 22, y + h + 26), (150, 158, 162), -1)


def stain(
    rng: np.random.Generator, wall: Picture, center: tuple[float, float], radius_px: float, strength: float
) -> None:
    """A damp patch with a darker rim, running downwards."""
    h, w = wall.shape[:2]
    y, x = np.ogrid[:h, :w]
    distance = np.sqrt(((x - center[0]) / radius_px) ** 2 + ((y - center[1]) / (radius_px * 1.5)) ** 2) + 0.16 * cloud(
        rng, h, w, radius_px * 0.6, 3
    )
    patch = np.clip(1.1 - distance, 0, 1) * 0.5 + np.exp(-(((distance - 1) / 0.08) ** 2)) * 0.5
    wall *= 1 - strength * patch[:, :, None].astype(np.float32) * np.asarray((1.0, 0.86, 0.74), np.float32)


def stencil(wall: Picture, text: str, x: int, y: int, scale: float, color: Bgr, opacity: float = 0.7) -> None:
    mask = np.zeros(wall.shape[:2], np.uint8)
    cv2.putText(mask, text, (x, y), cv2.FONT_HERSHEY_DUPLEX, scale, 255, max(2, round(scale * 3)), cv2.LINE_AA)
    lay(wall, mask.astype(np.float32) / 255 * opacity, color)
