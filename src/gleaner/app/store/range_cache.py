"""Ranges of far objects that were read lately, in memory: a page of the gallery reads a few packs many times.

Objects never change and names are never used again, so nothing here is ever out of date. What is kept is as encrypted as
in the store. Reads of more than `BIGGEST_READ` go past it: a video must not push out a page of thumbnails.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

BLOCK_BYTES = 256 << 10
BIGGEST_READ = 512 << 10

Fetch = Callable[[str, int, int], bytes]
"""(name, start, length) → those bytes, fewer at the object's end."""


class RangeCache:
    """At most `limit` bytes in whole blocks, those unused for longest dropped first. Thread-safe; 0 keeps nothing."""

    def __init__(self, fetch: Fetch, limit: int) -> None:
        self._fetch = fetch
        self._limit = limit
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._size = 0

    @property
    def size(self) -> int:
        return self._size

    def read(self, name: str, start: int, length: int) -> bytes:
        """As `fetch`."""
        if length > BIGGEST_READ or self._limit < BLOCK_BYTES or length <= 0:
            return self._fetch(name, start, length)
        first, last = start // BLOCK_BYTES, (start + length - 1) // BLOCK_BYTES
        blocks = self._known(name, first, last)
        if missing := [number for number in range(first, last + 1) if number not in blocks]:
            # One request from the first to the last that is missing: what lies between costs less than another request.
            begin, count = missing[0], missing[-1] - missing[0] + 1
            fetched = self._fetch(name, begin * BLOCK_BYTES, count * BLOCK_BYTES)
            for number in range(begin, begin + count):
                offset = (number - begin) * BLOCK_BYTES
                blocks[number] = fetched[offset : offset + BLOCK_BYTES]
                self._keep(name, number, blocks[number])
        content = b"".join(blocks[number] for number in range(first, last + 1))
        return content[start - first * BLOCK_BYTES :][:length]

    def _known(self, name: str, first: int, last: int) -> dict[int, bytes]:
        known = {}
        with self._lock:
            for number in range(first, last + 1):
                if (block := self._blocks.get((name, number))) is not None:
                    self._blocks.move_to_end((name, number))
                    known[number] = block
        return known

    def _keep(self, name: str, number: int, block: bytes) -> None:
        with self._lock:
            if (name, number) in self._blocks:
                return
            self._blocks[name, number] = block
            self._size += len(block)
            while self._size > self._limit:
                self._size -= len(self._blocks.popitem(last=False)[1])
