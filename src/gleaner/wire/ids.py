"""Ids that both halves compute on their own and that must come out equal."""

from __future__ import annotations

from hashlib import blake2b, sha256

CAPTURE_ID_BYTES = 16
CAPTURE_ID_PATTERN = f"[0-9a-f]{{{2 * CAPTURE_ID_BYTES}}}"


class CaptureIdHasher:
    """`capture_id` for content that arrives in pieces.

    The content goes through SHA-256, which processors have instructions for (17 µs for 30 kB, blake2b in Python 26; equal
    on those without), and only its digest into the named hash.
    """

    def __init__(self, part_id: str, path: str) -> None:
        self._name = blake2b(digest_size=CAPTURE_ID_BYTES)
        for text in (part_id, path):
            field = text.encode("utf-8", "surrogatepass")
            # Length-prefixed, so that ("ab", "c") and ("a", "bc") differ. The content comes last and needs no length.
            self._name.update(len(field).to_bytes(4, "little") + field)
        self._content = sha256()

    def update(self, content: bytes | memoryview) -> None:
        self._content.update(content)

    def content_digest(self) -> bytes:
        """SHA-256 of the content so far."""
        return self._content.digest()

    def hexdigest(self) -> str:
        name = self._name.copy()
        name.update(self._content.digest())
        return name.hexdigest()


def capture_id(part_id: str, path: str, content: bytes | memoryview) -> str:
    """The name of one file of one part: 32 hex digits of blake2b-128. `path` is `Entry.path` as sent."""
    hasher = CaptureIdHasher(part_id, path)
    hasher.update(content)
    return hasher.hexdigest()
