"""What a JPEG's header says, read without decoding and without a library that needs numpy.

Sources: ITU T.81 annex B for the segments, EXIF 2.32 §4.5 and TIFF 6.0 §2 for the orientation.
"""

from __future__ import annotations

from collections.abc import Iterator

_EXIF_ORIENTATION_TAG = 0x0112
_NOT_A_FRAME = frozenset((0xC4, 0xC8, 0xCC))
"""Among the start-of-frame markers 0xC0-0xCF: tables and an extension."""
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """(width, height) in pixels as stored, before EXIF orientation; (0, 0) if the header is damaged or cut off."""
    for marker, start, end in _segments(jpeg):
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_A_FRAME and min(end, len(jpeg)) >= start + 5:
            return int.from_bytes(jpeg[start + 3 : start + 5], "big"), int.from_bytes(
                jpeg[start + 1 : start + 3], "big"
            )
    return 0, 0


def exif_orientation(jpeg: bytes) -> int:
    """1–8 as in the EXIF standard; 1 (upright) when the file does not say or says nonsense."""
    for marker, start, end in _segments(jpeg):
        if marker == 0xE1 and jpeg[start : start + 6] == b"Exif\0\0":
            return _orientation_of_tiff(jpeg[start + 6 : end])
    return 1


def scan_start(jpeg: bytes) -> int:
    """Where the picture data begin, behind the header and its embedded thumbnail; -1 if that is not in these bytes."""
    end = max((end for _, _, end in _segments(jpeg)), default=2)
    while jpeg[end : end + 2] == b"\xff\xff":
        end += 1
    return end if jpeg[end : end + 2] == b"\xff\xda" else -1


def _segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, first byte, last byte + 1) of the header segments that precede the picture data."""
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        size = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker in (0xDA, 0xD9) or size < 2:
            return
        yield marker, at + 4, at + 2 + size
        at += 2 + size


def _orientation_of_tiff(tiff: bytes) -> int:
    order = "little" if tiff[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)  # type: ignore[arg-type]

    first = number(4, 4)
    for index in range(number(first, 2)):
        entry = first + 2 + 12 * index
        if entry + 12 > len(tiff):
            break
        if number(entry, 2) == _EXIF_ORIENTATION_TAG:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
