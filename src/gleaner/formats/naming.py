"""Names of exported files: valid on every file system, and no two the same, whatever the pictures are called."""

from __future__ import annotations

import hashlib
import re

from gleaner.formats.values import Picture

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u2028\u2029\ud800-\udfff\ufffe\uffff]')
# Windows drops spaces and dots at the end; readers of lists of names drop every white space (also U+00A0, U+3000) at both.
_EDGES = re.compile(r"^[\s.]+|[\s.]+$")
# Windows has these for devices, with any ending.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_LONGEST_BYTES = 120
_MAGIC = ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"II*\0", ".tif"))


class Names:
    """Gives each picture a name of its own. Stems differ too, because labels lie in files of the same stem."""

    def __init__(self) -> None:
        # Eight bytes a name instead of the name: 60 MB for a million. A collision costs a suffix nobody needed.
        self._taken: set[int] = set()
        self._next: dict[int, int] = {}

    def of(self, picture: Picture, folder: str = "") -> str:
        stem, ending = _stem_and_ending(picture)
        number, same = 1, _hash(f"{folder}/{stem}")
        if same in self._taken:
            number = self._next.get(same, 1)
        while (key := _hash(f"{folder}/{stem}{_suffix(number)}")) in self._taken:
            number += 1
        self._taken.add(key)
        if number > 1:
            self._next[same] = number + 1
        return f"{stem}{_suffix(number)}{ending}"


def safe_name(text: str) -> str:
    """One path component: `text` with what some file system refuses replaced by `_`."""
    name = _EDGES.sub("", _UNSAFE.sub("_", text))
    name = _EDGES.sub("", name.encode()[:_LONGEST_BYTES].decode("utf-8", "ignore"))
    return f"_{name}" if not name or _RESERVED.match(name) else name


def _stem_and_ending(picture: Picture) -> tuple[str, str]:
    base = picture.name.replace("\\", "/").rpartition("/")[2]
    stem, dot, last = base.rpartition(".")
    if dot and f".{last.lower()}" in PICTURE_ENDINGS:
        return safe_name(stem), f".{last.lower()}"
    return safe_name(base), ending_of(picture.read()[:16])


def ending_of(head: bytes) -> str:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    return next((ending for magic, ending in _MAGIC if head.startswith(magic)), ".jpg")


def _suffix(number: int) -> str:
    return f"-{number}" if number > 1 else ""


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.casefold().encode("utf-8", "replace"), digest_size=8).digest(), "little")
