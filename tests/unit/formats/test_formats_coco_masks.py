"""COCO annotations with masks: the box is the one around the mask, as COCO's own program says, and nothing is silent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as cocos

from gleaner.formats.coco import read
from gleaner.formats.coco_masks import box_around
from gleaner.formats.sources import FolderSource
from gleaner.formats.values import Picture, Problem

MASKS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1))


@given(MASKS.filter(lambda mask: bool(mask.any())))
def test_the_box_around_run_lengths_is_cocos(mask: np.ndarray[Any, Any]) -> None:
    encoded = cocos.encode(np.asfortranarray(mask))
    expected = [float(value) for value in cocos.toBbox(encoded)]
    text = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    assert box_around(text) == expected
    column_by_column = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(column_by_column)) + 1
    counts = np.diff([0, *changes, len(column_by_column)]).tolist()
    plain = {"size": list(mask.shape), "counts": ([0] if column_by_column[0] else []) + counts}
    ys, xs = np.nonzero(mask)
    assert box_around(plain) == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_the_box_around_polygons_is_around_all_of_them() -> None:
    assert box_around([[10, 20, 30, 20, 30, 60], [5.5, 40, 8, 40, 8, 45]]) == [5.5, 20, 24.5, 40]


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        ({"size": [2, 2], "counts": [4]}, "is empty"),
        ({"size": [2, 2], "counts": [1, 1]}, "do not add up to 2×2"),
        ({"size": [2, 2], "counts": [1, -1, 4]}, "do not add up"),
        ({"counts": [1, 1]}, "neither polygons nor run lengths"),
        ({"size": [2, 2], "counts": "Pé"}, "hold 'é'"),
        ({"size": [2, 2], "counts": "P"}, "cut off"),
        ([[1, 2, 3, 4]], "fewer than three points"),
        ([["a", 2, 3, 4, 5, 6]], "could not convert"),
        (7, "neither polygons nor run lengths"),
    ],
)
def test_what_is_no_mask_is_said(mask: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        box_around(mask)


def test_a_file_with_masks_gives_boxes_and_says_what_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((100, 200, 3), np.uint8))
    notes = [
        {"segmentation": [[10, 20, 30, 20, 30, 60]]},
        {"segmentation": [[0, 0, 9, 0, 9, 9]], "bbox": [100, 50, 20, 10]},
        {"segmentation": {"size": [100, 200], "counts": [20_000]}},
        {"bbox": [1, 2, 3, 4], "segmentation": []},
        {"caption": "a picture"},
    ]
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 100}],
        "annotations": [{"id": n, "image_id": 1, "category_id": 1} | note for n, note in enumerate(notes)],
        "categories": [{"id": 1, "name": "owl"}],
    }
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(document))
    found = list(read(FolderSource(tmp_path)))
    problems = [one.what for one in found if isinstance(one, Problem)]
    assert problems == [
        "annotations[2]: its segmentation is empty",
        "3 annotations have masks, of which only the boxes are kept",
    ]
    [picture] = [one for one in found if isinstance(one, Picture)]
    corners = [
        (round(b.x_min * 200), round(b.y_min * 100), round(b.x_max * 200), round(b.y_max * 100)) for b in picture.boxes
    ]
    assert corners == [(10, 20, 30, 60), (100, 50, 120, 60), (1, 2, 4, 6)]
