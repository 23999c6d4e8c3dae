"""Permissions of the capture folder that change while capture runs: drops are counted, and it goes on by itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_world import READINGS, capturing, reading, until

NOBODY = 65534


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """This thread, and threads that it starts meanwhile, have only nobody's rights to files, even under root."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None)
    libc.setfsuid(NOBODY)
    try:
        yield
    finally:
        libc.setfsuid(0)


@pytest.fixture
def folders() -> Iterator[tuple[Path, Path]]:
    """For captures and for the ledger. Not below pytest's own folder, which is root's."""
    with tempfile.TemporaryDirectory(prefix="gleaner-test-") as made:
        disk, state = Path(made) / "disk", Path(made) / "state"
        for folder in (disk, state):
            folder.mkdir()
            if not os.geteuid():
                os.chown(folder, NOBODY, -1)
        Path(made).chmod(0o711)
        yield disk, state


@pytest.mark.parametrize("mode", [0o000, 0o500], ids=["closed", "read only"])
@pytest.mark.parametrize("durability_s", [0.0, 0.1], ids=["each", "window"])
def test_a_folder_that_is_closed_drops_and_is_written_again_once_it_is_open(
    folders: tuple[Path, Path], mode: int, durability_s: float
) -> None:
    folder, state = folders
    with as_nobody(), capturing(folder, state, durability_s=durability_s) as capture:
        capture.submit(4)
        for n in range(3):  # an open file is written on: its permissions were asked when it was made
            capture.writer.submit(capture.readings, reading(4 + n))
        capture.submitted[READINGS] += 3
        closed = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for path in reversed(closed):
            path.chmod(mode)
        capture.submit(4)
        assert capture.reasons() == {"no_permission"}
        assert "give it to the user that the machine runs as" in capture.writer.error_of(READINGS)
        for path in closed:
            path.chmod(0o700)
        before = capture.dropped()
        until(lambda: not list(folder.rglob("*.prog")))
        capture.submit(4)
        assert capture.dropped() == before
        until(lambda: capture.writer.error_of(READINGS) == "")
