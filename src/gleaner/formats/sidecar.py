"""`gleaner.jsonl`: beside formats that cannot say it all, what they leave out. Other programs do not look at it.

One line a picture: `path` in the export, original `name`, `tags`, `capture` and the exact `boxes`. On import the format's
own files win: a box counts as the exact one only if the format would still write it as it stands there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from gleaner.formats.scratch import Notes, Spooled
from gleaner.formats.sources import Source, lines
from gleaner.formats.values import Box, Capture, Picture

NAME = "gleaner.jsonl"
_CAPTURE = tuple(Capture.__dataclass_fields__)


def write_line(spooled: Spooled, path: str, picture: Picture) -> None:
    spooled.write(json.dumps({"path": path, **described(picture)}) + "\n")


def described(picture: Picture) -> dict[str, Any]:
    """Everything of a picture but its bytes and size."""
    said: dict[str, Any] = {"name": picture.name, "tags": list(picture.tags)}
    said["boxes"] = [[b.label, b.x_min, b.y_min, b.x_max, b.y_max, b.confidence] for b in picture.boxes]
    said["capture"] = {name: value for name, value in asdict(picture.capture).items() if value}
    return said


class Sidecar:
    """What `gleaner.jsonl` says of a path; nothing if there is none, or of lines somebody broke."""

    def __init__(self, source: Source, notes: Notes) -> None:
        self._notes = notes
        for _, text in lines(source, NAME) if NAME in source.paths else ():
            try:
                self._notes.add(f"sidecar:{json.loads(text)['path']}", text)
            except (ValueError, KeyError, TypeError):
                continue

    def of(self, path: str) -> dict[str, Any]:
        try:
            found = [json.loads(text) for text in self._notes.of(f"sidecar:{path}")]
            return dict(found[-1]) if found else {}
        except ValueError:
            return {}


def name_and_tags(said: dict[str, Any], path: str, tags: Iterable[str] = ()) -> tuple[str, tuple[str, ...]]:
    named, listed = said.get("name"), said.get("tags")
    known = tuple(one for one in listed if isinstance(one, str)) if isinstance(listed, list) else tuple(tags)
    return (named if isinstance(named, str) and named else path), known


def capture_of(said: Any) -> Capture:
    if not isinstance(said, dict):
        return Capture()
    return Capture(**{name: said[name] for name in _CAPTURE if isinstance(said.get(name), str)})


def exact_boxes(found: tuple[Box, ...], said: dict[str, Any], as_written: Callable[[Box], Box]) -> tuple[Box, ...]:
    """The boxes of the format's file, each replaced by the exact one it was written from, if nobody has changed it."""
    exact: dict[Box, list[Box]] = {}
    for box in boxes_of(said):
        exact.setdefault(as_written(box), []).append(box)
    return tuple(exact[box].pop(0) if exact.get(box) else box for box in found)


def boxes_of(said: dict[str, Any]) -> tuple[Box, ...]:
    """Without those that somebody broke."""
    found: list[Box] = []
    for one in said.get("boxes") or ():
        try:
            label, x_min, y_min, x_max, y_max, sure = one
            edges = float(x_min), float(y_min), float(x_max), float(y_max)
            found.append(Box(str(label), *edges, None if sure is None else float(sure)))
        except (ValueError, TypeError):
            continue
    return tuple(found)
