"""What every format is read into and written from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"} | {
    "test": "test",
    "testing": "test",
}
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Box:
    """Normalised: 0–1, x to the right, y down. `confidence` is None for a box a person drew."""

    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    confidence: float | None = None

    def __post_init__(self) -> None:
        edges = (self.x_min, self.y_min, self.x_max, self.y_max)
        if not all(math.isfinite(edge) for edge in edges):
            raise ValueError(f"the box {self.label!r} has an edge that is no number: {edges}")


@dataclass(frozen=True)
class Capture:
    """Where and when a picture was taken; empty where unknown. `captured_at` is ISO 8601."""

    captured_at: str = ""
    binary_data_id: str = ""
    organization_id: str = ""
    location_id: str = ""
    robot_id: str = ""
    part_id: str = ""
    component_name: str = ""


@dataclass(frozen=True)
class Picture:
    """One picture and what is known of it. `name` is its path where it came from, with `/` between folders."""

    name: str
    size: int
    read: Callable[[], bytes] = field(compare=False, repr=False)
    width: int = 0
    height: int = 0
    tags: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    split: str = ""
    capture: Capture = Capture()

    def __post_init__(self) -> None:
        if self.split and self.split not in SPLITS:
            raise ValueError(f"{self.name} is in the split {self.split!r}, expected one of {', '.join(SPLITS)} or none")


@dataclass(frozen=True)
class Problem:
    """One thing that could not be read and was left out; `line` is 0 where there are no lines."""

    file: str
    what: str
    hint: str
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}, line {self.line}" if self.line else self.file
        return f"{place}: {self.what}. {self.hint}"


class FormatProblem(Exception):
    """The whole data set cannot be read or written; the text says what, why and what to do."""


@dataclass(frozen=True)
class Entry:
    """One file of an export. `open` may be called again and gives the same `size` bytes each time."""

    path: str
    size: int
    open: Callable[[], Iterator[bytes]] = field(repr=False)

    @classmethod
    def of_bytes(cls, path: str, content: bytes) -> Entry:
        return cls(path, len(content), lambda: iter((content,)))


def split_of(name: str) -> str:
    """`train`, `val` or `test` for the many ways to write them; empty for anything else."""
    return _SPLIT_NAMES.get(name.strip().lower(), "")


SPLIT_TAG = "split:"
"""Where there are only tags, `split:train`, `split:val` and `split:test` say the split."""


def split_off(tags: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """(tags without those that say a split, the split)."""
    said = [tag for tag in tags if tag.startswith(SPLIT_TAG) and tag.removeprefix(SPLIT_TAG) in SPLITS]
    return tuple(tag for tag in tags if tag not in said), said[0].removeprefix(SPLIT_TAG) if said else ""
