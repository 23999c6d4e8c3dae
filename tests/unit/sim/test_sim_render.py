"""Pictures of the arena: always whole, always the same for the same question, changing when they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gleaner.sim.drive import ROVER_RADIUS_MM
from gleaner.sim.geometry import Arena, Lens, Pose, View
from gleaner.sim.light import light_at
from gleaner.sim.render import Renderer
from gleaner.sim.scene import Pyramid, scene_for

POSES = [
    Pose(0, 0, 0),
    Pose(2050, 0, 0),  # touching a wall
    Pose(2050, 0, 90),  # along a wall
    Pose(1440, 1440, 45),  # in a corner
    Pose(1440, 1440, -135),  # out of a corner
    Pose(-900, 300, 359.99),
    Pose(0, 0, -720.5),
]


@pytest.mark.parametrize("pose", POSES, ids=str)
def test_every_pose_gives_a_lit_picture(scene, pose):
    picture = Renderer(scene, Lens()).render(pose, 3.0)
    assert picture.shape == (480, 640, 3)
    assert picture.dtype == np.uint8
    assert 15 < picture.mean() < 220
    assert (picture.reshape(-1, 3).max(axis=1) == 0).mean() < 0.01


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(-2300, 2300), st.floats(-2300, 2300), st.floats(-1e6, 1e6), st.floats(0, 1e7))
def test_no_place_a_rover_can_reach_breaks_the_picture(scene, x, y, heading, time_s):
    pose = Pose(*scene.arena.keep_inside(x, y, ROVER_RADIUS_MM), heading, 500, 60)
    assert Renderer(scene, Lens(320, 240)).render(pose, time_s).mean() > 10


def test_every_distance_to_a_wall_gives_a_picture(scene):
    """The floor's strip shrinks to nothing on the way: its last rows are the ones that go wrong."""
    renderer = Renderer(scene, Lens())
    for x in range(1400, 2061, 6):
        renderer.render(Pose(x, 0, 0), 0.0)


@pytest.mark.parametrize("size", [(64, 64), (320, 240), (1280, 720), (640, 480), (1920, 1080), (480, 640)])
def test_any_lens_size_works(scene, size):
    picture = Renderer(scene, Lens(*size)).render(Pose(-500, 100, 10), 0.0)
    assert picture.shape == (size[1], size[0], 3)


def test_the_same_seed_pose_and_time_give_the_same_picture(scene):
    pose = Pose(100, -200, 33, 300, 20)
    first = Renderer(scene, Lens()).render(pose, 12.5)
    renderer = Renderer(scene, Lens())
    renderer.render(Pose(0, 0, 0), 1.0)
    assert np.array_equal(first, renderer.render(pose, 12.5))


def test_another_seed_looks_different_with_the_same_signs(scene):
    pose = Pose(600, 0, 0)
    one, two = Renderer(scene, Lens()).render(pose, 0), Renderer(scene_for(8), Lens()).render(pose, 0)
    assert not np.array_equal(one, two)


def test_noise_differs_between_moments_but_the_scene_does_not(scene):
    renderer = Renderer(scene, Lens())
    one, two = (renderer.render(Pose(0, 0, 0), t).astype(int) for t in (10.0, 10.04))
    difference = np.abs(one - two)
    assert difference.max() > 0
    assert difference.mean() < 6


def test_light_wanders_slowly_and_differs_between_walls():
    now, soon, later = light_at(7, 0.0), light_at(7, 0.1), light_at(7, 150.0)
    assert np.abs(now.walls - soon.walls).max() < 0.01
    assert np.abs(now.walls - later.walls).max() > 0.1
    assert now.walls.max() - now.walls.min() > 0.15


def test_turning_fast_blurs_the_picture(scene):
    def sharpness(turn: float) -> float:
        picture = Renderer(scene, Lens()).render(Pose(0, 0, 5, 0, turn), 1.0).astype(float)
        return float(np.abs(np.diff(picture[150:300], axis=1)).mean())

    assert sharpness(110) < sharpness(0) * 0.8


def test_each_column_belongs_to_the_nearest_wall_in_front():
    for pose in POSES:
        wall, depth = View(Arena(), Lens(), pose).columns()
        assert (depth > 0).all()
        assert np.isfinite(depth).all()
        assert len(np.unique(wall)) <= 6


def test_a_far_surface_takes_a_smaller_level(scene):
    pyramid: Pyramid = scene.walls[0]
    near, far = pyramid.level_for(0.5)[0], pyramid.level_for(7.0)[0]
    assert near.shape[1] > 3 * far.shape[1]
