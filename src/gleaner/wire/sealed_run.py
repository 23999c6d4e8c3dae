"""Finds the readings of an undamaged tabular capture file all at once: where each lies, and when it was taken.

Only what our own encoder writes is taken (`sensor_data.py`); a file with anything else in it, damage included, is left to
`capture_file.py`, which looks at each record alone and takes ten times as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from zlib_ng.zlib_ng import crc32

from gleaner.wire.capture_file import CRC_TAG, SEAL_BYTES
from gleaner.wire.sensor_data import MAX_READING_BYTES, NANOS

Ints = npt.NDArray[np.int64]
_CHECKSUM = np.arange(4)
# The largest whole second whose nanoseconds fit in 64 bits, and the nanoseconds that still can follow.
_MOST_SECONDS = 2**63 // NANOS - 5
_MOST_VARINT = 5


@dataclass(frozen=True)
class Run:
    """`starts` and `ends` of each reading's `google.protobuf.Struct` in `data`; both times are after 1970."""

    data: npt.NDArray[np.uint8]
    starts: Ints
    ends: Ints
    requested_ns: Ints
    received_ns: Ints

    def __len__(self) -> int:
        return len(self.starts)


def sealed_run(data: bytes, at: int = 0) -> Run | None:
    """The readings from byte `at` to the end. None unless all is sealed, whole and as our encoder writes it."""
    found = _frames(data, at)
    if found is None:
        return None
    starts, ends, checksums = (np.array(one, np.int64) for one in found)
    octets = np.frombuffer(data, np.uint8)
    stored = octets[ends[:, None] + (SEAL_BYTES - 4) + _CHECKSUM].view("<u4").ravel()
    if not np.array_equal(stored, checksums):
        return None
    return _with_times(octets, starts, ends)


def _frames(data: bytes, at: int) -> tuple[list[int], list[int], list[int]] | None:
    """(start, end, checksum) of each message, without its seal."""
    starts, ends, checksums = [], [], []
    size = len(data)
    view = memoryview(data)
    while at < size:
        length = data[at]
        at += 1
        if length > 127:
            shift, length = 7, length & 127
            while at < size and shift < 28:
                byte = data[at]
                at += 1
                length |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
            else:
                return None
        end = at + length - SEAL_BYTES
        after = at + length
        if end <= at or after > size or data[end : end + 3] != CRC_TAG or length > MAX_READING_BYTES:
            return None
        starts.append(at)
        ends.append(end)
        checksums.append(crc32(view[at:end]))
        at = after
    return (starts, ends, checksums) if starts else None


def _with_times(data: npt.NDArray[np.uint8], starts: Ints, ends: Ints) -> Run | None:
    """Behind every `end` lies a seal, so that what is read a few bytes beyond it is still there."""
    reader = _Reader(data, starts, ends)
    metadata_ends = reader.message(0x0A, ends)
    requested = reader.timestamp(0x0A, metadata_ends)
    received = reader.timestamp(0x12, metadata_ends)
    reader.expect(reader.at == metadata_ends)
    struct_ends = reader.message(0x12, ends)
    reader.expect(struct_ends == ends)
    reader.expect((requested > 0) & (received > 0))
    return Run(data, reader.at, struct_ends, requested, received) if reader.is_good else None


class _Reader:
    """Reads the same field of all messages at once; `at` is where each is."""

    def __init__(self, data: npt.NDArray[np.uint8], at: Ints, ends: Ints) -> None:
        self._data, self.at, self._ends = data, at, ends
        self._last = ends + (SEAL_BYTES - 1)
        self.is_good = True

    def expect(self, holds: Any) -> None:
        self.is_good = self.is_good and bool(np.all(holds))
        if not self.is_good:  # nothing is believed any more, and nothing read outside
            self.at = np.minimum(self.at, self._ends)

    def varint(self) -> Ints:
        self.expect(self.at <= self._ends)
        byte = self._data[self.at].astype(np.int64)
        value, at = byte & 127, self.at + 1
        goes_on = byte > 127
        for number in range(1, _MOST_VARINT):
            if not goes_on.any():
                break
            byte = np.where(goes_on, self._data[np.minimum(at, self._last)], 0).astype(np.int64)
            value |= (byte & 127) << (7 * number)
            at = at + goes_on
            goes_on = byte > 127
        self.at = at
        self.expect(~goes_on)
        return value

    def message(self, key: int, outer_ends: Ints) -> Ints:
        """Enters the message in the field with this key; its ends."""
        self.expect((self.at < outer_ends) & (self._data[np.minimum(self.at, self._ends)] == key))
        self.at = self.at + 1
        sizes = self.varint()
        ends: Ints = self.at + sizes
        self.expect(ends <= outer_ends)
        return ends

    def timestamp(self, key: int, outer_ends: Ints) -> Ints:
        ends = self.message(key, outer_ends)
        self.expect((self.at < ends) & (self._data[np.minimum(self.at, self._ends)] == 0x08))
        self.at = self.at + 1
        seconds = self.varint()
        has_nanos = self.at < ends
        self.expect(~has_nanos | (self._data[np.minimum(self.at, self._ends)] == 0x10))
        before = self.at
        self.at = np.where(has_nanos, before + 1, self._ends)  # a seal's byte for those without
        nanos = self.varint()
        self.at = np.where(has_nanos, self.at, before)
        self.expect((self.at == ends) & (seconds < _MOST_SECONDS))
        return seconds * NANOS + np.where(has_nanos, nanos, 0)
