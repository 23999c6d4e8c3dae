"""Photo files on disk → pictures a camera can give: JPEG bytes untouched where they can be, upright always."""

from __future__ import annotations

import struct
import time
from pathlib import Path

from gleaner.machine.models.pictures import CameraProblem, Picture, decode_image, jpeg_picture

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

_ORIENTATION_TAG = 0x0112


def load_photo(path: Path, quality: int) -> Picture:
    """An upright JPEG keeps its bytes; anything else, and a JPEG that its camera held sideways, is encoded anew.

    Raises CameraProblem when the bytes are not a picture, OSError when the file cannot be read.
    """
    import simplejpeg

    data = path.read_bytes()
    if data[:2] == b"\xff\xd8" and exif_orientation(data) == 1:
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            if data.rstrip(b"\x00").endswith(
                b"\xff\xd9"
            ):  # a torn file has a good header but no end; let the decoder judge it
                return Picture(data, "image/jpeg", width, height, time.time_ns())
        except ValueError as error:
            raise CameraProblem(f"{path} is not a readable JPEG: {error}") from error
    try:
        return jpeg_picture(decode_image(data), quality, time.time_ns())
    except CameraProblem as problem:
        raise CameraProblem(f"{path}: {problem}", problem.grpc_code) from problem


def exif_orientation(data: bytes) -> int:
    """1 (upright) to 8 from a JPEG's EXIF; 1 when there is none or it is damaged. Source: EXIF 2.32 §4.5, TIFF 6.0 §2."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA or length < 2:
            return 1
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\x00\x00":
            return _tiff_orientation(data[at + 10 : at + 2 + length])
        at += 2 + length
    return 1


def _tiff_orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _n, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == _ORIENTATION_TAG and kind == 3:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
