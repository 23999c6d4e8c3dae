"""What the writers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gleaner.formats.values import CHUNK_BYTES, Entry, Picture, Problem

Report = Callable[[Problem], None]
"""Told of each picture that the format cannot hold."""


def picture_entry(path: str, picture: Picture) -> Entry:
    def chunks() -> Iterator[bytes]:
        content = picture.read()
        for start in range(0, len(content), CHUNK_BYTES):
            yield content[start : start + CHUNK_BYTES]

    return Entry(path, picture.size, chunks)
