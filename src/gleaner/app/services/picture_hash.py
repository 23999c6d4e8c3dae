"""pHash: 64 bits that stay almost the same while a picture is scaled, encoded again or made brighter.

The hash of C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), as `imagehash.phash` and
pHash's `ph_dct_imagehash` have it: 32 × 32 grey pixels, their cosine transform, of that the 8 × 8 lowest frequencies, each a
bit that says whether it is above their median. Two hashes are compared by the number of bits they differ in (Hamming).
One thing of our own: what is below FAINTEST is taken as nothing, or the noise of the sensor would decide the bits of a picture
that shows nothing but a wall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from cv2.typing import MatLike

SIDE_PX = 32
_LOW = 8
# In grey levels times 32 (the transform is orthonormal): a wave over the whole picture that is an eighth of a level high.
_FAINTEST = 4.0
_HALF, _WHOLE = 1 << 63, 1 << 64

#: Bits. Of 11,000 pairs of different photos each (raccoons; hand signs of many people before the same wall) 3 and 0 are as near
#: as ALIKE, 3 and 14 as near as NEAR, where the 3 are pictures that are there twice. Scaled, encoded again and brighter ones are
#: within 3 in 95 of 100, within 7 in all; cut at two edges by a fiftieth within 9.
ALIKE, NEAR = 4, 10

Hashes = npt.NDArray[np.uint64]


def picture_hash(pixels: MatLike) -> int:
    """The 64 bits, first row first, of a BGR picture of any size."""
    import cv2

    # Scaled before it is made grey: 32 × 32 pixels are quickly grey.
    small = cv2.resize(pixels, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    low = cv2.dct(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32))[:_LOW, :_LOW]
    low = np.where(np.abs(low) < _FAINTEST, 0.0, low)
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def signed(value: int) -> int:
    """As databases keep 64 bits."""
    return value - _WHOLE if value >= _HALF else value


def distances(hashes: npt.NDArray[np.int64], one: int) -> npt.NDArray[np.uint8]:
    """In how many bits each differs from `one`, all as `signed` makes them."""
    return _bits_set((hashes ^ np.int64(one)).view(np.uint64))


def are_near(hashes: npt.NDArray[np.int64], one: int) -> npt.NDArray[np.bool_]:
    return np.asarray(distances(hashes, one) <= NEAR)


def _bits_set(values: Hashes) -> npt.NDArray[np.uint8]:
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.asarray(np.bitwise_count(values), np.uint8)
    return np.asarray(_BITS_OF_16[values.view(np.uint16)].reshape(-1, 4).sum(1, dtype=np.uint8))


_BITS_OF_16 = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)
