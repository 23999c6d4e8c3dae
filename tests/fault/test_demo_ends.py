"""However `gleaner demo` ends, no process of it stays behind: not the app, not the rover, not its sync process."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

LINK = re.compile(r"http://\S+/login\?token=\S+")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_behind(tmp_path: Path, free_ports: Callable[[int], list[int]], how: signal.Signals) -> None:
    web, grpc, machine = (str(port) for port in free_ports(3))
    command = [sys.executable, "-m", "gleaner.cli.main", "demo", "--no-browser", "--data-dir", str(tmp_path / "demo")]
    command += ["--port", web, "--grpc-port", grpc, "--machine-port", machine]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    family: list[psutil.Process] = []
    try:
        family = whole_family(process, log)
        process.send_signal(how)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, [each.cmdline() for each in alive]
        assert process.wait(5) == (-how if how is signal.SIGKILL else 0)
        assert "Traceback" not in log.read_text()
    finally:
        for each in (process, *family):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()  # psutil remembers when each began: a number used again is left alone
        process.wait()


def whole_family(process: subprocess.Popen[bytes], log: Path) -> list[psutil.Process]:
    """Everything that runs once the link was printed: app, rover and the rover's sync process."""
    deadline, pause = time.monotonic() + 60, threading.Event()
    while time.monotonic() < deadline and process.poll() is None:
        found = psutil.Process(process.pid).children(recursive=True)
        if LINK.search(log.read_text()) and any(has_argument(each, "gleaner.machine.sync.process") for each in found):
            assert len(found) >= 3
            return found
        pause.wait(0.1)
    raise AssertionError(log.read_text())


def has_argument(process: psutil.Process, argument: str) -> bool:
    try:
        return argument in process.cmdline()
    except psutil.NoSuchProcess:
        return False
