"""Viam's rules for labels, inputs, classes, boxes and colours, case by case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gleaner.machine.models import vision_color_detector
from gleaner.machine.vision.classify import decode_classes, select_classes
from gleaner.machine.vision.color import color_range, find_blobs, hue_name
from gleaner.machine.vision.detect import decode_boxes, find_outputs
from gleaner.machine.vision.inputs import Normalization, input_layout, make_input
from gleaner.machine.vision.labels import LabelFilter, ModelAnswerProblem, label_of, parse_labels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red star\n\nblue star\n", ["red star", "blue star"]),
        ("cat, dog ,bird", ["cat", "dog", "bird"]),
        ("cat dog bird\n", ["cat", "dog", "bird"]),
        ("\ufeffone\r\ntwo\r\n", ["one", "two"]),
        ("", []),
    ],
)
def test_label_files(text: str, expected: list[str]) -> None:
    assert parse_labels(text) == expected


def test_a_class_without_a_label_is_its_number_and_beyond_the_labels_an_error() -> None:
    assert label_of(3, []) == "3"
    with pytest.raises(ModelAnswerProblem, match="class 3, but there are only 1 labels"):
        label_of(3, ["a"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.2, 0.7], [0.2, 0.7]),
        ([2.0, 0.0], [0.8808, 0.1192]),  # outside 0–1: softmax
        ([-0.1, 0.5], [0.3543, 0.6457]),
        ([0, 255], [0.0, 1.0]),
        ([0.3], [0.3]),
        ([-0.5], [0.0]),  # one value within ±1 is only clamped
        ([2.0], [0.8808]),  # beyond that it is a logit
    ],
)
def test_scores_become_confidences(values: list[float], expected: list[float]) -> None:
    found = decode_classes({"probability": np.array([values])}, {}, [])
    assert [confidence for _, confidence in found] == pytest.approx(expected, abs=1e-4)


def test_the_probability_output_is_found_by_remap_then_name_then_being_alone() -> None:
    outputs = {"a": np.array([0.1, 0.9]), "probability": np.array([0.9, 0.1])}
    assert decode_classes(outputs, {"a": "probability"}, [])[0][1] == pytest.approx(0.1)
    assert decode_classes(outputs, {}, [])[0][1] == pytest.approx(0.9)
    with pytest.raises(ModelAnswerProblem, match="no output named 'probability' among a, b"):
        decode_classes({"a": np.zeros(2), "b": np.zeros(2)}, {}, [])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_confidences_are_always_between_0_and_1(values: list[float]) -> None:
    found = decode_classes({"probability": np.array(values)}, {}, [])
    assert all(0 <= confidence <= 1 for _, confidence in found)


def test_selection_filters_then_sorts_then_counts() -> None:
    classes = [("a", 0.2), ("b", 0.9), ("c", 0.5)]
    assert select_classes(classes, LabelFilter(0.3, {}), 1) == [("b", 0.9)]
    assert select_classes(classes, LabelFilter(0.3, {}), 0) == [("b", 0.9), ("c", 0.5)]
    assert select_classes(classes, LabelFilter(0.0, {"A": 0.2, "c": 0.6}), 5) == [("a", 0.2)]


@pytest.mark.parametrize(
    ("shape", "channels_first", "height", "width"),
    [
        ([1, 96, 128, 3], False, 96, 128),
        ([1, 3, 96, 128], True, 96, 128),
        ([1, -1, -1, 3], False, None, None),  # any size: the original
        ([-1, 3, 224, 224], True, 224, 224),
    ],
)
def test_input_shapes(shape: list[int], channels_first: bool, height: int | None, width: int | None) -> None:
    layout = input_layout("x", "uint8", shape, {})
    assert (layout.channels_first, layout.height, layout.width) == (channels_first, height, width)


def test_input_names_follow_the_remap_and_odd_inputs_are_refused() -> None:
    assert input_layout("a", "uint8", [1, 8, 8, 3], {"serving:0": "image"}).name == "serving:0"
    with pytest.raises(ModelAnswerProblem, match="four dimensions"):
        input_layout("a", "uint8", [8, 8, 3], {})
    with pytest.raises(ModelAnswerProblem, match="takes int64"):
        input_layout("a", "int64", [1, 8, 8, 3], {})


def test_float_inputs_are_normalized_per_channel_and_uint8_left_alone() -> None:
    picture = np.full((4, 6, 3), (255, 0, 127), np.uint8)
    raw = make_input(picture, input_layout("x", "uint8", [1, 4, 6, 3], {}), Normalization())
    assert (raw.dtype, raw.shape, raw[0, 0, 0].tolist()) == (np.uint8, (1, 4, 6, 3), [255, 0, 127])
    layout = input_layout("x", "float32", [1, 3, 2, 3], {})
    default = make_input(picture, layout, Normalization())
    assert default.shape == (1, 3, 2, 3)
    assert default[0, :, 0, 0].tolist() == pytest.approx([1.0, -1.0, -0.00392], abs=1e-4)
    swapped = make_input(picture, layout, Normalization((0.0, 0.0, 0.5), (1.0, 1.0, 0.5), bgr=True))
    assert swapped[0, :, 0, 0].tolist() == pytest.approx([127 / 255, 0.0, 1.0], abs=1e-4)


BOXES = np.array([[[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]]])
Arrays = dict[str, Any]


@pytest.mark.parametrize(
    ("outputs", "remap", "expected"),
    [
        (
            {"location": BOXES, "category": np.zeros((1, 2)), "score": np.ones((1, 2))},
            {},
            ("location", "score", "category"),
        ),
        ({"b": BOXES, "c": np.zeros((1, 2), np.int32), "s": np.full((1, 2), 0.4)}, {}, ("b", "s", "c")),
        # whole float numbers are categories; the count says how many of them are meant
        (
            {"b": BOXES, "s": np.array([[0.25, 0.5]]), "c": np.array([[1.0, 9.5]]), "n": np.array([1.0])},
            {},
            ("b", "s", "c"),
        ),
        ({"b": BOXES, "s": np.full((1, 2, 4), 0.1)}, {}, ("b", "s", None)),  # a score for each class
        ({"x": BOXES, "y": np.zeros((1, 2)), "z": np.ones((1, 2))}, {"z": "category", "y": "score"}, ("x", "y", "z")),
    ],
)
def test_detector_outputs_are_told_apart(
    outputs: Arrays, remap: dict[str, str], expected: tuple[str, str, str | None]
) -> None:
    names = find_outputs(outputs, remap)
    assert (names.location, names.score, names.category) == expected


@pytest.mark.parametrize(
    "outputs", [{"p": np.ones((1, 5))}, {"b": BOXES, "s": np.full((1, 2), 0.4)}, {"s": np.full((1, 2, 3), 0.1)}]
)
def test_what_is_no_detector_is_refused(outputs: Arrays) -> None:
    with pytest.raises(ModelAnswerProblem):
        find_outputs(outputs, {})


def test_scores_by_class_take_the_best_class() -> None:
    outputs = {"b": BOXES, "s": np.array([[[0.1, 0.8], [0.6, 0.2]]])}
    boxes = decode_boxes(outputs, find_outputs(outputs, {}), ["a", "b"], [1, 0, 3, 2], (10, 10), (101, 201))
    assert [(b.label, round(b.confidence, 1)) for b in boxes] == [("b", 0.8), ("a", 0.6)]
    assert (boxes[0].x_min, boxes[0].y_min, boxes[0].x_max, boxes[0].y_max) == (40, 10, 120, 50)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_box_order_names_what_each_number_is(order: list[int]) -> None:
    named = np.array([0.1, 0.2, 0.5, 0.6])  # left, top, right, bottom
    outputs = {"location": named[order].reshape(1, 1, 4), "category": np.array([[0]]), "score": np.array([[0.5]])}
    (box,) = decode_boxes(outputs, find_outputs(outputs, {}), [], order, (10, 10), (101, 101))
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == (10, 20, 50, 60)


def test_sizes_that_disagree_and_labels_that_lack_are_errors_and_negative_classes_the_first() -> None:
    outputs = {"location": BOXES, "category": np.array([[-1.0, 7.0]]), "score": np.array([[0.5, 0.5]])}
    names = find_outputs(outputs, {})
    with pytest.raises(ModelAnswerProblem, match="class 7"):
        decode_boxes(outputs, names, ["a"], [1, 0, 3, 2], (10, 10), (10, 10))
    assert decode_boxes(outputs, names, [], [1, 0, 3, 2], (10, 10), (10, 10))[0].label == "0"
    with pytest.raises(ModelAnswerProblem, match="do not belong together"):
        decode_boxes({**outputs, "score": np.ones((1, 3))}, names, [], [1, 0, 3, 2], (10, 10), (10, 10))


def blobs(color: str, tolerance: float = 0.06, least_px: int = 50) -> list[tuple[int, int, int, int]]:
    picture = np.full((100, 120, 3), 200, np.uint8)
    picture[10:30, 20:60] = (220, 20, 30)  # red
    picture[50:90, 70:80] = (230, 10, 60)  # red with a little blue: the other side of the circle's seam
    picture[60:64, 5:9] = (220, 20, 30)  # small
    picture[5:8, 100:115] = (40, 4, 6)  # dark
    return find_blobs(picture, color_range(color, tolerance, 0.2, 0.3), least_px)


def test_colour_blobs_are_found_across_the_hue_seam_largest_first() -> None:
    assert blobs("#E0141E", tolerance=0.1) == [(20, 10, 59, 29), (70, 50, 79, 89)]
    assert blobs("#E0141E", tolerance=0.02) == [(20, 10, 59, 29)]
    assert (5, 60, 8, 63) in blobs("#E0141E", least_px=1)
    assert blobs("#00AA20") == []


def test_diagonal_neighbours_are_two_blobs() -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[:10, :10] = picture[10:, 10:] = (0, 0, 255)
    assert len(find_blobs(picture, color_range("#0000FF", 0.1, 0.2, 0.3), 10)) == 2


@pytest.mark.parametrize(
    ("hue", "name"), [(0, "red"), (350, "red"), (30, "orange"), (60, "yellow"), (240, "blue"), (330, "rose")]
)
def test_hues_have_names(hue: float, name: str) -> None:
    assert hue_name(hue) == name


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"detect_color": "red"}, "#RRGGBB"),
        ({"detect_color": "#808080"}, "too grey"),
        ({"detect_color": "#200000"}, "too dark"),
        ({"detect_color": "#FF0000", "hue_tolerance_pct": 0}, "greater than 0"),
        ({"detect_color": "#FF0000", "hue_tolerance_pct": 1.1}, "less than or equal to 1"),
    ],
)
def test_unusable_colours_are_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        vision_color_detector.SPEC.attributes(**{"hue_tolerance_pct": 0.05, **attributes})
