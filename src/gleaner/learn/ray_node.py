"""A training run on a node of a Ray cluster: the actor that `on_ray` starts there and talks to.

The run's folder comes in pieces of a tar, `gleaner.learn.worker` runs in it as it would on the app's computer, and its output goes back
in pieces. The actor ends with the process that started it; then the worker finds nobody to talk to, and ends, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections import deque
from pathlib import Path

import psutil

import gleaner
from gleaner.learn.custom import is_custom

PIECE_BYTES = 8 << 20
ARCHIVE = "run.tar"
_FOLDERS = "gleaner-run-"
_KILL_AFTER_S = 1.5
_STDERR_LINES = 30


class Node:
    """receive() … → start() → lines() until None → output() … ; stop() at any time, from another thread."""

    def __init__(self) -> None:
        _remove_leftovers(Path(tempfile.gettempdir()))
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDERS}{os.getpid()}-"))
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: deque[str] = deque(maxlen=_STDERR_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._packed: Path | None = None

    def version(self) -> str:
        return gleaner.__version__

    def receive(self, piece: bytes) -> None:
        with (self._folder / ARCHIVE).open("ab") as file:
            file.write(piece)

    def start(self, threads: int) -> None:
        """Unpacks what was received and starts the run; a training of ours uses so many threads."""
        run = self._folder / "run"
        with tarfile.open(self._folder / ARCHIVE) as archive:
            archive.extractall(run, filter="data")
        (self._folder / ARCHIVE).unlink()
        settings = json.loads((run / "run.json").read_text())
        if not is_custom(run):
            (run / "run.json").write_text(json.dumps(settings | {"threads": threads}))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gleaner.learn.worker", str(run)],
            cwd=run,
            env={**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        errors = threading.Thread(target=self._read_errors, args=(self._process,), daemon=True)
        errors.start()
        threading.Thread(target=self._read, args=(self._process, errors), daemon=True).start()

    def lines(self, longest_s: float) -> list[str] | None:
        """What the worker has said since, as soon as there is anything; None at the end."""
        found: list[str] = []
        with contextlib.suppress(queue.Empty):
            line = self._lines.get(timeout=longest_s)
            while line is not None:
                found.append(line)
                line = self._lines.get_nowait()
            if not found:
                return None
            self._lines.put(None)  # the next call's
        return found

    def exit_code(self) -> int:
        return self._process.wait() if self._process else -signal.SIGTERM

    def errors(self) -> list[str]:
        return list(self._errors)

    def output(self, name: str, start: int) -> bytes:
        """A piece of a tar of the output folder; empty behind its end."""
        if self._packed is None:
            self._packed = self._folder / "output.tar"
            with tarfile.open(self._packed, "w") as archive:
                archive.add(self._folder / "run" / name, ".")
        with self._packed.open("rb") as file:
            file.seek(start)
            return file.read(PIECE_BYTES)

    def stop(self) -> None:
        """SIGTERM now, SIGKILL if that is not enough. Returns when it has ended."""
        process = self._process
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_KILL_AFTER_S)
                return

    def close(self) -> None:
        """Leaves nothing behind."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, process: subprocess.Popen[str], errors: threading.Thread) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put(line)
        process.wait()
        errors.join(_KILL_AFTER_S)
        self._lines.put(None)

    def _read_errors(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self._errors.extend(line.rstrip() for line in process.stderr if line.strip())


def _remove_leftovers(temporary: Path) -> None:
    """Folders of actors that were killed."""
    for folder in temporary.glob(f"{_FOLDERS}*"):
        pid = folder.name.removeprefix(_FOLDERS).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
