"""Photo files on disk → pictures a camera can give: JPEG bytes untouched where they can be, upright always."""

from __future__ import annotations

import time
from pathlib import Path

from gleaner.machine.models.pictures import CameraProblem, Picture, decode_image, jpeg_picture
from gleaner.wire.jpeg import exif_orientation, jpeg_size

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def load_photo(path: Path, quality: int) -> Picture:
    """An upright JPEG keeps its bytes; anything else, and a JPEG that its camera held sideways, is encoded anew.

    Raises CameraProblem when the bytes are not a picture, OSError when the file cannot be read.
    """
    data = path.read_bytes()
    if data[:2] == b"\xff\xd8" and exif_orientation(data) == 1:
        width, height = jpeg_size(data)
        if not width or not height:
            raise CameraProblem(f"{path} is not a readable JPEG: it is damaged or cut off in its header")
        # A torn file has a good header but no end; let the decoder judge it.
        if data.rstrip(b"\x00").endswith(b"\xff\xd9"):
            return Picture(data, "image/jpeg", width, height, time.time_ns())
    try:
        return jpeg_picture(decode_image(data), quality, time.time_ns())
    except CameraProblem as problem:
        raise CameraProblem(f"{path}: {problem}", problem.grpc_code) from problem
