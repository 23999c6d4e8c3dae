"""Small things in big pictures: tiles, and one list of boxes from what they show."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pydantic import ValidationError
from test_vision_mlmodel import Host, channel_mean_model, onnx_service, save_model, vision_service
from viam.errors import ViamGRPCError
from viam.media.video import CameraMimeType, ViamImage

from gleaner.learn.pictures import load_pictures
from gleaner.learn.request import Example
from gleaner.machine.models import vision_mlmodel
from gleaner.machine.vision.detect import Box
from gleaner.machine.vision.inputs import input_layout
from gleaner.machine.vision.tiles import Frame, Piece, Tiling, merge, piece_of
from gleaner.wire.track_names import split_track

HEIGHT, WIDTH = 960, 1280
INPUT = (96, 128)


def bright_detector(path: Path) -> Path:
    """Finds the one bright thing of a picture: the box around every pixel of its input above 200."""
    height, width = INPUT
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["grey"], axes=[3], keepdims=0),
        helper.make_node("Greater", ["grey", "limit"], ["over"]),
        helper.make_node("Cast", ["over"], ["bright"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["bright"], ["any"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["any", "sure"], ["flat_score"]),
        helper.make_node("Reshape", ["flat_score", "one"], ["score"]),
        helper.make_node("Mul", ["score", "zero"], ["category"]),
    ]
    for name, axis, side in (("y", 2, height), ("x", 1, width)):
        nodes.append(helper.make_node("ReduceMax", ["bright"], [f"{name}s"], axes=[axis], keepdims=0))
        for end, last in (("0", 0), ("1", 1)):
            at = f"{name}{end}"
            nodes.append(
                helper.make_node("ArgMax", [f"{name}s"], [f"{at}i"], axis=1, keepdims=0, select_last_index=last)
            )
            nodes.append(helper.make_node("Cast", [f"{at}i"], [f"{at}f"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Add", [f"{at}f", f"end{end}"], [f"{at}e"]))
            nodes.append(helper.make_node("Div", [f"{at}e", f"side{side}"], [at]))
    nodes.append(helper.make_node("Concat", ["y0", "x0", "y1", "x1"], ["corners"], axis=0))
    nodes.append(helper.make_node("Reshape", ["corners", "four"], ["location"]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("location", [1, 1, 4]), ("category", [1, 1]), ("score", [1, 1]))
    ]
    numbers = {
        "limit": 200,
        "sure": 0.9,
        "zero": 0,
        "end0": 0,
        "end1": 1,
        f"side{height}": height,
        f"side{width}": width,
    }
    shapes = {"one": [1, 1], "four": [1, 1, 4]}
    constants = [(name, np.float32(value)) for name, value in numbers.items()]
    return save_model(path, nodes, [image], outputs, constants + [(n, np.array(v)) for n, v in shapes.items()])


@pytest.fixture
async def host(tmp_path: Path) -> Any:
    host = Host()
    (tmp_path / "labels.txt").write_text("lamp\n")
    await onnx_service(host, bright_detector(tmp_path / "bright.onnx"), tmp_path / "labels.txt")
    yield host
    await host.resources["model", "mlmodel"].close()


def lamp(left: int, top: int, width: int, height: int | None = None) -> ViamImage:
    """A bright patch on a dark wall."""
    wall = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    wall[top : top + (height or width), left : left + width] = 250
    return ViamImage(simplejpeg.encode_jpeg(wall, quality=95), CameraMimeType.JPEG)


async def seen(host: Host, image: ViamImage, **attributes: Any) -> list[tuple[int, int, int, int]]:
    vision = await vision_service(host, default_minimum_confidence=0.5, **attributes)
    found = await vision.get_detections(image)
    assert all(d.class_name == "lamp" for d in found)
    return [(d.x_min, d.y_min, d.x_max, d.y_max) for d in found]


async def test_a_small_thing_is_found_only_with_tiles(host: Host) -> None:
    image = lamp(300, 210, 8)
    assert await seen(host, image) == []
    [(x_min, y_min, x_max, y_max)] = await seen(host, image, tiles=3)
    assert (x_min, y_min, x_max, y_max) == pytest.approx((300, 210, 308, 218), abs=5)


@pytest.mark.parametrize(
    ("tiles", "place"),
    [
        (3, (472, 100)),  # in the overlap of two tiles of the first row, whole in both
        (3, (488, 100)),  # cut off by the first one's edge
        (3, (390, 100)),  # by the second one's
        (3, (488, 360)),  # at a corner where four meet
        ({"rows": 3, "columns": 4, "overlap": 0.3}, (370, 240)),
    ],
)
async def test_a_small_thing_across_a_seam_is_found_once(host: Host, tiles: Any, place: tuple[int, int]) -> None:
    [(x_min, y_min, x_max, y_max)] = await seen(host, lamp(*place, 10), tiles=tiles)
    expected = (place[0], place[1], place[0] + 10, place[1] + 10)
    assert (x_min, y_min, x_max, y_max) == pytest.approx(expected, abs=6)


async def test_a_thing_longer_than_the_overlap_is_put_together(host: Host) -> None:
    """So thin that the whole picture does not show it, so long that no tile shows all of it."""
    image = lamp(150, 204, 1000, 7)
    assert await seen(host, image) == []
    [(x_min, y_min, x_max, y_max)] = await seen(host, image, tiles=3)
    assert (x_min, x_max) == pytest.approx((150, 1150), abs=8)
    assert (y_min, y_max) == pytest.approx((204, 211), abs=6)


async def test_a_large_thing_is_found_once_as_without_tiles(host: Host) -> None:
    image = lamp(200, 150, 700)
    assert await seen(host, image, tiles=2) == await seen(host, image)


async def test_things_in_tiles_are_followed(host: Host) -> None:
    vision = await vision_service(host, default_minimum_confidence=0.5, tiles=3, tracking=True)
    vision.clock_s = itertools.count(
        1.0, 1 / 15
    ).__next__  # a busy computer's pauses are no part of how the thing moves
    names = {(await vision.get_detections(lamp(440 + n, 210, 12)))[0].class_name for n in range(0, 90, 2)}
    assert [split_track(name)[1] for name in names] == [0], "over a seam too"


async def test_the_whole_picture_is_prepared_as_ever_and_tiles_as_training_would(host: Host, tmp_path: Path) -> None:
    """Bit for bit: a tile is what training makes of the tile saved as a picture of its own."""
    random = np.random.default_rng(0)
    picture = cv2.resize(
        random.integers(0, 255, (60, 80, 3), dtype=np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC
    )
    png = cv2.imencode(".png", picture)[1].tobytes()
    layout = input_layout("image", "uint8", [1, *INPUT, 3], {})
    plain = await vision_service(host)
    tiled = await vision_service(host, tiles={"rows": 2, "columns": 3, "overlap": 0.25})
    size, views = tiled._views(png, layout)
    assert size == (480, 640) and len(views) == 7
    assert np.array_equal(views[0][1], plain._views(png, layout)[1][0][1])
    examples = []
    for number, (frame, _) in enumerate(views):
        part = picture[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width]
        cv2.imwrite(str(tmp_path / f"{number}.png"), part)
        examples.append(Example(str(number), tmp_path / f"{number}.png", frozenset(), None, ""))
    learned = load_pictures(examples, INPUT, 1, lambda: True, lambda _: None, tmp_path).pixels
    assert np.array_equal(np.concatenate([tensor for _, tensor in views]), learned[:])


async def test_big_pictures_are_not_decoded_larger_than_the_tiles_need(host: Host) -> None:
    vision = await vision_service(host, tiles=2)
    layout = input_layout("image", "uint8", [1, *INPUT, 3], {})
    wall = np.full((3000, 4000, 3), 40, np.uint8)
    wall[600:660, 3000:3060] = 250
    jpeg = simplejpeg.encode_jpeg(wall, quality=90)
    size, views = vision._views(jpeg, layout)
    assert size == (3000, 4000)
    frame, tensor = views[2]  # the upper right
    rows, columns = np.nonzero(tensor[0].mean(-1) > 150)
    x, y = columns.mean() / INPUT[1] * frame.width + frame.left, rows.mean() / INPUT[0] * frame.height + frame.top
    assert (x, y) == pytest.approx((3030, 630), abs=15)


@pytest.mark.parametrize(
    ("tiles", "says"),
    [
        (1, "greater than or equal to 2"),
        (9, "less than or equal to 8"),
        ({"rows": 1, "columns": 1}, "is the whole picture"),
        ({"rows": 0, "columns": 2}, "greater than or equal to 1"),
        ({"rows": 2}, "columns"),
        ({"rows": 2, "columns": 2, "overlap": 0.9}, "less than or equal to 0.5"),
        ({"rows": 2, "columns": 2, "overlap": -0.1}, "greater than or equal to 0"),
        ({"rows": 2, "columns": 2, "size": 3}, "size"),
        ("two", "valid integer"),
    ],
)
def test_impossible_tiles_are_refused(tiles: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        vision_mlmodel.SPEC.attributes(mlmodel_name="m", tiles=tiles)


async def test_a_picture_too_small_for_its_tiles_says_so(host: Host) -> None:
    vision = await vision_service(host, tiles=8)
    tiny = ViamImage(simplejpeg.encode_jpeg(np.zeros((40, 300, 3), np.uint8)), CameraMimeType.JPEG)
    with pytest.raises(ViamGRPCError, match="300×40 px is too small for 8×8 tiles"):
        await vision.get_detections(tiny)


@pytest.mark.parametrize("attributes", [{"tiles": 2}, {"tracking": True}])
async def test_a_classifier_has_neither_tiles_nor_ids(tmp_path: Path, attributes: dict[str, Any]) -> None:
    host = Host()
    await onnx_service(host, channel_mean_model(tmp_path / "m.onnx"))
    with pytest.raises(ViamGRPCError, match="needs a detector, and ML model 'model' is none"):
        await vision_service(host, **attributes)
    await host.resources["model", "mlmodel"].close()  # type: ignore[attr-defined]


@given(st.integers(100, 4000), st.integers(100, 4000), st.integers(1, 8), st.integers(1, 8), st.floats(0, 0.5))
def test_tiles_cover_the_picture_and_are_alike(
    height: int, width: int, rows: int, columns: int, overlap: float
) -> None:
    whole, *tiles = Tiling(rows, columns, overlap).frames(height, width)
    assert (whole.left, whole.top, whole.width, whole.height) == (0, 0, width, height) and not any(whole.seams)
    assert len(tiles) == rows * columns
    assert max(t.width for t in tiles) - min(t.width for t in tiles) <= 2
    covered = np.zeros((height, width), np.bool_)
    for tile in tiles:
        covered[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = True
        inner = (tile.left > 0, tile.top > 0, tile.left + tile.width < width, tile.top + tile.height < height)
        assert tile.seams == inner
    assert covered.all()


def box(left: int, top: int, right: int, bottom: int, confidence: float = 0.9, label: str = "a") -> Box:
    return Box(label, confidence, left, top, right, bottom)


LEFT_TILE = Frame(0, 0, 110, 100, (False, False, True, False))
RIGHT_TILE = Frame(90, 0, 110, 100, (True, False, False, False))


def test_of_what_is_said_twice_the_surer_stays_and_labels_do_not_mix() -> None:
    pieces = [Piece(box(10, 10, 50, 50, 0.6)), Piece(box(12, 10, 52, 50, 0.8)), Piece(box(10, 10, 50, 50, 0.7, "b"))]
    assert merge(pieces) == [box(12, 10, 52, 50, 0.8), box(10, 10, 50, 50, 0.7, "b")]
    assert merge([]) == []


def test_a_piece_gives_way_to_the_whole_even_when_it_is_surer() -> None:
    whole, piece = piece_of(box(92, 40, 108, 60, 0.5), LEFT_TILE), piece_of(box(0, 40, 25, 60, 0.9), RIGHT_TILE)
    assert whole.is_cut and piece.is_cut, "the first ends within the reach of a model's imprecision"
    inside = Piece(box(92, 40, 115, 60, 0.5))
    assert merge([inside, piece]) == [inside.box]


def test_neighbours_of_one_label_on_both_sides_of_a_seam_stay_two() -> None:
    """They are cut off at the same seam but lie at different heights, or do not touch."""
    left, lower = piece_of(box(80, 10, 109, 30), LEFT_TILE), piece_of(box(0, 60, 30, 90), RIGHT_TILE)
    assert len(merge([left, lower])) == 2
    beyond = piece_of(box(40, 10, 70, 30), RIGHT_TILE)  # not cut off at all
    assert len(merge([left, beyond])) == 2


def test_pieces_in_four_tiles_become_one() -> None:
    frames = Tiling(2, 2, 0.1).frames(200, 200)[1:]
    pieces = [
        piece_of(
            box(
                max(20, f.left) - f.left, max(30, f.top) - f.top,
                min(180, f.left + f.width) - f.left - 1, min(170, f.top + f.height) - f.top - 1,
            ),
            f,
        )
        for f in frames
    ]  # fmt: skip
    assert all(piece.is_cut for piece in pieces)
    assert merge(pieces) == [box(20, 30, 179, 169)]
