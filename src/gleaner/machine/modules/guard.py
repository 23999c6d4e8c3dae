"""Runs one module's program and makes sure that it ends with the machine, whatever ends the machine.

A program of its own (`python guard.py program args…`), because only a process outlives `kill -9` of another. Its stdin is
the machine's promise: while it is open the machine lives; a line on it is how many seconds the program has to end once
asked. Asked again (SIGTERM), it has no time left. Everything that the program starts is in its session and ends with it.
Uses nothing but the standard library.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_GRACE_S = 10.0


def main(command: list[str]) -> int:
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the machine, which then ends its modules in order
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become(command, parent)
    return _watch(child, wake_read)


def _become(command: list[str], parent: int) -> None:
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _watch(child: int, wake: int) -> int:
    """Until the program has ended; its exit code, or 128 + its signal."""
    grace_s, kill_at = _GRACE_S, 0.0
    sources = [0, wake]
    while True:
        wait_s = max(0.0, kill_at - time.monotonic()) if kill_at else None
        ready, _, _ = select.select(sources, [], [], wait_s)
        asked = False
        if wake in ready:
            asked = signal.SIGTERM in os.read(wake, 64)
        if 0 in ready:
            text = os.read(0, 64)
            if not text:
                sources, asked = [wake], True
            elif text.strip().replace(b".", b"").isdigit():
                grace_s = float(text)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            _signal_all(child, signal.SIGKILL)  # what it left behind
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if asked and kill_at:
            kill_at = time.monotonic()
        elif asked:
            _signal_all(child, signal.SIGTERM)
            kill_at = time.monotonic() + grace_s
        if kill_at and time.monotonic() >= kill_at:
            _signal_all(child, signal.SIGKILL)
            kill_at = time.monotonic() + 1.0


def _signal_all(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
