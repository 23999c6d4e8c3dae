"""What is wrong in a data set is named with its file, line and remedy, and the rest is read."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from gleaner.formats.registry import CODECS, Format, detect
from gleaner.formats.sources import FolderSource, Source, ZipSource
from gleaner.formats.values import FormatProblem, Picture, Problem

PNG = bytes(cv2.imencode(".png", np.zeros((10, 20, 3), np.uint8))[1])


def made(folder: Path, files: dict[str, bytes | str | dict[str, object]]) -> FolderSource:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content) if isinstance(content, dict) else content
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return FolderSource(folder)


def read(source: Source, format_: Format | None = None) -> tuple[list[Picture], list[str]]:
    found = list(CODECS[format_ or detect(source)].read(source))
    problems = [one for one in found if isinstance(one, Problem)]
    assert all(one.file and one.what and one.hint for one in problems)
    return [one for one in found if isinstance(one, Picture)], [str(one) for one in problems]


def test_a_yolo_folder_of_another_program_is_read_and_its_bad_lines_named(tmp_path: Path) -> None:
    source = made(
        tmp_path,
        {
            "data.yaml": "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n",
            "train/images/a.png": PNG,
            "train/labels/a.txt": "0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.1 0.1\n1 x\n1 0.5 0.5 nan 1\n1 0 0 1 0 1 1 0 1\n",
            "valid/images/b.png": PNG,
            "valid/labels/orphan.txt": "0 0.5 0.5 0.2 0.2\n",
        },
    )
    pictures, problems = read(source)
    assert [(one.name, one.split, [b.label for b in one.boxes]) for one in pictures] == [
        ("train/images/a.png", "train", ["cat", "dog"]),
        ("valid/images/b.png", "val", []),
    ]
    polygon = pictures[0].boxes[1]
    assert (polygon.x_min, polygon.y_min, polygon.x_max, polygon.y_max) == (0, 0, 1, 1)
    assert len(problems) == 4
    assert problems[0].startswith("train/labels/a.txt, line 2: there is no class 7 among the 2 names")
    assert problems[3].startswith("valid/labels/orphan.txt: there is no picture")


def test_a_coco_file_with_holes_gives_what_it_has(tmp_path: Path) -> None:
    coco = {
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 5]},
            {"image_id": 1, "category_id": 9, "bbox": [2, 2, 10, 5]},
            {"image_id": 1, "category_id": 1, "bbox": [2, 2]},
            {"bbox": [1, 1, 1, 1]},
            {"image_id": 1, "category_id": 1, "bbox": [19, 9, 50, 50]},
        ],
        "info": {"year": 2026},
        "images": [
            {"id": 1, "file_name": "a.png", "width": 20, "height": 10},
            {"id": 2, "file_name": "../../etc/passwd", "width": 20, "height": 10},
            {"id": 3},
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    pictures, problems = read(made(tmp_path, {"valid/_annotations.coco.json": coco, "valid/a.png": PNG}))
    (only,) = pictures
    assert only.split == "val" and len(only.boxes) == 2 and only.boxes[1].x_max == 1.0
    assert [one.split(": ")[1].split(" ")[0] for one in problems] == [
        "annotations[3]",
        "annotations[1]",
        "annotations[2]",
        "images[1]",
        "images[2]",
    ]


@pytest.mark.parametrize("text", ["", "[", '{"images": [', '{"images": [{}', '{"images" 1}', '{"a":1,"images":[{},]}'])
def test_broken_json_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    source = made(tmp_path, {"annotations/instances_train.json": f'\n{text} "images"', "images/train/a.png": PNG})
    pictures, problems = read(source, Format.COCO)
    assert not pictures and any("no valid JSON near line" in one for one in problems)


def test_a_json_file_larger_than_the_window_is_read_whole(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": "a.png", "width": 20, "height": 10, "x": "ü" * 300} for n in range(2000)]
    notes = [
        {"image_id": n, "category_id": 1, "bbox": [1, 1, 5, 5], "segmentation": [[0.5] * 100]} for n in range(2000)
    ]
    coco = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "c"}], "licenses": ["x" * 300_000]}
    pictures, problems = read(made(tmp_path, {"annotations/instances_train.json": coco, "images/train/a.png": PNG}))
    assert len(pictures) == 2000 and [one for one in problems if "masks" not in one] == []
    assert all(len(one.boxes) == 1 for one in pictures)


def test_lines_of_dataset_jsonl_are_judged_one_by_one(tmp_path: Path) -> None:
    good = {"image_path": "/home/me/data/a.png", "classification_annotations": [{"annotation_label": "x"}, {}]}
    lines = [json.dumps(good), "{", "[]", json.dumps({"image_path": "gone.png"}), "", json.dumps({"image_path": 7})]
    pictures, problems = read(made(tmp_path, {"dataset.jsonl": "\n".join(lines), "data/a.png": PNG}))
    assert [one.tags for one in pictures] == [("x",)]
    assert [one.partition(":")[0] for one in problems] == [f"dataset.jsonl, line {n}" for n in (1, 2, 3, 4, 6)]


@pytest.mark.parametrize("name", ["annotations.json", "data/my boxes.json", "train/_annotations.coco.json"])
def test_a_coco_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    folder = name.rpartition("/")[0]
    others = {"notes.json": {"images": "of my holiday"}, "labelme.json": {"shapes": [], "imagePath": "a.png"}}
    source = made(tmp_path, {name: coco, f"{folder}/images/a.png".lstrip("/"): PNG, **others})
    assert detect(source) is Format.COCO
    pictures, problems = read(source)
    assert [[box.label for box in one.boxes] for one in pictures] == [["cat"]] and not problems


def test_voc_files_that_lie_or_attack_are_left_out(tmp_path: Path) -> None:
    size = "<size><width>20</width><height>10</height></size>"
    box = "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    good = f"<object><name>cat</name>{box.format(1)}</object><object><name>dog</name>{box.format('x')}</object>"
    source = made(
        tmp_path,
        {
            "JPEGImages/a.png": PNG,
            "JPEGImages/b.png": PNG,
            "JPEGImages/c.png": PNG,
            "JPEGImages/d.png": PNG,
            "Annotations/a.xml": f"<annotation>{size}{good}</annotation>",
            "Annotations/b.xml": '<!DOCTYPE x [<!ENTITY a "b">]><annotation/>',
            "Annotations/c.xml": "<annotation>",
            "Annotations/d.xml": "<?xml version='1.0' encoding='nullutf-8'?><annotation/>",
            "ImageSets/Main/val.txt": "a\n",
        },
    )
    pictures, problems = read(source)
    assert [(one.split, [b.label for b in one.boxes]) for one in pictures] == [("val", ["cat"])] + [("", [])] * 3
    assert [one.partition(":")[0] for one in problems] == [f"Annotations/{n}.xml" for n in "abcd"]


def test_class_folders_in_a_zip_with_one_wrapping_folder() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("pets/train/cat/a.png", "pets/train/dog/a.png", "pets/val/cat/a.png", "pets/notes.doc"):
            archive.writestr(name, PNG)
        archive.writestr("__MACOSX/pets/._a.png", b"")
    source = ZipSource(packed)
    pictures, problems = read(source)
    assert [(one.name, one.split, one.tags) for one in pictures] == [
        ("train/cat/a.png", "train", ("cat",)),
        ("train/dog/a.png", "train", ("dog",)),
        ("val/cat/a.png", "val", ("cat",)),
    ]
    assert len(problems) == 1 and pictures[0].read() == PNG
    source.close()


def test_what_is_no_data_set_is_refused_with_what_would_be_one(tmp_path: Path) -> None:
    with pytest.raises(FormatProblem, match="Known are: viam"):
        detect(made(tmp_path, {"readme.md": "hello"}))
    with pytest.raises(FormatProblem, match="no readable zip"):
        ZipSource(io.BytesIO(b"PK nothing"))


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    source = made(tmp_path / "set", {"cat/a.png": PNG})
    (tmp_path / "set" / "cat" / "b.png").symlink_to(tmp_path / "secret.png")
    assert list(FolderSource(tmp_path / "set").paths) == ["cat/a.png"] == list(source.paths)
