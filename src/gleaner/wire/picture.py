"""How an encoded picture becomes the pixels a model sees: one rule, shared by training and by inference.

A model that was trained on pictures shrunk one way and run on pictures shrunk another way loses accuracy for no reason.
Orientation from EXIF is applied, grey and 16-bit pictures become 8-bit RGB, transparency is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gleaner.wire.jpeg import exif_orientation, jpeg_size

if TYPE_CHECKING:
    pass

Rgb = NDArray[np.uint8]
"""uint8, (height, width, 3), red first."""

VIAM_RGBA_MAGIC = b"RGBA"
MAX_PIXELS = 200_000_000
"""Refused beyond this: decoding it would take more memory than a small machine has."""
_JPEG_START = b"\xff\xd8"


class PictureProblem(ValueError):
    """Bytes that cannot be shown as a picture; the message says why."""


def read_rgb(data: bytes, fit: tuple[int, int] | None = None) -> Rgb:
    """Decodes JPEG, PNG, WebP, BMP, TIFF or Viam's raw RGBA.

    `fit` is the (height, width) the caller will shrink to. A JPEG much larger than that is decoded at a smaller
    scale, never below twice `fit`, which is several times faster and looks the same after shrinking.

    Raises:
        PictureProblem: empty, truncated, damaged, too large or not a picture.
    """
    if not data:
        raise PictureProblem("the file is empty")
    if data.startswith(VIAM_RGBA_MAGIC):
        return _read_viam_rgba(data)
    if data.startswith(_JPEG_START):
        return _read_jpeg(data, fit)
    return _read_other(data)


def resize_rgb(picture: Rgb, height: int, width: int) -> Rgb:
    """Squeezes to exactly height × width (Viam keeps no aspect ratio either); averages areas when shrinking."""
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    shrinks = picture.shape[0] >= height and picture.shape[1] >= width
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def picture_size(data: bytes) -> tuple[int, int]:
    """(height, width) as the picture is shown, after EXIF orientation; cheap for JPEG and PNG."""
    if data.startswith(_JPEG_START):
        height, width = _jpeg_size(data)
        return (width, height) if exif_orientation(data) >= 5 else (height, width)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if data.startswith(VIAM_RGBA_MAGIC) and len(data) >= 12:
        return int.from_bytes(data[8:12], "big"), int.from_bytes(data[4:8], "big")
    shape = read_rgb(data).shape
    return int(shape[0]), int(shape[1])


def upright(picture: Rgb, orientation: int) -> Rgb:
    """Turned and mirrored as EXIF's `orientation`, 1 to 8, asks for."""
    if orientation == 1:
        return picture
    if orientation >= 5:
        picture = np.transpose(picture, (1, 0, 2))
    # After the transpose, 5 is done, 6 still needs left-right, 7 both, 8 up-down; 2, 3 and 4 the same without it.
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    width, height = jpeg_size(data)
    if not width or not height:
        raise PictureProblem("the JPEG is damaged or cut off in its header")
    return height, width


def _read_jpeg(data: bytes, fit: tuple[int, int] | None) -> Rgb:
    import simplejpeg

    height, width = _jpeg_size(data)
    _check_size(height, width)
    orientation = exif_orientation(data)
    least = (0, 0) if fit is None else ((2 * fit[1], 2 * fit[0]) if orientation >= 5 else (2 * fit[0], 2 * fit[1]))
    wanted = {"colorspace": "RGB", "min_height": least[0], "min_width": least[1]} if fit else {"colorspace": "RGB"}
    try:
        picture = simplejpeg.decode_jpeg(data, **wanted)
    except ValueError as error:
        if "premature end" in str(error).lower():
            raise PictureProblem("the JPEG is cut off before its end") from error
        try:
            return _read_other(data)  # CMYK, and the harmless oddities of cheap cameras
        except PictureProblem:
            raise PictureProblem("the JPEG is damaged or cut off in its header") from error
    return upright(np.asarray(picture, dtype=np.uint8), orientation)


def _read_other(data: bytes) -> Rgb:
    import cv2

    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise PictureProblem(f"it cannot be decoded ({error.err})") from error
    if decoded is None:
        raise PictureProblem("it is not a picture in a format that can be read (JPEG, PNG, WebP, BMP, TIFF)")
    return np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)


def _read_viam_rgba(data: bytes) -> Rgb:
    """Magic `RGBA`, big-endian u32 width and height, then four bytes per pixel."""
    width, height = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
    _check_size(height, width)
    if len(data) != 12 + 4 * width * height:
        raise PictureProblem(f"raw RGBA of {width}×{height} needs {12 + 4 * width * height} bytes, it has {len(data)}")
    return np.ascontiguousarray(np.frombuffer(data, np.uint8, offset=12).reshape(height, width, 4)[..., :3])


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise PictureProblem("it has no pixels")
    if height * width > MAX_PIXELS:
        raise PictureProblem(f"{width}×{height} is more than {MAX_PIXELS // 1_000_000} million pixels")
