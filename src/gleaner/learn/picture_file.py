"""Pictures of one size on disk instead of in memory: twenty thousand of them are 1.7 GB, and a step of the training needs 32."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gleaner.wire.picture import Rgb


class PictureFile:
    """uint8 (N, H, W, 3), indexed like an array; what an index names is read into an array of its own.

    The file has no name and is gone with the process. It is read and not mapped, so what was read once does not stay in the
    process's memory; the system keeps it in its cache while there is room, where a read costs as much as a copy.
    """

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self._disk = _Disk(folder)
        self._shape = (*size, 3)
        self._rows = np.zeros(0, np.int64)

    def append(self, pictures: Sequence[Rgb]) -> None:
        """Raises OSError if the disk is full."""
        for picture in pictures:
            self._disk.file.write(np.ascontiguousarray(picture, np.uint8).data)
        self._disk.file.flush()
        self._rows = np.arange(len(self._rows) + len(pictures))

    def select(self, indices: Sequence[int]) -> PictureFile:
        """These pictures in this order, in the same file."""
        chosen = copy.copy(self)
        chosen._rows = self._rows[list(indices)]
        return chosen

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self._rows), *self._shape

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Rgb]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[np.int64]) -> Rgb:
        if isinstance(index, int):
            return self._read(np.empty(self._shape, np.uint8), int(self._rows[index]))
        rows = self._rows[index]
        pictures = np.empty((len(rows), *self._shape), np.uint8)
        for picture, row in zip(pictures, rows, strict=True):
            self._read(picture, int(row))
        return pictures

    def _read(self, picture: Rgb, row: int) -> Rgb:
        if os.preadv(self._disk.file.fileno(), [picture.data], row * picture.nbytes) != picture.nbytes:
            raise OSError(f"The file of pictures ends before picture {row}")
        return picture


class _Disk:
    """The file, closed when the last that reads it is gone."""

    def __init__(self, folder: Path) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as this

    def __del__(self) -> None:
        self.file.close()


Pictures: TypeAlias = Rgb | PictureFile
"""uint8 (N, H, W, 3)."""
