"""Boxes that are likely wrong, by what a detector says about their pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gleaner.learn.detect.doubts import Kind, find_box_doubts, review_boxes
from gleaner.learn.detect.network import Found
from gleaner.learn.detect.report import JudgedBoxes
from gleaner.learn.html_review import label_errors
from gleaner.learn.request import Example, LabelledBox, RunRequest, Task

CUP, BALL = 0, 1
HERE, THERE = (10.0, 10.0, 50.0, 50.0), (60.0, 60.0, 90.0, 90.0)
USUAL = np.array([0.9, 0.9])


def said(*boxes: tuple[int, float, tuple[float, ...]]) -> Found:
    return Found(
        torch.tensor([list(box) for _, _, box in boxes]).reshape(-1, 4),
        torch.tensor([score for _, score, _ in boxes]),
        torch.tensor([label for label, _, _ in boxes], dtype=torch.int64),
    )


def truth(*boxes: tuple[int, tuple[float, ...]]) -> np.ndarray:
    return np.array([[label, *box] for label, box in boxes], np.float32).reshape(-1, 5)


@pytest.mark.parametrize(
    ("found", "true", "expected"),
    [
        (said((CUP, 0.9, HERE)), truth((CUP, HERE)), []),
        (said((CUP, 0.9, HERE), (BALL, 0.8, THERE)), truth((CUP, HERE)), [(Kind.MISSING, None)]),
        (said((BALL, 0.5, THERE)), truth(), []),  # not sure enough
        (said((BALL, 0.9, THERE)), truth(), [(Kind.MISSING, None)]),
        (said((BALL, 0.9, HERE)), truth((CUP, HERE)), [(Kind.LABEL, CUP)]),
        (said((BALL, 0.9, HERE), (CUP, 0.3, HERE)), truth((CUP, HERE)), []),  # its own label is thinkable
        (said(), truth((CUP, HERE)), [(Kind.NOTHING, CUP)]),
        (said((CUP, 0.1, HERE)), truth((CUP, HERE)), []),
    ],
)
def test_boxes_are_doubted_when_the_detector_is_sure(
    found: Found, true: np.ndarray, expected: list[tuple[Kind, int | None]]
) -> None:
    assert [(one.kind, one.label) for one in find_box_doubts(found, true, USUAL)] == expected


def test_of_a_label_that_is_often_missed_a_missed_box_says_nothing() -> None:
    assert find_box_doubts(said(), truth((CUP, HERE)), np.array([0.4, 0.9])) == []


def judged(found: list[Found], boxes: list[np.ndarray], first: int) -> JudgedBoxes:
    names = ("cup", "ball")
    examples = [
        Example(
            f"p{first + n}",
            Path("/none"),
            frozenset(),
            None,
            "",
            tuple(LabelledBox(names[int(row[0])], *(row[1:] / 96).tolist()) for row in each),
        )
        for n, each in enumerate(boxes)
    ]
    return JudgedBoxes(examples, found, boxes, (96, 96))


def test_the_report_lists_the_surest_first_and_counts_what_there_was_time_for(tmp_path: Path) -> None:
    request = RunRequest(task=Task.DETECTION, labels=("cup", "ball"))
    test = judged([said((CUP, 0.9, HERE)), said((BALL, 0.8, HERE))], [truth((CUP, HERE)), truth((CUP, HERE))], 0)
    learned = judged([said((BALL, 0.95, THERE))], [truth()], 2)
    report = review_boxes(request, [("test", test)], [2], lambda part: learned, tmp_path, lambda share: True)
    assert report["checked"] == 3 and [one["id"] for one in report["pictures"]] == ["p2", "p1"]
    assert report["pictures"][0]["boxes"] == [
        {"kind": "missing", "label": None, "suggested": "ball", "confidence": 0.95}
    ]
    page = label_errors(report, tmp_path)
    assert "<b>ball</b> without a box 95%" in page and "<b>ball</b>, not cup? 80%" in page
    in_no_time = review_boxes(request, [("test", test)], [2], lambda part: learned, tmp_path, lambda share: False)
    assert in_no_time["checked"] == 2
