"""One training run as a child process: started without a shell, in a group of its own, told to stop, never left behind.

The child reads `run.json` in its folder and prints JSON lines (docs/architecture.md, "Training run"). It knows nothing of
the app: no database, no keys in its environment. Its crash is a result, not an outage.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from gleaner.app.services.job_memory import MemoryWatch, usual_limit_mb

WORKER = (sys.executable, "-m", "gleaner.learn.worker")
KILL_AFTER_S = 5.0
_STDERR_LINES = 30
_PID_FILE = "worker.pid"

Message = dict[str, Any]


def command_for(ray_address: str, ray_cpus: int) -> Sequence[str]:
    """What runs a training: here, or on a Ray cluster. Both are child processes that say and leave the same."""
    return (sys.executable, "-m", "gleaner.learn.on_ray", ray_address, str(ray_cpus)) if ray_address else WORKER


@dataclass(frozen=True)
class RunResult:
    """How the child ended. `is_done`: it said that its output is complete; `failure`: what it said went wrong."""

    exit_code: int
    is_done: bool
    failure: Message | None
    stderr: list[str]


class TrainingRun:
    """start once with `run`, which blocks until the child has ended; `stop` may be called from any thread."""

    def __init__(self, command: Sequence[str], folder: Path, memory_mb: int = 0) -> None:
        """`memory_mb`: what it may use with all that it starts; 0: three quarters of the computer's memory."""
        self._memory_mb = memory_mb or usual_limit_mb()
        self._command = [*command, str(folder)]
        self._folder = folder
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_stopping = False
        self._too_much_mb = 0
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)

    def run(self, on_message: Callable[[Message], None]) -> RunResult:
        """Calls `on_message` for each line the child prints, from this thread."""
        with self._lock:
            if self._is_stopping:
                return RunResult(-signal.SIGTERM, False, None, [])
            self._process = process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        _note_process(self._folder, process.pid)
        memory = MemoryWatch(process.pid, self._memory_mb, lambda used: self._end_greedy(process, used))
        errors = threading.Thread(target=self._read_errors, args=(process,), name="training stderr")
        reaper = threading.Thread(target=_reap, args=(process,), name="training exit")
        errors.start()
        reaper.start()
        is_done, failure = False, None
        try:
            assert process.stdout is not None
            for line in process.stdout:
                message = _parse(line)
                is_done = is_done or message.get("event") == "done"
                failure = message if message.get("event") == "failed" else failure
                on_message(message)
                if is_done or failure:
                    break
        finally:
            exit_code = self._end(process)
            memory.stop()
            reaper.join()
            errors.join()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        if self._too_much_mb and not is_done:
            failure = {
                "message": f"The training was ended: it used {self._too_much_mb:,} MB of memory and may use {self._memory_mb:,} MB.",
                "hint": "Train on fewer pictures, or allow more with --training-memory-mb.",
            }
        return RunResult(exit_code, is_done, failure, list(self._stderr))

    def stop(self) -> None:
        """SIGTERM now, SIGKILL after five seconds if it is still there. Once: a second one would hit what tidies up."""
        with self._lock:
            was_stopping, self._is_stopping = self._is_stopping, True
            process = self._process
        if was_stopping or process is None or process.poll() is not None:
            return
        _signal_group(process.pid, signal.SIGTERM)
        killer = threading.Timer(KILL_AFTER_S, self._kill, args=(process,))
        killer.name, killer.daemon = "training kill", True
        killer.start()

    def _end_greedy(self, process: subprocess.Popen[str], used_mb: int) -> None:
        self._too_much_mb = used_mb
        self._kill(process)

    def _kill(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            _signal_group(process.pid, signal.SIGKILL)

    def _end(self, process: subprocess.Popen[str]) -> int:
        """Waits for the exit, by force if it does not come."""
        try:
            return process.wait(KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            _signal_group(process.pid, signal.SIGKILL)
            return process.wait()

    def _read_errors(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip():
                self._stderr.append(line.rstrip())


def kill_leftover(folder: Path) -> None:
    """Ends a child that outlived a killed app. A process id that was reused since is left alone."""
    try:
        note = json.loads((folder / _PID_FILE).read_text())
        process = psutil.Process(note["pid"])
        if abs(process.create_time() - note["created"]) < 1.0:
            _signal_group(note["pid"], signal.SIGKILL)
            process.wait(KILL_AFTER_S)
    except (OSError, ValueError, KeyError, psutil.Error):
        return


def _reap(process: subprocess.Popen[str]) -> None:
    """Takes whatever the child itself started with it; until then its pipes would stay open."""
    process.wait()
    _signal_group(process.pid, signal.SIGKILL)


def _note_process(folder: Path, pid: int) -> None:
    try:
        note = {"pid": pid, "created": psutil.Process(pid).create_time()}
    except psutil.NoSuchProcess:
        return
    (folder / _PID_FILE).write_text(json.dumps(note))


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _environment() -> dict[str, str]:
    """Ours without our secrets. Passive waiting: with one core busy, torch's default spins and is 12 times slower."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GLEANER_")}
    return {**kept, "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"}


def _parse(line: str) -> Message:
    """A line of the protocol; anything else that a library prints is a log line."""
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if isinstance(message, dict) and isinstance(message.get("event"), str):
        return message
    return {"event": "log", "level": "info", "message": line.rstrip()}
