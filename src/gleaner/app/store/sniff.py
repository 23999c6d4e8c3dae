"""What bytes are: MIME type, kind and picture size, from their first bytes and their name. Reads headers only, decodes nothing."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gleaner.wire.jpeg import jpeg_size

IMAGE, POINT_CLOUD, FILE, READING = "image", "point_cloud", "file", "reading"
KINDS = (IMAGE, POINT_CLOUD, FILE, READING)
# Enough for the size of a JPEG behind large EXIF and colour profile segments.
HEAD_BYTES = 256 * 1024

_BY_EXTENSION = {
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".dep": "image/vnd.viam.dep",
    ".rgba": "image/vnd.viam.rgba",
    ".pcd": "pointcloud/pcd",
    ".mp4": "video/mp4",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".csv": "text/csv",
    ".json": "application/json",
    ".txt": "text/plain",
    ".log": "text/plain",
    ".pdf": "application/pdf",
    ".zip": "application/zip",
}
_EXTENSION_OF = {mime: ext for ext, mime in reversed(_BY_EXTENSION.items())} | {"text/plain": ".txt"}


@dataclass(frozen=True)
class Sniffed:
    """`width` and `height` are as stored, before any rotation an EXIF tag asks for; 0 when unknown."""

    mime_type: str
    kind: str
    width: int
    height: int


def sniff(head: bytes, *, mime_type: str = "", file_ext: str = "") -> Sniffed:
    """What the bytes themselves say wins, then the declared MIME type, then the file extension."""
    mime = _mime_of(head) or mime_type or mime_of_extension(file_ext) or "application/octet-stream"
    width, height = picture_size(head, mime)
    return Sniffed(mime, kind_of(mime), width, height)


def kind_of(mime_type: str) -> str:
    if mime_type.startswith("image/") and mime_type != "image/svg+xml":
        return IMAGE
    return POINT_CLOUD if mime_type == "pointcloud/pcd" else FILE


def mime_of_extension(file_ext: str) -> str:
    ext = file_ext.lower()
    return _BY_EXTENSION.get(ext if ext.startswith(".") or not ext else "." + ext, "")


def extension_of(mime_type: str) -> str:
    """The file extension with its dot, "" when the type is not one of ours."""
    return _EXTENSION_OF.get(mime_type, "")


def picture_size(head: bytes, mime_type: str) -> tuple[int, int]:
    """(width, height) in pixels; (0, 0) if the header does not say, or says what no picture has (2³¹ and more, as in PNG)."""
    try:
        width, height = _said_size(head, mime_type)
    except struct.error:
        return 0, 0  # cut off inside the header: a broken picture has no size
    return (width, height) if max(width, height) < 1 << 31 else (0, 0)


def _said_size(head: bytes, mime_type: str) -> tuple[int, int]:
    if mime_type == "image/jpeg":
        return jpeg_size(head)
    if mime_type == "image/png" and len(head) >= 24:
        return struct.unpack_from(">II", head, 16)
    if mime_type == "image/gif":
        return struct.unpack_from("<HH", head, 6)
    if mime_type == "image/bmp":
        width, height = struct.unpack_from("<ii", head, 18)
        return abs(width), abs(height)
    if mime_type == "image/webp":
        return _webp_size(head)
    if mime_type == "image/vnd.viam.rgba" and head[:4] == b"RGBA":
        return struct.unpack_from(">II", head, 4)
    if mime_type == "image/vnd.viam.dep" and head[:8] == b"DEPTHMAP":
        return struct.unpack_from(">QQ", head, 8)
    return 0, 0


def _mime_of(head: bytes) -> str:
    for magic, mime in (
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"DEPTHMAP", "image/vnd.viam.dep"),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
        (b"# .PCD", "pointcloud/pcd"),
        (b"VERSION .7\nFIELDS", "pointcloud/pcd"),
        (b"%PDF-", "application/pdf"),
    ):
        if head.startswith(magic):
            return mime
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "audio/wav"
    if head[:2] == b"BM" and len(head) > 26 and head[6:10] == b"\0\0\0\0":
        return "image/bmp"
    return "video/mp4" if head[4:8] == b"ftyp" else ""


def _webp_size(head: bytes) -> tuple[int, int]:
    form = head[12:16]
    if form == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    if form == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8X" and len(head) >= 30:
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return 0, 0
