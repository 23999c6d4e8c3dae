"""Ids that both halves compute on their own and that must come out equal."""

from __future__ import annotations

import re
from hashlib import blake2b

CAPTURE_ID_BYTES = 16
_CAPTURE_ID = re.compile(f"[0-9a-f]{{{2 * CAPTURE_ID_BYTES}}}")


class CaptureIdHasher:
    """`capture_id` for content that arrives in pieces."""

    def __init__(self, part_id: str, path: str) -> None:
        self._hash = blake2b(digest_size=CAPTURE_ID_BYTES)
        for text in (part_id, path):
            field = text.encode("utf-8", "surrogatepass")
            # Length-prefixed, so that ("ab", "c") and ("a", "bc") differ. The content comes last and needs no length.
            self._hash.update(len(field).to_bytes(4, "little") + field)

    def update(self, content: bytes | memoryview) -> None:
        self._hash.update(content)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def capture_id(part_id: str, path: str, content: bytes | memoryview) -> str:
    """The name of one file of one part: 32 hex digits of blake2b-128. `path` is `Entry.path` as sent."""
    hasher = CaptureIdHasher(part_id, path)
    hasher.update(content)
    return hasher.hexdigest()


def is_capture_id(text: str) -> bool:
    return _CAPTURE_ID.fullmatch(text) is not None
