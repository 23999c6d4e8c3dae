"""COCO detection: `annotations/instances_<split>.json` and `images/<split>/`. Tags and the rest in keys of our own.

Pictures of no split are in `default`. Boxes are [left, top, width, height] in pixels, not rounded. Masks are not kept: where an
annotation has no box, it is the one around its mask, and the reader says how many masks there were.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from gleaner.formats.coco_masks import box_around
from gleaner.formats.json_stream import JsonProblem, elements
from gleaner.formats.naming import Names
from gleaner.formats.pixels import from_xywh, size_of, to_xywh
from gleaner.formats.scratch import Notes, Spooled
from gleaner.formats.sidecar import capture_of, described, exact_boxes, name_and_tags
from gleaner.formats.sources import Source, read_picture, resolve
from gleaner.formats.values import Box, Entry, Picture, Problem, split_of
from gleaner.formats.writing import Report, picture_entry

_NO_SPLIT = "default"
_HINT = "Correct that entry, or leave it: the others are read."


def write(pictures: Iterator[Picture], report: Report) -> Iterator[Entry]:
    names, categories = Names(), dict[str, int]()
    spools: dict[str, tuple[Spooled, Spooled]] = {}
    counts = {"image": 0, "annotation": 0}
    try:
        for picture in pictures:
            size = size_of(picture)
            if isinstance(size, Problem):
                report(size)
                continue
            split = picture.split or _NO_SPLIT
            if split not in spools:
                spools[split] = Spooled(), Spooled()
            images, notes = spools[split]
            name = names.of(picture, split)
            counts["image"] += 1
            image = {"id": counts["image"], "file_name": name, "width": size[0], "height": size[1]}
            image |= {"date_captured": picture.capture.captured_at, "gleaner": described(picture)}
            images.write((",\n" if images.size else "") + json.dumps(image))
            for box in picture.boxes:
                counts["annotation"] += 1
                category = categories.setdefault(box.label, len(categories) + 1)
                note = _annotation(box, size) | {"id": counts["annotation"], "image_id": counts["image"]}
                notes.write((",\n" if notes.size else "") + json.dumps(note | {"category_id": category}))
            yield picture_entry(f"images/{split}/{name}", picture)
        if not spools:
            spools[_NO_SPLIT] = Spooled(), Spooled()
        for split, (images, notes) in spools.items():
            yield _joined(f"annotations/instances_{split}.json", images, notes, categories)
    finally:
        for images, notes in spools.values():
            images.close()
            notes.close()


def matches(source: Source) -> bool:
    return bool(_files(source))


def read(source: Source) -> Iterator[Picture | Problem]:
    files = _files(source)
    listed: set[str] = set()
    for file in files:
        with Notes() as notes:
            categories: dict[Any, str] = {}
            try:
                yield from _gather(source, file, notes, categories)
                with source.open(file) as opened:
                    for _, number, image in elements(opened, frozenset({"images"})):
                        found = _picture(source, file, f"images[{number}]", image, notes, categories)
                        if isinstance(found, tuple):
                            listed.add(found[0])
                            yield from found[1]
                        else:
                            yield found
            except JsonProblem as err:
                yield Problem(file, str(err), "Export it again; what stood before that place has been read.")


def _annotation(box: Box, size: tuple[int, int]) -> dict[str, Any]:
    xywh = to_xywh(box, *size)
    note: dict[str, Any] = {"bbox": xywh, "area": xywh[2] * xywh[3], "iscrowd": 0, "segmentation": []}
    return note if box.confidence is None else note | {"score": box.confidence}


def _joined(path: str, images: Spooled, notes: Spooled, categories: dict[str, int]) -> Entry:
    listed = [{"id": number, "name": label, "supercategory": ""} for label, number in categories.items()]
    start, middle = (
        b'{"info": {"description": "exported by Gleaner"}, "licenses": [], "images": [',
        b'],\n"annotations": [',
    )
    end = f'],\n"categories": {json.dumps(listed)}}}\n'.encode()

    def chunks() -> Iterator[bytes]:
        yield start
        yield from images.chunks()
        yield middle
        yield from notes.chunks()
        yield end

    return Entry(path, len(start) + images.size + len(middle) + notes.size + len(end), chunks)


def _files(source: Source) -> list[str]:
    """By what is in them: people name them instances_val2017.json, _annotations.coco.json, annotations.json, my-boxes.json …"""
    return [path for path in source.paths if path.endswith(".json") and _is_coco(source, path)]


def _is_coco(source: Source, path: str) -> bool:
    with source.open(path) as file:
        head = file.read(1 << 16)
    lists = sum(name in head for name in (b'"images"', b'"annotations"', b'"categories"'))
    folder, name = posixpath.split(path)
    if name.endswith("coco.json") or name.startswith("instances") or folder.rpartition("/")[2] == "annotations":
        return lists > 0
    # A long list hides the others; what its entries hold is as telling.
    return lists > 1 or (
        lists == 1 and any(name in head for name in (b'"file_name"', b'"image_id"', b'"supercategory"'))
    )


def _gather(source: Source, file: str, notes: Notes, categories: dict[Any, str]) -> Iterator[Problem]:
    masks = 0
    with source.open(file) as opened:
        for kind, number, one in elements(opened, frozenset({"annotations", "categories"})):
            try:
                if kind == "categories":
                    categories[one["id"]] = str(one["name"])
                elif one.get("bbox") or one.get("segmentation"):  # captions and others have neither
                    masks += bool(one.get("segmentation"))
                    kept = {name: one.get(name) for name in ("bbox", "category_id", "score")} | {"at": number}
                    kept["bbox"] = kept["bbox"] or box_around(one["segmentation"])
                    notes.add(f"image:{one['image_id']}", json.dumps(kept))
            except (KeyError, TypeError, AttributeError) as err:
                yield Problem(file, f"{kind}[{number}] has no {err}", _HINT)
            except ValueError as err:
                yield Problem(file, f"{kind}[{number}]: {err}", _HINT)
    if masks:
        what = "1 annotation has a mask" if masks == 1 else f"{masks:,} annotations have masks"
        yield Problem(file, f"{what}, of which only the boxes are kept", "Keep the file for other programs.")


def _picture(
    source: Source, file: str, place: str, image: Any, notes: Notes, categories: dict[Any, str]
) -> Problem | tuple[str, list[Picture | Problem]]:
    try:
        name, width, height = str(image["file_name"]), int(image["width"]), int(image["height"])
        own = image.get("gleaner")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        return Problem(file, f"{place} is no picture with file_name, width and height ({err!r})", _HINT)
    split = _split_of_file(file)
    folder = posixpath.dirname(file)
    up, said = posixpath.dirname(folder), split[0]
    starts = (f"{up}/images/{said}", folder, f"{up}/{said}", f"{up}/images", up, f"{up}/data", f"{folder}/images")
    path = resolve(source, *(f"{start}/{name}".lstrip("/") for start in starts))
    if path is None:
        return Problem(
            file, f"{place}: there is no picture {name}", f"Put it into images/{said}/, or remove the entry."
        )
    if width <= 0 or height <= 0:
        return Problem(file, f"{place}: {name} is {width}×{height} pixels large", "Write its real width and height.")
    found: list[Box] = []
    problems: list[Picture | Problem] = []
    for text in notes.of(f"image:{image.get('id')}"):
        note = json.loads(text)
        try:
            label = categories[note["category_id"]]
            found.append(from_xywh(label, note["bbox"], width, height, note["score"]))
        except (KeyError, ValueError, TypeError) as err:
            why = f"there is no category {err}" if isinstance(err, KeyError) else str(err)
            problems.append(Problem(file, f"annotations[{note['at']}] of {name}: {why}", _HINT))
    said_own = own if isinstance(own, dict) else {}
    named, tags = name_and_tags(said_own, name)
    boxes = exact_boxes(tuple(found), said_own, partial(_as_written, size=(width, height)))
    capture = capture_of(said_own.get("capture") or {"captured_at": str(image.get("date_captured") or "")})
    read_it = partial(read_picture, source, path)
    picture = Picture(named, source.paths[path], read_it, width, height, tags, boxes, split[1], capture)
    return path, [*problems, picture]


def _as_written(box: Box, size: tuple[int, int]) -> Box:
    try:
        return from_xywh(box.label, to_xywh(box, *size), *size, box.confidence)
    except ValueError:
        return box


def _split_of_file(file: str) -> tuple[str, str]:
    """(as the file calls it, split): `instances_val2017.json` and `valid/_annotations.coco.json` are both `val`."""
    folder, name = posixpath.split(file)
    match = re.fullmatch(r"instances_(.+)\.json", name)
    said = match[1] if match else folder.rpartition("/")[2]
    if not match and split_of(name.removesuffix(".json")):
        said = name.removesuffix(".json")
    return said, split_of(re.sub(r"\d+$", "", said))
