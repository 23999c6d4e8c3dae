"""Viam's `dataset.jsonl` with the pictures in `images/`, as `viam dataset export` and training scripts have it."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

from gleaner.formats.naming import Names
from gleaner.formats.pixels import clipped
from gleaner.formats.scratch import Spooled
from gleaner.formats.sidecar import capture_of
from gleaner.formats.sources import Source, lines, read_picture, resolve
from gleaner.formats.values import Box, Entry, Picture, Problem, split_of
from gleaner.formats.writing import Report, picture_entry

NAME = "dataset.jsonl"
_EDGES = ("x_min_normalized", "y_min_normalized", "x_max_normalized", "y_max_normalized")
_HINT = "Correct that line, or leave it: the others are read."


def write(pictures: Iterator[Picture], report: Report) -> Iterator[Entry]:
    """Keys that Viam does not have: `file_name`, `split`, `width`, `height`, and a box's `confidence`."""
    names = Names()
    with closing(Spooled()) as listed:
        for picture in pictures:
            path = f"images/{names.of(picture)}"
            listed.write(json.dumps(line_of(path, picture)) + "\n")
            yield picture_entry(path, picture)
        yield listed.entry(NAME)


def line_of(path: str, picture: Picture) -> dict[str, Any]:
    where = picture.capture
    said: dict[str, Any] = {
        "image_path": path,
        "classification_annotations": [{"annotation_label": tag} for tag in picture.tags],
        "bounding_box_annotations": [box_line(box) for box in picture.boxes],
        "timestamp": where.captured_at,
        "binary_data_id": where.binary_data_id,
        "organization_id": where.organization_id,
        "location_id": where.location_id,
        "robot_id": where.robot_id,
        "part_id": where.part_id,
        "component_name": where.component_name,
        "file_name": picture.name,
    }
    if picture.width and picture.height:
        said |= {"width": picture.width, "height": picture.height}
    return said | ({"split": picture.split} if picture.split else {})


def box_line(box: Box) -> dict[str, Any]:
    """A box as an entry of `bounding_box_annotations`."""
    edges = dict(zip(_EDGES, (box.x_min, box.y_min, box.x_max, box.y_max), strict=True))
    said = {"annotation_label": box.label, **edges}
    return said if box.confidence is None else said | {"confidence": box.confidence}


def matches(source: Source) -> bool:
    return bool(_files(source))


def read(source: Source) -> Iterator[Picture | Problem]:
    for file in _files(source):
        for number, text in lines(source, file):
            yield from _read_line(source, file, number, text)


def _files(source: Source) -> list[str]:
    return [path for path in source.paths if posixpath.basename(path) == NAME]


def _read_line(source: Source, file: str, number: int, text: str) -> Iterator[Picture | Problem]:
    try:
        said = json.loads(text)
        image = str(said["image_path"])
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        yield Problem(file, f"the line is no JSON object with image_path ({err!r})", _HINT, number)
        return
    folder = posixpath.dirname(file)
    # Absolute paths of another computer: the file's name in the folders where exports have it.
    bare = posixpath.basename(image.replace("\\", "/"))
    starts = (f"{folder}/{image}", f"{folder}/images/{bare}", f"{folder}/data/{bare}", f"{folder}/{bare}")
    path = resolve(source, *(one.lstrip("/") for one in starts))
    if path is None:
        yield Problem(file, f"there is no picture {image}", "Copy it to that place, or remove the line.", number)
        return
    boxes: list[Box] = []
    for each in _listed(said, "bounding_box_annotations"):
        try:
            sure = each.get("confidence")
            x_min, y_min, x_max, y_max = (float(each[name]) for name in _EDGES)
            label = str(each["annotation_label"])
            boxes.append(clipped(label, x_min, y_min, x_max, y_max, None if sure is None else float(sure)))
        except (KeyError, ValueError, TypeError, AttributeError) as err:
            yield Problem(file, f"a box of {image} cannot be read: {err}", _HINT, number)
    tags: list[str] = []
    for each in _listed(said, "classification_annotations"):
        try:
            tags.append(str(each["annotation_label"]))
        except (KeyError, TypeError):
            yield Problem(file, f"a tag of {image} has no annotation_label", _HINT, number)
    name, split = said.get("file_name"), said.get("split")
    sizes = [said.get(side) for side in ("width", "height")]
    width, height = (one if isinstance(one, int) and one > 0 else 0 for one in sizes)
    yield Picture(
        name if isinstance(name, str) and name else path,
        source.paths[path],
        partial(read_picture, source, path),
        width,
        height,
        tuple(tags),
        tuple(boxes),
        split_of(split) if isinstance(split, str) else "",
        capture_of({**said, "captured_at": said.get("timestamp")}),
    )


def _listed(said: dict[str, Any], name: str) -> list[Any]:
    found = said.get(name)
    return found if isinstance(found, list) else []
