"""The real sync process on a capture folder, driven over its control pipe as the machine drives it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gleaner.machine.sync.settings import SyncSettings, line
from rig.app import cpu_s

PATIENCE_S = 120.0


@dataclass
class Sender:
    process: subprocess.Popen[bytes]
    said: queue.SimpleQueue[dict[str, Any]]
    _number: int = field(default=0)

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def wait_connected(self) -> None:
        while self.said.get(timeout=PATIENCE_S).get("connected") is not True:
            pass

    def command(self, kind: str, **values: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line(kind, **values))
        self.process.stdin.flush()

    def sync(self, patience_s: float = PATIENCE_S) -> None:
        """Returns when the app has everything that was ready."""
        self._number += 1
        self.command("sync", id=self._number)
        while True:
            said = self.said.get(timeout=patience_s)
            if said["type"] == "done" and said["id"] == self._number:
                if said["error"]:
                    raise RuntimeError(said["error"])
                return


@contextlib.contextmanager
def running_sender(settings: SyncSettings, *, verbose: bool = False) -> Iterator[Sender]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gleaner.machine.sync.process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    output = process.stdout

    def read() -> None:
        for text in output:
            message = json.loads(text)
            if verbose:
                print(message, file=sys.stderr)
            said.put(message)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        process.stdin.write(json.dumps(settings.to_json()).encode() + b"\n")
        process.stdin.flush()
        yield Sender(process, said)
    finally:
        process.stdin.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        output.close()
