"""A folder per class, as image classifiers learn from: `[<split>/]<class>/<picture>`.

The class is the first tag; further tags and the boxes are in the sidecar. Pictures without tags are in `unlabeled`.
A picture that was moved to another folder since belongs to that class: the sidecar only knows it where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

from gleaner.formats.naming import PICTURE_ENDINGS, Names, safe_name
from gleaner.formats.scratch import Notes, Spooled
from gleaner.formats.sidecar import NAME, Sidecar, boxes_of, capture_of, name_and_tags, write_line
from gleaner.formats.sources import Source, read_picture
from gleaner.formats.values import Entry, Picture, Problem, split_of
from gleaner.formats.writing import Report, picture_entry

_UNTAGGED = ("unlabeled", "unlabelled", "_unlabeled")


def write(pictures: Iterator[Picture], report: Report) -> Iterator[Entry]:
    names = Names()
    with closing(Spooled()) as sidecar:
        for picture in pictures:
            label = safe_name(picture.tags[0]) if picture.tags else _UNTAGGED[0]
            # A class that is called like a split would be taken for one.
            label = f"_{label}" if split_of(label) else label
            folder = f"{picture.split}/{label}" if picture.split else label
            path = f"{folder}/{names.of(picture, folder)}"
            write_line(sidecar, path, picture)
            yield picture_entry(path, picture)
        yield sidecar.entry(NAME)


def matches(source: Source) -> bool:
    return any(path.lower().endswith(PICTURE_ENDINGS) for path in source.paths)


def read(source: Source) -> Iterator[Picture | Problem]:
    with Notes() as notes:
        sidecar = Sidecar(source, notes)
        for path in source.paths:
            if path.lower().endswith(PICTURE_ENDINGS):
                yield _picture(source, path, sidecar.of(path))
            elif path != NAME and not path.lower().endswith((".txt", ".md", ".json", ".csv", "thumbs.db")):
                yield Problem(path, "this is no picture", "Convert it to JPEG or PNG, or leave it.")


def _picture(source: Source, path: str, said: dict[str, Any]) -> Picture:
    folders = path.split("/")[:-1]
    split = split_of(folders[0]) if folders else ""
    classes = folders[1:] if split else folders
    label = "/".join(classes)
    name, tags = name_and_tags(said, path, () if not label or label in _UNTAGGED else (label,))
    boxes = boxes_of(said)
    capture = capture_of(said.get("capture"))
    return Picture(name, source.paths[path], partial(read_picture, source, path), 0, 0, tags, boxes, split, capture)
