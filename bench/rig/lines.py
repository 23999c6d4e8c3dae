"""Starts `rig/line.py` and `rig/delay.py`, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass
class RunningLine:
    port: int
    process: subprocess.Popen[bytes]

    def counts(self) -> dict[str, int]:
        """Bytes in from the machine, out to the app, back; cuts and connections."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))


@contextlib.contextmanager
def running_line(host: str, port: int, *options: str) -> Iterator[RunningLine]:
    with _running("line.py", host, str(port), *options) as line:
        yield line


@contextlib.contextmanager
def running_delay(host: str, port: int, delay_ms: float) -> Iterator[RunningLine]:
    """Delays each direction and limits nothing; counts nothing."""
    with _running("delay.py", host, str(port), str(delay_ms)) as line:
        yield line


@contextlib.contextmanager
def _running(script: str, *options: str) -> Iterator[RunningLine]:
    command = [sys.executable, str(Path(__file__).parent / script), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield RunningLine(int(process.stdout.readline()), process)
        finally:
            process.stdin.close()
