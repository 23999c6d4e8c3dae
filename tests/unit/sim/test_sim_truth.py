"""The ground truth agrees with the pictures, and only tests can see it."""

from __future__ import annotations

import ast
from pathlib import Path

import cv2
import numpy as np
import pytest

import gleaner
from gleaner.sim import truth, views
from gleaner.sim.geometry import Arena, Lens, Pose, View
from gleaner.sim.layout import LABELS, SIGNS
from gleaner.sim.render import Renderer

PROMISED = {"red_star", "blue_star", "blue_circle", "yellow_circle", "black_triangle", "orange_triangle"}


def test_the_signs_the_tutorial_needs_are_there():
    assert set(LABELS) >= PROMISED
    assert {str(s.shape) for s in SIGNS} == {"star", "circle", "triangle", "square", "hexagon", "pentagon"}
    assert {str(s.color) for s in SIGNS} == {"red", "blue", "green", "yellow", "orange", "black"}
    assert len(set(LABELS)) == len(SIGNS)


def test_no_product_code_reads_the_truth():
    root = Path(gleaner.__file__).parent
    for path in root.rglob("*.py"):
        if path.parent == root / "sim" and path.name in ("truth.py", "views.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            named = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            reads = {f"{module}.{name}" if module else name for name in named} | {module}
            assert not reads & {"gleaner.sim.truth", "gleaner.sim.views"}, f"{path} reads the ground truth"


@pytest.mark.parametrize("sign", SIGNS, ids=lambda s: s.label)
def test_the_box_of_a_sign_frames_its_paint_in_the_picture(scene, sign):
    """Looks straight at each sign and compares the picture with the same wall where the sign's paint is."""
    rng = np.random.default_rng(3)
    pose = views.single_sign_pose(sign.label, rng)
    picture = Renderer(scene, Lens()).render(pose, 0.0)
    (seen,) = truth.visible(pose)
    hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)
    if sign.color == "black":
        paint = hsv[:, :, 2] < 45
    else:
        hue = {"red": 178, "orange": 14, "yellow": 26, "green": 70, "blue": 108}[sign.color]
        away = np.abs((hsv[:, :, 0].astype(int) - hue + 90) % 180 - 90)
        paint = (away < 9) & (hsv[:, :, 1] > 135)
    height, width = paint.shape
    box = [round(seen.x_min * width), round(seen.y_min * height), round(seen.x_max * width), round(seen.y_max * height)]
    inside = np.zeros_like(paint)
    inside[max(box[1] - 6, 0) : box[3] + 6, max(box[0] - 6, 0) : box[2] + 6] = True
    columns, rows = np.flatnonzero((paint & inside).any(axis=0)), np.flatnonzero((paint & inside).any(axis=1))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert np.abs(np.array(found) - box).max() <= 9  # blur eats the tip of a triangle


def test_a_sign_behind_or_outside_is_not_visible():
    towards, away = Pose(0, 0, 0), Pose(0, 0, 180)
    assert "red_star" in {s.label for s in truth.visible(towards)}
    assert "red_star" not in {s.label for s in truth.visible(away)}


def test_a_sign_cut_by_the_edge_is_partly_visible():
    fractions = [s.visible_fraction for h in range(360) for s in truth.visible(Pose(0, 0, h)) if s.label == "red_star"]
    assert max(fractions) == 1.0
    assert any(0.2 < f < 0.8 for f in fractions)


def test_a_turn_on_the_spot_meets_every_sign_and_views_of_nothing():
    for place in ((0.0, 0.0), (-1250.0, -420.0)):
        seen = [{s.label for s in truth.visible(Pose(*place, h))} for h in range(0, 360, 3)]
        assert set().union(*seen) == set(LABELS)
        assert any(not labels for labels in seen)
        assert {1, 2} <= {len(labels) for labels in seen}


@pytest.mark.parametrize("label", [*LABELS, None])
def test_a_place_can_be_found_that_sees_one_sign_only(label):
    pose = views.single_sign_pose(label, np.random.default_rng(11))
    assert [s.label for s in truth.visible(pose)] == ([] if label is None else [label])


def test_held_out_views_are_reproducible_jpegs():
    first = list(views.labelled_views("blue_star", 2, seed=5))
    again = list(views.labelled_views("blue_star", 2, seed=5))
    other = list(views.labelled_views("blue_star", 2, seed=6))
    assert first == again
    assert first[0].pose != other[0].pose
    assert all(v.jpeg[:2] == b"\xff\xd8" and v.label == "blue_star" for v in first)


def test_an_unknown_label_names_the_known_ones():
    with pytest.raises(ValueError, match="red_star"):
        next(views.labelled_views("purple_cow", 1, seed=1))


def test_columns_and_projection_agree():
    """A wall point projected to a column is on the wall that this column sees, at the depth it says."""
    view = View(Arena(), Lens(), Pose(-300, 500, 77))
    wall, depth = view.columns()
    for column in range(5, 640, 60):
        number = int(wall[column])
        hit = view.eye + view.rays()[column] * depth[column]
        along = float((hit - view.arena.normals[number] * view.arena.apothem_mm) @ view.arena.rights[number])
        x, _, z = view.project(number, np.array([along]), np.array([100.0]))
        assert x[0] == pytest.approx(column + 0.5, abs=1e-6)
        assert z[0] == pytest.approx(depth[column])
