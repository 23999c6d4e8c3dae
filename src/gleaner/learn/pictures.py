"""Reads the dataset's pictures once, in parallel, at the size the network wants, and chooses that size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gleaner.learn.errors import RunProblem
from gleaner.learn.picture_file import PictureFile
from gleaner.learn.request import Example, Skipped
from gleaner.wire.picture import PictureProblem, Rgb, picture_size, read_rgb, resize_rgb

TARGET_PIXELS = 144 * 192
"""Of the network's input. 128×160 loses small shapes seen across a room, 192×256 halves the steps a minute holds."""
SMALLEST_SIDE, LARGEST_SIDE, SIDE_STEP = 64, 256, 16
_SIZED_PICTURES = 200
_CHUNK = 64


@dataclass(frozen=True)
class Loaded:
    """Pictures of one size, in the order of `examples`."""

    examples: list[Example]
    pixels: PictureFile
    skipped: list[Skipped]
    left_out: int
    """Pictures not read because time ran out."""


def choose_input_size(
    examples: Sequence[Example], pixels: int = TARGET_PIXELS, largest: int = LARGEST_SIDE
) -> tuple[int, int]:
    """(height, width): the pictures' usual shape at about `pixels`, never larger than the pictures are; multiples of SIDE_STEP."""
    sizes = [size for example in examples[:_SIZED_PICTURES] if (size := _size_of(example.path))]
    if not sizes:
        return SMALLEST_SIDE, SMALLEST_SIDE
    height, width = (float(np.median([size[axis] for size in sizes])) for axis in (0, 1))
    aspect = min(2.0, max(0.5, width / height))
    area = min(pixels, height * width)
    return _rounded(math.sqrt(area / aspect), largest), _rounded(math.sqrt(area * aspect), largest)


def load_pictures(
    examples: Sequence[Example],
    size: tuple[int, int],
    threads: int,
    in_time: Callable[[], bool],
    on_progress: Callable[[int], None],
    folder: Path,
) -> Loaded:
    """Decodes and shrinks into a file without a name in `folder`. Broken files are listed in `skipped`; reading stops early once `in_time` says no."""
    kept: list[Example] = []
    pixels = PictureFile(folder, size)
    skipped: list[Skipped] = []
    done = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="read-pictures") as pool:
        while done < len(examples) and (in_time() or not kept):
            chunk = examples[done : done + _CHUNK]
            made: list[Rgb] = []
            for example, read in zip(chunk, pool.map(lambda e: _read(e.path, size), chunk), strict=True):
                if isinstance(read, str):
                    skipped.append(Skipped(example.id, read))
                else:
                    kept.append(example)
                    made.append(read)
            _append(pixels, made)
            done += len(chunk)
            on_progress(done)
    return Loaded(kept, pixels, skipped, len(examples) - done)


def _append(pixels: PictureFile, made: list[Rgb]) -> None:
    try:
        pixels.append(made)
    except OSError as error:
        raise RunProblem(
            f"The pictures cannot be put down for the training: {error.strerror}.",
            "Make room on the disk that holds Gleaner's data, or train on fewer pictures.",
        ) from error


def _read(path: Path, size: tuple[int, int]) -> Rgb | str:
    """The picture, or why it cannot be used."""
    try:
        return resize_rgb(read_rgb(path.read_bytes(), fit=size), *size)
    except PictureProblem as error:
        return str(error)
    except OSError as error:
        return f"the file cannot be read ({error.strerror})"


def _size_of(path: Path) -> tuple[int, int] | None:
    try:
        return picture_size(path.read_bytes())
    except (OSError, PictureProblem):
        return None


def _rounded(side: float, largest: int) -> int:
    return min(largest, max(SMALLEST_SIDE, round(side / SIDE_STEP) * SIDE_STEP))
