"""Ids over frames: boxes that move, cross, vanish for a while and grow faint."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_vision_mlmodel import Host, StillCamera, fixed_detector, onnx_service, plain_jpeg, vision_service
from viam.media.video import CameraMimeType, ViamImage

from gleaner.machine.vision.assignment import assign
from gleaner.machine.vision.detect import Box
from gleaner.machine.vision.tracking import SURE, Tracks
from gleaner.wire.track_names import short_name, split_track, track_name

FRAME_S = 1 / 15
NOON = datetime(2026, 11, 24, 12, 0, 5, tzinfo=UTC)


def box(x: float, y: float, confidence: float = 0.9, label: str = "car", side: int = 40) -> Box:
    return Box(label, confidence, round(x), round(y), round(x) + side, round(y) + side)


class Film:
    """Frames given to a service's tracks, one every fifteenth of a second."""

    def __init__(self, keep_s: float = 2.0, begin: float = SURE) -> None:
        self.tracks = Tracks(keep_s, begin, lambda: NOON)
        self.now_s = 100.0

    def frame(self, *shown: Box, faint: Sequence[Box] = (), source: str = "cam") -> list[str]:
        self.now_s += FRAME_S
        return self.tracks.update(source, shown, faint, self.now_s)


def moved(film: Film, frames: int, at: Callable[[int], Sequence[Box]]) -> list[list[str]]:
    return [film.frame(*at(n)) for n in range(frames)]


def test_a_thing_that_moves_keeps_its_name() -> None:
    names = moved(Film(), 60, lambda n: [box(5 * n, 50 + 2 * n)])
    assert {tuple(frame) for frame in names} == {("car_0_20261124_120005",)}


def test_two_that_cross_keep_theirs() -> None:
    """In the middle they overlap wholly, and for some frames the detector sees one thing only."""

    def at(n: int) -> list[Box]:
        right, left = box(10 + 6 * n, 100), box(310 - 6 * n, 108)
        return [right] if abs(right.x_min - left.x_min) < 20 else [right, left]

    names = moved(Film(), 50, at)
    assert names[0] == names[-1]
    assert len(set(names[0])) == 2
    assert min(len(frame) for frame in names) == 1, "the test is to have frames with one box"


def test_a_gap_of_some_frames_is_bridged_by_where_it_was_going() -> None:
    film = Film()
    before = moved(film, 20, lambda n: [box(6 * n, 50)])
    for _ in range(12):
        assert film.frame() == []
    after = film.frame(box(6 * 32, 50))
    assert after == before[0]
    assert box(6 * 19, 50).x_max < box(6 * 32, 50).x_min, "where it was last seen, it is no more"


def test_after_a_longer_gap_it_is_another() -> None:
    film = Film(keep_s=0.5)
    moved(film, 5, lambda _: [box(50, 50), box(300, 300)])
    for _ in range(10):
        film.frame(box(300, 300))
    film.frame(box(50, 50), box(300, 300))
    assert [split_track(name)[1] for name in film.frame(box(50, 50), box(300, 300))] == [2, 1]


def test_faint_frames_keep_the_id_without_being_shown() -> None:
    film = Film(begin=0.6)
    first = moved(film, 10, lambda n: [box(8 * n, 50)])[-1]
    for n in range(10, 50):  # over two and a half seconds, longer than a thing that is not seen at all is remembered
        assert film.frame(faint=[box(8 * n, 50, 0.2)]) == []
    assert film.frame(box(8 * 50, 50)) == first
    for n in range(51, 91):
        film.frame(faint=[box(8 * n, 50, 0.05)])  # too faint to say anything
    assert film.frame(box(8 * 91, 50)) != first


def test_what_is_shown_but_not_sure_begins_no_track_and_continues_one() -> None:
    film = Film()
    film.frame(box(300, 300))
    assert moved(film, 3, lambda _: [box(50, 50, 0.4)]) == [[""]] * 3
    moved(film, 2, lambda _: [box(50, 50, 0.8)])
    assert split_track(film.frame(box(50, 50, 0.4))[0]) == ("car", 1)


def test_a_ghost_of_one_frame_gets_no_number() -> None:
    film = Film()
    film.frame(box(50, 50))
    assert film.frame(box(50, 50), box(200, 200))[1] == ""
    film.frame(box(50, 50))
    film.frame(box(50, 50), box(300, 50))
    assert [split_track(name)[1] for name in film.frame(box(50, 50), box(300, 50))] == [0, 1]


def test_labels_and_cameras_are_followed_apart() -> None:
    film = Film()
    names = moved(film, 3, lambda _: [box(50, 50), box(52, 50, label="dog")])[-1]
    assert [split_track(name) for name in names] == [("car", 0), ("dog", 0)]
    assert split_track(film.frame(box(50, 50), source="other")[0]) == ("car", 1)
    assert film.frame(box(50, 50), box(52, 50, label="dog")) == names


def test_after_a_restart_no_name_is_used_again() -> None:
    """Numbers begin anew; the time is what tells the names apart."""
    clock = iter([NOON, datetime(2026, 11, 24, 12, 3, 0, tzinfo=UTC)])
    names = []
    for _ in range(2):
        now = next(clock)
        tracks = Tracks(2.0, SURE, lambda now=now: now)  # type: ignore[misc]
        names.append(tracks.update("cam", [box(50, 50)], [], 1.0)[0])
    assert names == ["car_0_20261124_120005", "car_0_20261124_120300"]


def test_answers_that_overtake_each_other_and_slow_cameras_are_followed() -> None:
    tracks = Tracks(2.0, SURE, lambda: NOON)
    (first,) = tracks.update("cam", [box(50, 50)], [], 10.0)
    assert tracks.update("cam", [box(52, 50)], [], 9.9) == [first]
    assert tracks.update("cam", [box(56, 50)], [], 11.0) == [first]
    assert tracks.update("cam", [box(60, 50)], [], 12.0) == [first]


def test_many_cameras_do_not_grow_it() -> None:
    tracks = Tracks(2.0, SURE, lambda: NOON)
    for n in range(200):
        tracks.update(f"cam{n}", [box(50, 50)], [], float(n))
    assert len(tracks._trackers) <= 16


@pytest.mark.parametrize(
    ("name", "label", "number", "short"),
    [
        ("red star_3_20261124_120005", "red star", 3, "red star #3"),
        ("a_1_2_20261124_120005", "a_1", 2, "a_1 #2"),
        ("sign_5", "sign_5", None, "sign_5"),
        ("_5_20261124_120005", "_5_20261124_120005", None, "_5_20261124_120005"),  # no label
    ],
)
def test_names_are_taken_apart(name: str, label: str, number: int | None, short: str) -> None:
    assert split_track(name) == (label, number)
    assert short_name(name) == short
    if number is not None:
        assert track_name(label, number, NOON) == name


@given(st.integers(1, 5), st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_pairing_is_the_cheapest(rows: int, columns: int, random: Any) -> None:
    cost = np.array([[random.choice([random.random(), 1000.0]) for _ in range(columns)] for _ in range(rows)])
    pairs = assign(cost)
    assert len(pairs) == len({r for r, _ in pairs}) == len({c for _, c in pairs}) == min(rows, columns)
    wide = cost if rows <= columns else cost.T
    ways = itertools.permutations(range(wide.shape[1]), wide.shape[0])
    best = min(sum(wide[r, c] for r, c in enumerate(way)) for way in ways)
    assert sum(cost[r, c] for r, c in pairs) == pytest.approx(best)


@pytest.fixture
async def two_things(tmp_path: Path) -> Any:
    """A service model that sees a sure red and a faint blue thing in every picture."""
    host = Host()
    boxes = np.array([[[0.1, 0.1, 0.4, 0.3], [0.5, 0.5, 0.9, 0.8]]], np.float32)
    path = fixed_detector(
        tmp_path / "d.onnx", boxes, np.array([[0.9, 0.3]]), np.array([[0, 1]]), ["location", "category", "score"]
    )
    (tmp_path / "labels.txt").write_text("red\nblue\n")
    await onnx_service(host, path, tmp_path / "labels.txt")
    host.resources["cam", "camera"] = StillCamera(plain_jpeg((90, 90, 90)))
    yield host
    await host.resources["model", "mlmodel"].close()


async def test_a_service_names_things_only_when_asked_to(two_things: Host) -> None:
    plain = await vision_service(two_things)
    assert [d.class_name for d in await plain.get_detections_from_camera("cam")] == ["red", "blue"]
    tracking = await vision_service(two_things, tracking=True)
    tracking.clock_s = itertools.count(1.0, FRAME_S).__next__
    first = await tracking.get_detections_from_camera("cam")
    assert [split_track(d.class_name)[:2] for d in first] == [("red", 0), ("blue", None)]
    image = ViamImage(plain_jpeg((90, 90, 90)), CameraMimeType.JPEG)
    again = await tracking.get_detections(image, extra={"camera_name": "cam"})
    everything = await tracking.capture_all_from_camera("cam", True, True, True)
    for found in (again, everything.detections):
        assert [d.class_name for d in found] == [d.class_name for d in first]
        assert [d.confidence for d in found] == [d.confidence for d in first]


async def test_lowest_confidences_hold_for_things_that_are_followed(two_things: Host) -> None:
    tracking = await vision_service(two_things, tracking=True, default_minimum_confidence=0.35)
    assert [split_track(d.class_name) for d in await tracking.get_detections_from_camera("cam")] == [("red", 0)]
    sure_enough = await vision_service(two_things, tracking=True, label_confidences={"blue": 0.2})
    assert [split_track(d.class_name) for d in await sure_enough.get_detections_from_camera("cam")] == [("blue", 0)]
