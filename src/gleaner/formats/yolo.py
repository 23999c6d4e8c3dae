"""YOLO as Ultralytics has it: `data.yaml`, `images/<split>/`, `labels/<split>/`; what it cannot say is in the sidecar.

Pictures of no split are in `train`, because Ultralytics reads nothing else. Names in folders are flattened: Ultralytics
finds labels by replacing the last `/images/` of a path.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

from gleaner.formats.naming import PICTURE_ENDINGS, Names
from gleaner.formats.pixels import clipped
from gleaner.formats.scratch import Notes, Spooled
from gleaner.formats.sidecar import NAME, Sidecar, capture_of, exact_boxes, name_and_tags, write_line
from gleaner.formats.sources import Source, lines, read_picture
from gleaner.formats.values import SPLITS, Box, Entry, FormatProblem, Picture, Problem, split_of
from gleaner.formats.writing import Report, picture_entry

_HINT = "Correct that line, or leave it: the others are read."
# JSON's strings are YAML's, but for characters that YAML breaks lines at or does not allow.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def write(pictures: Iterator[Picture], report: Report) -> Iterator[Entry]:
    names, classes, used = Names(), dict[str, int](), set[str]()
    with closing(Spooled()) as sidecar:
        for picture in pictures:
            split = picture.split or "train"
            used.add(split)
            name = names.of(picture, split)
            stem = name.rpartition(".")[0]
            rows = [f"{classes.setdefault(box.label, len(classes))} {_numbers(box)}\n" for box in picture.boxes]
            write_line(sidecar, f"images/{picture.split or '-'}/{name}", picture)
            yield picture_entry(f"images/{split}/{name}", picture)
            yield Entry.of_bytes(f"labels/{split}/{stem}.txt", "".join(rows).encode())
        yield sidecar.entry(NAME)
    yield Entry.of_bytes("data.yaml", _described(classes, used).encode())


def matches(source: Source) -> bool:
    return _yaml_of(source) is not None or "classes.txt" in source.paths


def read(source: Source) -> Iterator[Picture | Problem]:
    classes, splits = _classes_and_splits(source)
    seen = set[str]()
    with Notes() as notes:
        sidecar = Sidecar(source, notes)
        for path in source.paths:
            if not path.lower().endswith(PICTURE_ENDINGS):
                continue
            split = _split_of_path(path, splits)
            label_file = _label_file(source, path)
            boxes: list[Box] = []
            if label_file is not None:
                seen.add(label_file)
                for number, text in lines(source, label_file):
                    try:
                        boxes.append(_box(text, classes))
                    except ValueError as err:
                        yield Problem(label_file, str(err), _HINT, number)
            said = sidecar.of(path)
            if not said and split == "train":
                unsplit = sidecar.of(path.replace("images/train/", "images/-/", 1))
                said, split = (unsplit, "") if unsplit else (said, split)
            name, tags = name_and_tags(said, path)
            exact = exact_boxes(tuple(boxes), said, _as_written)
            capture = capture_of(said.get("capture"))
            read_it = partial(read_picture, source, path)
            yield Picture(name, source.paths[path], read_it, 0, 0, tags, exact, split, capture)
    for path in source.paths:
        if path.endswith(".txt") and "labels" in path.split("/") and path not in seen:
            yield Problem(path, "there is no picture for these labels", "Add the picture, or remove the file.")


def _numbers(box: Box) -> str:
    centre = ((box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2, box.x_max - box.x_min, box.y_max - box.y_min)
    return " ".join(repr(float(one)) for one in centre)


def _as_written(box: Box) -> Box:
    try:
        return _box(f"0 {_numbers(box)}", {0: box.label})
    except ValueError:
        return box


def _described(classes: dict[str, int], used: set[str]) -> str:
    said = ["# A data set for Ultralytics YOLO, exported by Gleaner", "path: ."]
    said.append("train: images/train")
    # Ultralytics wants a `val`; without one it would not start at all.
    said.append("val: images/val" if "val" in used else "val: images/train  # there is no split: choose your own")
    said += ["test: images/test"] if "test" in used else []
    said += [f"nc: {len(classes)}", "names:" if classes else "names: {}"]
    said += [f"  {number}: {_yaml_text(label)}" for label, number in classes.items()]
    return "\n".join(said) + "\n"


def _yaml_text(text: str) -> str:
    plain = json.dumps(text, ensure_ascii=False)
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", plain)


def _yaml_of(source: Source) -> str | None:
    at_root = [path for path in source.paths if path.endswith((".yaml", ".yml")) and "/" not in path]
    return "data.yaml" if "data.yaml" in at_root else at_root[0] if at_root else None


def _classes_and_splits(source: Source) -> tuple[dict[int, str], dict[str, str]]:
    """(class names by number, split by folder or by picture). Raises FormatProblem."""
    file = _yaml_of(source)
    if file is None and "classes.txt" not in source.paths:
        raise FormatProblem("There is no data.yaml (or classes.txt) that names the classes. Add it beside images/")
    if file is None:
        return {number - 1: text for number, text in lines(source, "classes.txt")}, {}
    said = _parsed(source, file)
    names = said.get("names")
    try:
        pairs = names.items() if isinstance(names, dict) else enumerate(names or ())
        classes = {int(number): str(name) for number, name in pairs}
    except (TypeError, ValueError) as err:
        raise FormatProblem(f"{file}: names is neither a list nor numbers with names ({err}). Correct it") from err
    splits: dict[str, str] = {}
    for split in SPLITS:
        value = said.get("val" if split == "val" and "val" in said else "valid" if split == "val" else split)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                splits |= dict.fromkeys(_pictures_or_folder(source, str(said.get("path") or ""), one), split)
    return classes, splits


def _parsed(source: Source, file: str) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as err:
        raise FormatProblem("Reading data.yaml needs PyYAML: pip install 'gleaner[export]'") from err
    with source.open(file) as opened:
        try:
            said = yaml.safe_load(opened.read())
        except (yaml.YAMLError, UnicodeDecodeError) as err:
            raise FormatProblem(f"{file} is no valid YAML: {err}. Correct it") from err
    if not isinstance(said, dict):
        raise FormatProblem(f"{file} holds no `names` and `train`. Write them as Ultralytics describes")
    return said


def _pictures_or_folder(source: Source, root: str, value: str) -> list[str]:
    tried = [posixpath.normpath(posixpath.join(root, value)), posixpath.normpath(value)]
    for path in (re.sub(r"^(\.\./|/)+", "", one) for one in tried):
        if path in source.paths:
            return [posixpath.normpath(text) for _, text in lines(source, path)]
        if any(one.startswith(f"{path}/") for one in source.paths):
            return [path]
    return []


def _split_of_path(path: str, splits: dict[str, str]) -> str:
    if path in splits:
        return splits[path]
    parts = path.split("/")
    # The folder's own name first: with `val: images/train` all of `train` would be `val`.
    if by_name := next((split_of(part) for part in parts[:-1] if split_of(part)), ""):
        return by_name
    return next((splits[one] for n in range(len(parts), 0, -1) if (one := "/".join(parts[:n])) in splits), "")


def _label_file(source: Source, path: str) -> str | None:
    folders, name = posixpath.split(path)
    stem = name.rpartition(".")[0]
    parts = folders.split("/")
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        candidate = "/".join([*parts[:last], "labels", *parts[last + 1 :], f"{stem}.txt"])
        return candidate if candidate in source.paths else None
    beside = f"{folders}/{stem}.txt".lstrip("/")
    return beside if beside in source.paths else None


def _box(text: str, classes: dict[int, str]) -> Box:
    """`class x y width height [confidence]`, or a polygon `class x y x y x y…`, which becomes its box."""
    first, *rest = text.split()
    try:
        number, values = int(first), [float(one) for one in rest]
    except ValueError:
        raise ValueError(f"{text[:60]!r} is not a class number and coordinates") from None
    if number not in classes:
        raise ValueError(f"there is no class {number} among the {len(classes)} names")
    if len(values) >= 6 and len(values) % 2 == 0:
        return clipped(classes[number], min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    if len(values) not in (4, 5):
        raise ValueError(f"{len(values)} numbers follow the class, expected x, y, width and height")
    x, y, w, h = values[:4]
    sure = values[4] if len(values) == 5 else None
    return clipped(classes[number], x - w / 2, y - h / 2, x + w / 2, y + h / 2, sure)
