"""Draws one thumbnail, turned as EXIF asks for: browsers and training see the picture so, and boxes are drawn on it."""

from __future__ import annotations

from typing import NamedTuple

LONGEST_SIDE_PX = 320
_QUALITY = 82
# 100 megapixels decode to 300 MB; nothing a camera makes is larger, a decompression bomb is.
_MOST_PIXELS = 100_000_000


class CannotDraw(Exception):
    """The bytes are no picture this app can decode."""


class Drawn(NamedTuple):
    jpeg: bytes
    """Its longest side is at most LONGEST_SIDE_PX."""
    hash: int
    """What it looks like: `picture_hash`."""


def draw(picture: bytes) -> Drawn:
    """Raises CannotDraw."""
    import cv2
    import numpy as np
    import simplejpeg

    from gleaner.app.services.picture_hash import picture_hash
    from gleaner.app.store import sniff
    from gleaner.wire.jpeg import exif_orientation
    from gleaner.wire.picture import upright

    orientation = 1
    found = sniff.sniff(picture[: sniff.HEAD_BYTES])
    if found.width * found.height > _MOST_PIXELS:
        raise CannotDraw(f"{found.width} × {found.height} pixels are too many")
    if found.mime_type == "image/jpeg":
        try:
            # The decoder leaves out detail that would only be thrown away: four times faster for camera pictures.
            pixels = simplejpeg.decode_jpeg(
                picture, colorspace="BGR", min_height=LONGEST_SIDE_PX, min_width=LONGEST_SIDE_PX, fastdct=True
            )
        except ValueError as err:
            raise CannotDraw(str(err)) from err
        orientation = exif_orientation(picture)
    else:
        try:
            pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error as err:
            raise CannotDraw(str(err)) from err
        if pixels is None:
            raise CannotDraw("not a picture, or damaged")
    height, width = pixels.shape[:2]
    scale = LONGEST_SIDE_PX / max(height, width)
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    pixels = np.ascontiguousarray(upright(pixels, orientation))
    jpeg = simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorspace="BGR")
    return Drawn(bytes(jpeg), picture_hash(pixels))
