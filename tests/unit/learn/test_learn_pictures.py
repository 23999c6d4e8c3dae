"""Reading real-world picture files: orientation, grey, 16 bits, damage."""

from __future__ import annotations

import resource
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from gleaner.learn.errors import RunProblem
from gleaner.learn.picture_file import PictureFile
from gleaner.learn.pictures import choose_input_size, load_pictures
from gleaner.learn.request import Example
from gleaner.wire.jpeg import exif_orientation
from gleaner.wire.picture import PictureProblem, Rgb, picture_size, read_rgb, resize_rgb

FULL_RED, FULL_BLUE = (255, 0, 0), (0, 0, 255)


def corner_picture(height: int = 40, width: int = 64) -> Rgb:
    """Red top left quarter, blue elsewhere."""
    picture = np.full((height, width, 3), FULL_BLUE, np.uint8)
    picture[: height // 2, : width // 2] = FULL_RED
    return picture


def with_orientation(jpeg: bytes, value: int, order: str = ">") -> bytes:
    mark = b"MM" if order == ">" else b"II"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, value, 0)
    tiff = mark + struct.pack(order + "HI", 42, 8) + struct.pack(order + "H", 1) + entry + b"\0" * 4
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def jpeg_of(picture: Rgb, quality: int = 95) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=quality, colorsubsampling="444"))


def png_of(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


# where the red corner is shown for each EXIF orientation, and whether the sides are swapped
ORIENTATIONS = [
    (1, (0, 0), False), (2, (0, -1), False), (3, (-1, -1), False), (4, (-1, 0), False),
    (5, (0, 0), True), (6, (0, -1), True), (7, (-1, -1), True), (8, (-1, 0), True),
]  # fmt: skip


@pytest.mark.parametrize(("value", "corner", "swapped"), ORIENTATIONS)
@pytest.mark.parametrize("order", [">", "<"])
def test_exif_orientation_is_applied(value: int, corner: tuple[int, int], swapped: bool, order: str) -> None:
    data = with_orientation(jpeg_of(corner_picture()), value, order)
    shown = read_rgb(data)
    assert exif_orientation(data) == value
    assert shown.shape[:2] == ((64, 40) if swapped else (40, 64)) == picture_size(data)
    assert shown[corner][0] > 200
    opposite = (-1 - corner[0], -1 - corner[1])
    assert shown[opposite][2] > 200
    np.testing.assert_allclose(shown, read_rgb(png_of(cv2.imdecode(np.frombuffer(data, np.uint8), 1))), atol=6)


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_a_damaged_exif_block_is_upright_not_an_error(cut: int) -> None:
    whole = with_orientation(jpeg_of(corner_picture()), 6)
    body = whole[4 : 4 + 34]
    broken = (
        whole[:2] + b"\xff\xe1" + struct.pack(">H", len(body[:cut]) + 2) + body[:cut] + jpeg_of(corner_picture())[2:]
    )
    assert exif_orientation(broken) in range(1, 9)
    assert read_rgb(broken).shape[2] == 3


@pytest.mark.parametrize(
    "array",
    [
        np.full((20, 30), 130, np.uint8),  # grey
        np.full((20, 30), 130 * 257, np.uint16),  # 16-bit grey
        np.full((20, 30, 3), 130 * 257, np.uint16),
        np.full((20, 30, 4), 130, np.uint8),  # with transparency
    ],
)
def test_png_of_any_depth_becomes_8_bit_rgb(array: np.ndarray) -> None:
    data = png_of(array)
    picture = read_rgb(data)
    assert (picture.dtype, picture.shape) == (np.uint8, (20, 30, 3))
    assert picture_size(data) == (20, 30)
    assert np.abs(picture.astype(int) - 130).max() <= 1


def test_grey_jpeg_becomes_rgb() -> None:
    grey = np.full((20, 30, 1), 99, np.uint8)
    picture = read_rgb(simplejpeg.encode_jpeg(grey, colorspace="GRAY", colorsubsampling="Gray"))
    assert picture.shape == (20, 30, 3)


def test_viams_raw_rgba_is_read_and_checked() -> None:
    rgba = np.full((2, 3, 4), (10, 20, 30, 255), np.uint8)
    data = b"RGBA" + struct.pack(">II", 3, 2) + rgba.tobytes()
    assert picture_size(data) == (2, 3)
    assert read_rgb(data)[1, 2].tolist() == [10, 20, 30]
    with pytest.raises(PictureProblem, match="needs 36 bytes"):
        read_rgb(data[:-1])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not a picture"),
        (b"\xff\xd8\xff", "damaged"),
        (jpeg_of(corner_picture())[:-300], "cut off"),
    ],
)
def test_what_is_no_picture_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(PictureProblem, match=reason):
        read_rgb(data)


def test_large_jpegs_are_decoded_smaller_but_look_the_same() -> None:
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8), (1600, 1200))
    data = jpeg_of(smooth)
    quick, full = read_rgb(data, fit=(96, 128)), read_rgb(data)
    assert quick.shape == (300, 400, 3)
    difference = np.abs(resize_rgb(quick, 96, 128).astype(int) - resize_rgb(full, 96, 128))
    assert difference.mean() < 1


def example(path: Path) -> Example:
    return Example(path.name, path, frozenset(), None, "")


def test_broken_files_are_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg_of(corner_picture()))
    (tmp_path / "grey.png").write_bytes(png_of(np.zeros((8, 8), np.uint8)))
    (tmp_path / "cut.jpg").write_bytes(jpeg_of(corner_picture())[:-300])
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    names = ["good.jpg", "cut.jpg", "grey.png", "text.jpg", "empty.jpg", "gone.jpg"]
    loaded = load_pictures([example(tmp_path / n) for n in names], (64, 96), 2, lambda: True, lambda _: None, tmp_path)
    assert [e.id for e in loaded.examples] == ["good.jpg", "grey.png"]
    assert loaded.pixels.shape == (2, 64, 96, 3)
    assert [s.id for s in loaded.skipped] == ["cut.jpg", "text.jpg", "empty.jpg", "gone.jpg"]
    assert all(s.reason for s in loaded.skipped)


def test_pictures_on_disk_are_indexed_like_an_array(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (9, 4, 6, 3), dtype=np.uint8)
    stored = PictureFile(tmp_path, (4, 6))
    for part in (array[:2], array[2:7], array[7:]):
        stored.append(list(part))
    assert (stored.shape, len(stored)) == (array.shape, 9)
    assert np.array_equal(stored[3], array[3])
    assert np.array_equal(stored[-1], array[-1])
    for index in (slice(2, 5), slice(None), slice(0, 0), [8, 0, 0], np.array([4, 1])):
        assert np.array_equal(stored[index], array[index])  # type: ignore[arg-type]
    chosen = stored.select([7, 1, 4]).select([2, 0])
    assert np.array_equal(list(chosen), array[[4, 7]])
    assert len(stored) == 9
    with pytest.raises(IndexError):
        stored[9]
    assert not list(tmp_path.iterdir())


def test_a_full_disk_ends_the_reading_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_of(corner_picture()))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(RunProblem, match="cannot be put down") as raised:
            load_pictures([example(tmp_path / "a.jpg")] * 9, (64, 64), 1, lambda: True, lambda _: None, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Make room" in raised.value.hint


def test_reading_stops_when_the_time_is_up(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_of(corner_picture()))
    loaded = load_pictures([example(tmp_path / "a.jpg")] * 200, (64, 64), 1, lambda: False, lambda _: None, tmp_path)
    assert (len(loaded.examples), loaded.left_out) == (64, 136)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 640, (144, 192)),
        (100, 100, (96, 96)),  # never larger than the pictures
        (1920, 1080, (224, 128)),
        (100, 4000, (112, 240)),  # a panorama is squeezed to 2:1
    ],
)
def test_input_size_follows_the_pictures(tmp_path: Path, height: int, width: int, expected: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(png_of(np.zeros((height, width), np.uint8)))
    assert choose_input_size([example(tmp_path / "a.png")]) == expected


def test_input_size_without_a_readable_picture_is_the_smallest(tmp_path: Path) -> None:
    assert choose_input_size([example(tmp_path / "gone.png")]) == (64, 64)
