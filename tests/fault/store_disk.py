"""An ext4 of the test's own on a loop device. Needs root and a loop device; the test is skipped without."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Disk:
    image: Path
    mounted: Path

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.mounted)], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.mounted)], check=True, capture_output=True)

    def remount(self) -> None:
        self.unmount()
        self.mount()

    @contextlib.contextmanager
    def left(self, size: int) -> Iterator[None]:
        """Fills the disk until so many bytes are left."""
        filler = self.mounted / "filler"
        handle = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            for piece in (bytes(1 << 20), bytes(4096)):
                with contextlib.suppress(OSError):  # full
                    while os.write(handle, piece):
                        pass
            os.ftruncate(handle, max(os.fstat(handle).st_size - size, 0))
            os.fsync(handle)
            yield
        finally:
            os.close(handle)
            filler.unlink()


@contextlib.contextmanager
def own_disk(folder: Path, size: int) -> Iterator[Disk]:
    # Blocks of 4 KiB as on every disk of today: with smaller ones SQLite cannot be sure of room for its shared memory (SIGBUS).
    disk = Disk(folder / "image", folder / "mounted")
    disk.mounted.mkdir()
    with disk.image.open("wb") as image:
        image.truncate(size)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", str(disk.image)], check=True, capture_output=True)
        disk.mount()
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f"no file system of our own here: {err}")
    try:
        yield disk
    finally:
        disk.unmount()
