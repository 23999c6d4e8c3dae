"""Pascal VOC: `JPEGImages/`, `Annotations/<stem>.xml`, `ImageSets/Main/<split>.txt`; exact boxes are in the sidecar.

Edges are whole pixels counted from 0, as labelImg and CVAT write them; many readers take nothing else.
"""

from __future__ import annotations

import posixpath
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial

from gleaner.formats.naming import PICTURE_ENDINGS, Names
from gleaner.formats.pixels import clipped, size_of
from gleaner.formats.scratch import Notes, Spooled
from gleaner.formats.sidecar import NAME, Sidecar, capture_of, exact_boxes, name_and_tags, write_line
from gleaner.formats.sources import Source, lines, read_picture
from gleaner.formats.values import Box, Entry, Picture, Problem, split_of
from gleaner.formats.writing import Report, picture_entry

_NOT_XML = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_MAX_XML_BYTES = 16 << 20
_HINT = "Correct the file, or leave it: the others are read."


def write(pictures: Iterator[Picture], report: Report) -> Iterator[Entry]:
    names = Names()
    splits: dict[str, Spooled] = {}
    with closing(Spooled()) as sidecar, ExitStack() as open_spools:
        for picture in pictures:
            size = size_of(picture)
            if isinstance(size, Problem):
                report(size)
                continue
            name = names.of(picture)
            stem = name.rpartition(".")[0]
            if picture.split:
                if picture.split not in splits:
                    splits[picture.split] = open_spools.enter_context(closing(Spooled()))
                splits[picture.split].write(f"{stem}\n")
            path = f"JPEGImages/{name}"
            write_line(sidecar, path, picture)
            yield picture_entry(path, picture)
            yield Entry.of_bytes(f"Annotations/{stem}.xml", _xml(name, picture, *size))
        for split, spooled in splits.items():
            yield spooled.entry(f"ImageSets/Main/{split}.txt")
        yield sidecar.entry(NAME)


def matches(source: Source) -> bool:
    stems = {posixpath.splitext(posixpath.basename(path))[0] for path in source.paths if _is_picture(path)}
    xml = [path for path in source.paths if path.endswith(".xml")]
    return any(posixpath.splitext(posixpath.basename(path))[0] in stems for path in xml)


def read(source: Source) -> Iterator[Picture | Problem]:
    splits = _splits(source)
    annotations, alone = _annotations(source), _alone(source)
    seen = set[str]()
    with Notes() as notes:
        sidecar = Sidecar(source, notes)
        for path in source.paths:
            if not _is_picture(path):
                continue
            size, boxes = (0, 0), tuple[Box, ...]()
            file = _annotation_file(annotations, path, alone)
            if file is not None:
                seen.add(file)
                try:
                    size, boxes, wrong = _parsed(source, file)
                except ValueError as err:
                    yield Problem(file, str(err), _HINT)
                else:
                    yield from (Problem(file, why, _HINT) for why in wrong)
            said = sidecar.of(path)
            name, tags = name_and_tags(said, path)
            exact = exact_boxes(boxes, said, partial(_as_written, size=size)) if all(size) else boxes
            stem = posixpath.splitext(posixpath.basename(path))[0]
            split = splits.get(stem, "")
            capture = capture_of(said.get("capture"))
            yield Picture(
                name, source.paths[path], partial(read_picture, source, path), *size, tags, exact, split, capture
            )
    for path in source.paths:
        if path.lower().startswith("annotations/") and path.lower().endswith(".xml") and path not in seen:
            yield Problem(path, "there is no picture for this file", "Put it into JPEGImages/, or remove the file.")


def _is_picture(path: str) -> bool:
    return path.lower().endswith(PICTURE_ENDINGS)


def _edges(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """At least one pixel large."""
    x, y = min(round(box.x_min * width), width - 1), min(round(box.y_min * height), height - 1)
    return x, y, max(round(box.x_max * width), x + 1), max(round(box.y_max * height), y + 1)


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _as_written(box: Box, size: tuple[int, int]) -> Box:
    width, height = size
    x, y, right, bottom = _edges(box, width, height)
    return Box(_text(box.label).strip(), x / width, y / height, right / width, bottom / height)


def _xml(name: str, picture: Picture, width: int, height: int) -> bytes:
    root = ET.Element("annotation")
    for tag, text in (("folder", "JPEGImages"), ("filename", name)):
        ET.SubElement(root, tag).text = text
    size = ET.SubElement(root, "size")
    for tag, number in (("width", width), ("height", height), ("depth", 3)):
        ET.SubElement(size, tag).text = str(number)
    ET.SubElement(root, "segmented").text = "0"
    for box in picture.boxes:
        one = ET.SubElement(root, "object")
        said = (("name", _text(box.label)), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0"))
        for tag, text in said:
            ET.SubElement(one, tag).text = text
        edges = ET.SubElement(one, "bndbox")
        for tag, number in zip(("xmin", "ymin", "xmax", "ymax"), _edges(box, width, height), strict=True):
            ET.SubElement(edges, tag).text = str(number)
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _splits(source: Source) -> dict[str, str]:
    """Split by stem. `trainval` is none."""
    found: dict[str, str] = {}
    for path in source.paths:
        folder, name = posixpath.split(path)
        split = split_of(name.removesuffix(".txt"))
        if split and folder.endswith("ImageSets/Main"):
            found |= {text: split for _, text in lines(source, path)}
    return found


def _annotations(source: Source) -> dict[str, list[str]]:
    """Paths of XML files by their stem."""
    found: dict[str, list[str]] = {}
    for path in source.paths:
        stem, ending = posixpath.splitext(posixpath.basename(path))
        if ending.lower() == ".xml":
            found.setdefault(stem, []).append(path)
    return found


def _alone(source: Source) -> set[str]:
    """Stems that one picture alone has."""
    counts = Counter(posixpath.splitext(posixpath.basename(path))[0] for path in source.paths if _is_picture(path))
    return {stem for stem, count in counts.items() if count == 1}


def _annotation_file(annotations: dict[str, list[str]], path: str, alone: set[str]) -> str | None:
    """Beside the picture, in a folder `Annotations` beside its own or at the root (in any case), or where there is only one
    picture and one file of that name, wherever that is."""
    folder, name = posixpath.split(path)
    stem = posixpath.splitext(name)[0]
    named = annotations.get(stem, [])
    near = (folder, f"{posixpath.dirname(folder)}/annotations".lstrip("/"), "annotations")
    for place in near:
        for one in named:
            if posixpath.dirname(one).lower() == place.lower():
                return one
    return named[0] if len(named) == 1 and stem in alone else None


def _parsed(source: Source, file: str) -> tuple[tuple[int, int], tuple[Box, ...], list[str]]:
    """((width, height), boxes, what is wrong with others). Raises ValueError."""
    if source.paths[file] > _MAX_XML_BYTES:
        raise ValueError(f"the file is larger than {_MAX_XML_BYTES >> 20} MB")
    with source.open(file) as opened:
        content = opened.read()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("it declares a DOCTYPE, which annotations have no use for and which can be an attack")
    try:
        root = ET.fromstring(content)
        width, height = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ET.ParseError, ValueError, OverflowError, LookupError) as err:  # LookupError: an encoding nobody knows
        raise ValueError(f"it is no readable XML annotation: {err}") from err
    if width <= 0 or height <= 0:
        raise ValueError("it has no <size> with width and height")
    boxes: list[Box] = []
    wrong: list[str] = []
    for number, one in enumerate(root.iter("object"), 1):
        label = (one.findtext("name") or "").strip()
        try:
            edges = [float(one.findtext(f"bndbox/{edge}") or "") for edge in ("xmin", "ymin", "xmax", "ymax")]
            sides = (width, height, width, height)
            boxes.append(clipped(label, *(edge / side for edge, side in zip(edges, sides, strict=True))))
        except ValueError as err:
            wrong.append(f"object {number} ({label or 'no name'}) has no usable bndbox: {err}")
    return (width, height), tuple(boxes), wrong
