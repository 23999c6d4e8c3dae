"""Drawing and turning, against the public description of Viam's transform camera."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gleaner.machine.models import overlay
from gleaner.machine.models.overlay import Box


def gray(width: int = 320, height: int = 240) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def red_rows(frame: np.ndarray) -> np.ndarray:
    red = (frame[:, :, 2] > 200) & (frame[:, :, 0] < 60) & (frame[:, :, 1] < 60)
    return np.flatnonzero(red.any(axis=1))


def red_columns(frame: np.ndarray) -> np.ndarray:
    red = (frame[:, :, 2] > 200) & (frame[:, :, 0] < 60) & (frame[:, :, 1] < 60)
    return np.flatnonzero(red.any(axis=0))


def test_text_is_red_and_starts_at_30_30():
    drawn = overlay.draw_lines(gray(), ["red_star: 0.93"])
    assert 30 <= red_columns(drawn)[0] <= 36
    assert 30 <= red_rows(drawn)[0] <= 42
    assert red_rows(drawn)[-1] < 66
    assert (drawn.reshape(-1, 3) == (0, 0, 255)).all(axis=1).any()


def test_the_next_line_is_30_px_lower():
    one = red_rows(overlay.draw_lines(gray(), ["Hello"]))
    two = red_rows(overlay.draw_lines(gray(), ["", "Hello"]))
    assert two[0] - one[0] == 30


def test_no_lines_leave_the_frame_untouched():
    frame = gray()
    assert overlay.draw_lines(frame, []) is frame
    assert overlay.draw_boxes(frame, []) is frame


def test_drawing_leaves_the_given_frame_alone():
    frame = gray()
    overlay.draw_lines(frame, ["x"])
    overlay.draw_boxes(frame, [Box((1, 1, 50, 50), "x")])
    assert (frame == 128).all()


def test_long_text_wraps_inside_the_frame():
    drawn = overlay.draw_lines(gray(200, 240), ["averyveryverylongsinglelabelname: 0.50"])
    assert red_columns(drawn)[-1] < 200
    assert red_rows(drawn)[-1] > 80


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40), st.integers(30, 500))
def test_wrapping_loses_no_letter(text, width):
    lines = overlay.wrap(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("text", ["", "ünï: 0.10", "日本: 0.50", "a" * 400, "\t\n"])
@pytest.mark.parametrize("size", [(1, 1), (40, 20), (640, 480)])
def test_any_text_on_any_frame_is_survived(text, size):
    assert overlay.draw_lines(gray(*size), [text, text]).shape == (size[1], size[0], 3)


def test_a_box_is_two_pixels_of_red_with_its_text_at_the_top_left_corner():
    drawn = overlay.draw_boxes(gray(), [Box((100, 60, 220, 200), "cat: 0.90")])
    assert (drawn[150, 99:102] == (0, 0, 255)).all(axis=1).sum() >= 2
    assert 100 <= red_columns(drawn[64:90, 104:])[0] + 104 <= 112
    assert (drawn[150, 150] == 128).all()


@pytest.mark.parametrize(
    "corners", [(-1, 0, 10, 10), (0, 0, 321, 10), (0, 0, 10, 241), (400, 300, 500, 400), (20, 0, 10, 10)]
)
def test_a_box_outside_the_picture_is_an_error(corners):
    with pytest.raises(ValueError, match="outside"):
        overlay.draw_boxes(gray(), [Box(corners, "x")])


def test_a_box_along_the_whole_edge_is_allowed():
    assert overlay.draw_boxes(gray(), [Box((0, 0, 320, 240), "x")]).shape == (240, 320, 3)


def test_rotation_is_clockwise_and_exact_for_quarter_turns():
    frame = np.zeros((2, 3, 3), np.uint8)
    frame[0, 0] = 255  # top left goes to the top right when turned clockwise
    turned = overlay.rotate(frame, 90)
    assert turned.shape == (3, 2, 3)
    assert turned[0, 1, 0] == 255
    assert np.array_equal(overlay.rotate(frame, 180), frame[::-1, ::-1])
    assert np.array_equal(overlay.rotate(frame, 0), frame)
    assert np.array_equal(overlay.rotate(frame, -90), overlay.rotate(frame, 270))


def test_a_slanted_turn_grows_the_canvas_and_fills_it_with_black():
    turned = overlay.rotate(gray(200, 100), 30)
    assert turned.shape[1] == pytest.approx(200 * 0.866 + 100 * 0.5, abs=1.1)
    assert turned.shape[0] == pytest.approx(200 * 0.5 + 100 * 0.866, abs=1.1)
    assert (turned[0, 0] == 0).all()
    assert (turned[turned.shape[0] // 2, turned.shape[1] // 2] == 128).all()
    upper_left, upper_right = turned[5, : turned.shape[1] // 2], turned[5, turned.shape[1] // 2 :]
    assert upper_left.sum() > upper_right.sum()  # clockwise: the long side's left end comes up


def test_resize_takes_the_nearest_pixel():
    frame = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2) * 60
    big = overlay.resize(frame, 4, 4)
    assert set(np.unique(big)) == {0, 60, 120, 180}


@pytest.mark.parametrize(("size", "word"), [((0, 5), "width"), ((5, 0), "height")])
def test_resize_to_nothing_is_refused(size, word):
    with pytest.raises(ValueError, match=f"new {word} for resize transform cannot be 0"):
        overlay.resize(gray(), *size)


@pytest.mark.parametrize(
    ("corners", "shape"),
    [
        ((0.25, 0.5, 0.75, 1.0), (120, 160)),  # neither maximum exceeds 1: shares
        ((10, 20, 110, 70), (50, 100)),
        ((0, 0, 1, 1), (1, 1)),  # exactly this is a single pixel
        ((0, 0, 1.0, 0.5), (120, 320)),
        ((300, 200, 900, 900), (40, 20)),  # beyond the edge: what there is
    ],
)
def test_crop_takes_shares_or_pixels(corners, shape):
    assert overlay.crop(gray(), corners).shape[:2] == shape


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ((-1, 0, 10, 10), "negative"),
        ((10, 0, 10, 10), "0 width"),
        ((0, 10, 20, 10), "0 height"),
        ((2, 0, 1, 1), "exceed 1"),
        ((400, 0, 500, 100), "leaves nothing"),
        ((0, 0, 0, 0), "0 width"),
    ],
)
def test_impossible_crops_are_refused(corners, message):
    with pytest.raises(ValueError, match=message):
        overlay.crop(gray(), corners)


def test_the_crop_box_can_be_drawn_instead():
    drawn = overlay.crop(gray(), (100, 50, 200, 150), draw_only=True)
    assert drawn.shape == (240, 320, 3)
    assert (red_columns(drawn)[0], red_rows(drawn)[0]) == (pytest.approx(100, abs=1), pytest.approx(50, abs=1))
