"""A wall clock for other processes that a test sets forward and back while they run (`fake_clock.c`)."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest


class SteppedClock:
    """Processes started with `environment` read this clock instead of the computer's."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if sys.platform != "linux" or compiler is None:
            pytest.skip("the clock of other processes is set by a preloaded library: that needs Linux and a C compiler")
        library, offset = folder / "fake_clock.so", folder / "clock"
        source = Path(__file__).with_name("fake_clock.c")
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        offset.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "FAKE_CLOCK": str(offset)}
        with offset.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)

    def close(self) -> None:
        self._offset.close()

    @property
    def ahead_s(self) -> float:
        return float(struct.unpack("<q", self._offset)[0]) / 1e9

    def now_s(self) -> float:
        return time.time() + self.ahead_s

    def set_ahead(self, seconds: float) -> None:
        self._offset[:] = struct.pack("<q", round(seconds * 1e9))
