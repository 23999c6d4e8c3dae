"""Pascal VOC as people really keep it: other names of the folders, other letters, splits with a folder each."""

from __future__ import annotations

from pathlib import Path

import pytest

from gleaner.formats.registry import Format, detect, read
from gleaner.formats.sources import FolderSource
from gleaner.formats.values import Picture

XML = (
    "<annotation><size><width>100</width><height>50</height></size><object><name>{}</name>"
    "<bndbox><xmin>10</xmin><ymin>5</ymin><xmax>60</xmax><ymax>45</ymax></bndbox></object></annotation>"
)


def made(folder: Path, *names: str) -> FolderSource:
    """Pictures, and XML files whose box has the label of the folder they are in."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff" if name.endswith("jpg") else XML.format(path.parent.name).encode())
    return FolderSource(folder)


def labels(source: FolderSource) -> dict[str, list[str]]:
    assert detect(source) is Format.VOC
    found = [one for one in read(Format.VOC, source) if isinstance(one, Picture)]
    return {one.name: [box.label for box in one.boxes] for one in found}


@pytest.mark.parametrize(
    ("picture", "annotation"),
    [
        ("JPEGImages/a.jpg", "Annotations/a.xml"),
        ("images/a.jpg", "annotations/a.xml"),
        ("VOC2012/JPEGImages/a.jpg", "VOC2012/Annotations/a.xml"),
        ("pictures/a.jpg", "xml/a.xml"),
        ("a.jpg", "a.xml"),
    ],
)
def test_a_pictures_boxes_are_found_wherever_they_are_kept(tmp_path: Path, picture: str, annotation: str) -> None:
    source = made(tmp_path / "set", picture, annotation)
    assert labels(source) == {picture: [(tmp_path / "set" / annotation).parent.name]}


def test_pictures_of_one_name_keep_their_own_boxes(tmp_path: Path) -> None:
    parts = ("train", "val")
    source = made(tmp_path, *(f"{p}/{f}" for p in parts for f in ("images/1.jpg", "annotations/1.xml")))
    (tmp_path / "val/annotations/1.xml").write_text(XML.format("other"))
    assert labels(source) == {"train/images/1.jpg": ["annotations"], "val/images/1.jpg": ["other"]}


def test_one_file_is_not_taken_for_two_pictures_of_its_name(tmp_path: Path) -> None:
    source = made(tmp_path, "one/1.jpg", "two/1.jpg", "xml/1.xml")
    assert labels(source) == {"one/1.jpg": [], "two/1.jpg": []}
