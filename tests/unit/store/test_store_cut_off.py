"""A picture that ends too early is known as such, and no whole one is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gleaner.app.store.cut_off import is_cut_off
from gleaner.app.store.payload import CHUNK_BYTES, MemoryPayload


def encoded(extension: str, side: int) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return bytes(cv2.imencode(extension, pixels)[1].tobytes())


SMALL = encoded(".jpg", 40)
# As in a camera's EXIF: a whole picture inside the header.
WITH_THUMBNAIL = SMALL[:2] + b"\xff\xe1" + (len(SMALL) + 8).to_bytes(2, "big") + b"Exif\0\0" + SMALL + SMALL[2:]


@pytest.mark.parametrize("picture", [SMALL, WITH_THUMBNAIL, encoded(".png", 40), encoded(".jpg", 1500)])
def test_a_whole_picture_is_not_cut_off_whatever_follows_it(picture: bytes) -> None:
    assert not is_cut_off(MemoryPayload(picture))
    assert not is_cut_off(MemoryPayload(picture + bytes(1000)))


@settings(max_examples=200)
@given(st.integers(3, len(WITH_THUMBNAIL) - 1))
def test_a_jpeg_is_cut_off_wherever_it_ends(size: int) -> None:
    assert is_cut_off(MemoryPayload(WITH_THUMBNAIL[:size]))


def test_an_end_across_two_pieces_is_found() -> None:
    big = encoded(".jpg", 1500)
    assert len(big) > CHUNK_BYTES
    body = big[:-2]
    fill = CHUNK_BYTES - 1 - len(body) % CHUNK_BYTES
    padded = body + bytes(fill) + big[-2:]
    assert (len(padded) - 2) % CHUNK_BYTES == CHUNK_BYTES - 1
    assert not is_cut_off(MemoryPayload(padded))
    assert is_cut_off(MemoryPayload(padded[:-1]))


def test_other_files_are_none_of_its_business() -> None:
    assert not is_cut_off(MemoryPayload(b"hello"))
