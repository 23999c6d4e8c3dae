"""Exports as the programs they are for read them. Each is skipped where its library is not installed."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from gleaner.formats.archive import Archive, packed
from gleaner.formats.registry import CODECS, Format
from gleaner.formats.values import Box, Picture


@pytest.fixture
def pictures() -> Iterator[list[Picture]]:
    content = bytes(cv2.imencode(".png", np.zeros((60, 80, 3), np.uint8))[1])

    def one(name: str, split: str, tags: tuple[str, ...], *boxes: Box) -> Picture:
        return Picture(name, len(content), lambda: content, 80, 60, tags, boxes, split)

    star = Box("stär: 1", 0.125, 0.25, 0.5, 0.75)
    yield [
        one("a.png", "train", ("x", "y/z"), star, Box("no", 0, 0, 1, 1, 0.5)),
        one("b/a.png", "train", ()),
        one("c.png", "val", ("x",), star),
    ]


def exported(format_: Format, pictures: list[Picture], folder: Path) -> Path:
    stream = io.BytesIO(b"".join(packed(CODECS[format_].write(iter(pictures), lambda _: None), Archive.TAR)))
    with tarfile.open(fileobj=stream) as tar:
        tar.extractall(folder, filter="data")
    return folder


def test_coco_opens_in_pycocotools(pictures: list[Picture], tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed: pip install pycocotools")
    folder = exported(Format.COCO, pictures, tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        opened = coco.COCO(str(folder / "annotations" / "instances_train.json"))
    assert sorted(one["name"] for one in opened.loadCats(opened.getCatIds())) == ["no", "stär: 1"]
    (image,) = [one for one in opened.loadImgs(opened.getImgIds()) if one["file_name"] == "a.png"]
    assert (folder / "images" / "train" / image["file_name"]).is_file()
    notes = opened.loadAnns(opened.getAnnIds(imgIds=[image["id"]]))
    assert [one["bbox"] for one in notes] == [[10.0, 15.0, 30.0, 30.0], [0.0, 0.0, 80.0, 60.0]]


@pytest.mark.parametrize("format_", [Format.HUGGINGFACE, Format.PARQUET])
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_datasets_loads_it(
    format_: Format, pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setitem(os.environ, name, "1")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets pillow")
    folder = exported(format_, pictures, tmp_path / "export")
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 2, "validation": 1}
    row = loaded["train"][0]
    assert row["image"].size == (80, 60)
    assert row["tags"] == ["x", "y/z"] and row["objects"]["category"] == ["stär: 1", "no"]
    assert row["objects"]["bbox"][0] == [10.0, 15.0, 30.0, 30.0]
