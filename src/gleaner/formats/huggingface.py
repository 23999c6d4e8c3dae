"""Hugging Face `datasets`' imagefolder: `<split>/metadata.jsonl` beside the pictures, boxes as `objects`.

Pictures of no split are in `train`, because `datasets` has no data without a split. Boxes are [left, top, width, height]
in pixels.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from gleaner.formats.naming import Names
from gleaner.formats.pixels import from_xywh, size_of, size_of_bytes, to_xywh
from gleaner.formats.scratch import Notes, Spooled
from gleaner.formats.sidecar import NAME, Sidecar, capture_of, exact_boxes, name_and_tags, write_line
from gleaner.formats.sources import Source, lines, read_picture, resolve
from gleaner.formats.values import Box, Entry, FormatProblem, Picture, Problem, split_of
from gleaner.formats.writing import Report, picture_entry

_METADATA = "metadata.jsonl"
_HINT = "Correct that line, or leave it: the others are read."


def write(pictures: Iterator[Picture], report: Report) -> Iterator[Entry]:
    names = Names()
    spools: dict[str, Spooled] = {}
    with closing(Spooled()) as sidecar, ExitStack() as open_spools:
        for picture in pictures:
            size = size_of(picture)
            if isinstance(size, Problem):
                report(size)
                continue
            split = picture.split or "train"
            if split not in spools:
                spools[split] = open_spools.enter_context(closing(Spooled()))
            name = names.of(picture, split)
            spools[split].write(json.dumps(row_of(picture, size) | {"file_name": name}) + "\n")
            write_line(sidecar, f"{picture.split or '-'}/{name}", picture)
            yield picture_entry(f"{split}/{name}", picture)
        for split, spooled in spools.items():
            yield spooled.entry(f"{split}/{_METADATA}")
        yield sidecar.entry(NAME)


def row_of(picture: Picture, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "width": size[0],
        "height": size[1],
        "tags": list(picture.tags),
        "objects": {
            "bbox": [to_xywh(box, *size) for box in picture.boxes],
            "category": [box.label for box in picture.boxes],
        },
    }


def matches(source: Source) -> bool:
    return any(posixpath.basename(path) == _METADATA for path in source.paths)


def read(source: Source) -> Iterator[Picture | Problem]:
    with Notes() as notes:
        sidecar = Sidecar(source, notes)
        for file in source.paths:
            if posixpath.basename(file) == _METADATA:
                for number, text in lines(source, file):
                    yield from _read_line(source, file, number, text, sidecar)


def _read_line(source: Source, file: str, number: int, text: str, sidecar: Sidecar) -> Iterator[Picture | Problem]:
    try:
        row = json.loads(text)
        image = str(row["file_name"])
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        yield Problem(file, f"the line is no JSON object with file_name ({err!r})", _HINT, number)
        return
    folder = posixpath.dirname(file)
    path = resolve(source, f"{folder}/{image}".lstrip("/"))
    if path is None:
        yield Problem(file, f"there is no picture {image}", "Copy it to that place, or remove the line.", number)
        return
    said, split = sidecar.of(path), split_of(folder.partition("/")[0])
    if not said and split == "train":
        unsplit = sidecar.of(f"-/{path.partition('/')[2]}")
        said, split = (unsplit, "") if unsplit else (said, split)
    read_it = partial(read_picture, source, path)
    try:
        yield from picture_of_row(row, path, source.paths[path], read_it, said, split)
    except (ValueError, TypeError, KeyError, OverflowError, FormatProblem) as err:
        yield Problem(file, f"{image}: {err}", _HINT, number)


def picture_of_row(
    row: dict[str, Any], path: str, size_bytes: int, read_it: Any, said: dict[str, Any], split: str
) -> Iterator[Picture]:
    """Raises ValueError for boxes that are none."""
    objects = row.get("objects") or {}
    bboxes = list(objects.get("bbox") or []) if isinstance(objects, dict) else []
    labels: list[Any] = []
    if bboxes:
        labels = next((list(objects[key]) for key in ("category", "categories", "label") if objects.get(key)), [])
    if len(labels) != len(bboxes):
        raise ValueError(f"{len(bboxes)} boxes have {len(labels)} categories")
    width, height = (int(row.get(side) or 0) for side in ("width", "height"))
    if bboxes and not (width > 0 and height > 0):
        found = size_of_bytes(path, read_it())
        if isinstance(found, Problem):
            raise ValueError(found.what)
        width, height = found
    boxes = tuple(from_xywh(str(name), list(xywh), width, height) for xywh, name in zip(bboxes, labels, strict=True))
    tags = row.get("tags") or ([row["label"]] if isinstance(row.get("label"), str) else [])
    name, known = name_and_tags(said, path, [str(tag) for tag in tags])
    exact = exact_boxes(boxes, said, partial(_as_written, size=(width, height)))
    capture = capture_of(said.get("capture"))
    yield Picture(name, size_bytes, read_it, width, height, known, exact, split, capture)


def _as_written(box: Box, size: tuple[int, int]) -> Box:
    try:
        return from_xywh(box.label, to_xywh(box, *size), *size)
    except ValueError:
        return box
