"""Pictures that end too early, told without decoding: a copy that was broken off, a card that was pulled.

Source: ITU T.81 (JPEG: data hold no FF D9, the end marker, because each FF in them is followed by 00) and PNG §5.6 (IEND).
"""

from __future__ import annotations

from gleaner.app.store import sniff
from gleaner.app.store.payload import Payload
from gleaner.wire.jpeg import scan_start

_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND"
# Headers with a thumbnail, a color profile and a maker's notes have some 100 kB.
_HEADER_BYTES = 1 << 20


def is_cut_off(payload: Payload) -> bool:
    """Only what is certainly so: bytes behind the end, as phones add them, are none of our business."""
    match sniff.sniff(payload.head(sniff.HEAD_BYTES)).mime_type:
        case "image/jpeg":
            begins = scan_start(payload.head(_HEADER_BYTES))
            if begins < 0:
                return payload.size <= _HEADER_BYTES
            return not _holds(payload, _JPEG_END, begins)
        case "image/png":
            return not _holds(payload, _PNG_END)
    return False


def _holds(payload: Payload, word: bytes, start: int = 0) -> bool:
    """From `start` on, also across two pieces."""
    kept = b""
    for chunk in payload.chunks():
        data, skipped = kept + chunk, min(start, len(chunk))
        start -= skipped
        if data.find(word, skipped if not kept else 0) >= 0:
            return True
        kept = b"" if start else data[-len(word) + 1 :]
    return False
