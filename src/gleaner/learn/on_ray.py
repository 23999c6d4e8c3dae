"""`python -m gleaner.learn.on_ray <address> <processors> <run dir>`: a training run on a Ray cluster.

To who starts it a child process like `gleaner.learn.worker`: the same folder, the same events, the same exit codes, SIGTERM cancels. The
folder goes to a node with so many free processors (`ray_node.py`), events come back as they are said, and `done` is said here once
the output is here. The node needs the same version of Gleaner; nothing else of the app is known there.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import gleaner
from gleaner.learn.errors import Canceled, RunProblem
from gleaner.learn.events import Events, claim_stdout
from gleaner.learn.ray_node import PIECE_BYTES, Node
from gleaner.learn.request import RunRequest
from gleaner.learn.worker import EXIT_CANCELED, EXIT_DONE, EXIT_FAILED

_LINES_S = 0.5
_TOLD_AFTER_S = 5.0
_STOP_S = 1.8
_FOUND_S = 5.0
_AGAIN = "Train again; without --ray-address it runs on the app's own computer."


def main(arguments: list[str]) -> int:
    # Before it is connected there is nothing to end but this process.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: os._exit(EXIT_CANCELED))
    if len(arguments) != 3 or not arguments[1].isdigit():
        sys.stderr.write("usage: python -m gleaner.learn.on_ray <address> <processors> <run dir>\n")
        return 2
    address, processors, run_dir = arguments[0], int(arguments[1]), Path(arguments[2]).resolve()
    stream = claim_stdout()
    events = Events(stream)
    try:
        ray = _connected(address)
        canceled = _noted_signals()
        return _Away(ray, address, processors, run_dir, events, stream, canceled.is_set).run()
    except Canceled:
        events.log("Canceled")
        return EXIT_CANCELED
    except RunProblem as problem:
        events.failed(problem.message, problem.hint)
        return EXIT_FAILED
    except BrokenPipeError:
        return EXIT_CANCELED


def _connected(address: str) -> Any:
    """Raises RunProblem."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no outbound call of ours
    try:
        import ray
    except ModuleNotFoundError:
        raise RunProblem(
            "Ray is not installed on the app's computer.",
            "Run: pip install 'gleaner[ray]', or leave --ray-address out.",
        ) from None
    _look_for(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", namespace="gleaner")
    except Exception as error:
        raise RunProblem(
            f"The Ray cluster at {address} cannot be used: {error}", "Start it, or correct or remove --ray-address."
        ) from error
    return ray


def _look_for(address: str) -> None:
    """Ray itself takes minutes to notice that nobody is there. Raises RunProblem."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():  # "auto": Ray's own words for what it finds on this computer
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _FOUND_S).close()
    except OSError as error:
        raise RunProblem(
            f"The Ray cluster at {address} cannot be reached: {error.strerror or error}.",
            "Start it, or correct or remove --ray-address.",
        ) from error


class _Away:
    def __init__(
        self,
        ray: Any,
        address: str,
        processors: int,
        run_dir: Path,
        events: Events,
        stream: TextIO,
        is_canceled: Callable[[], bool],
    ) -> None:
        self._ray = ray
        self._address = address
        self._processors = processors
        self._run_dir = run_dir
        self._events = events
        self._stream = stream
        self._is_canceled = is_canceled
        # A second thread, so that stop() is heard while lines() waits.
        options = {"num_cpus": processors, "max_concurrency": 2, "max_restarts": 0}
        self._node = ray.remote(Node).options(**options).remote()

    def run(self) -> int:
        """Raises Canceled, RunProblem."""
        from ray.exceptions import RayError

        try:
            self._wait_for_a_node()
            for piece in _packed(self._run_dir):
                self._ask(self._node.receive, piece)
            self._ask(self._node.start, self._processors)
            last = self._relay()
            if (code := self._ask(self._node.exit_code)) == EXIT_DONE and last:
                self._fetch_output()
                self._say(last)
            for line in self._ask(self._node.errors):
                sys.stderr.write(f"{line}\n")
            return int(code)
        except RayError as error:
            why = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise RunProblem(f"The Ray cluster at {self._address} lost the run: {why}", _AGAIN) from error
        finally:
            self._end()

    def _wait_for_a_node(self) -> None:
        version = self._node.version.remote()
        began_s = time.monotonic()
        while not self._ray.wait([version], timeout=_LINES_S)[0] and time.monotonic() - began_s < _TOLD_AFTER_S:
            if self._is_canceled():
                raise Canceled
        if time.monotonic() - began_s >= _TOLD_AFTER_S:
            free = self._ray.available_resources().get("CPU", 0)
            self._events.log(
                f"Waiting for a node with {self._processors} free processors; {free:g} are free in the whole cluster"
            )
        found = self._answer(version)
        if found != gleaner.__version__:
            raise RunProblem(
                f"The cluster's node has Gleaner {found}, this app is {gleaner.__version__}.",
                "Install the same version on the nodes: pip install 'gleaner[train,ray]'.",
            )

    def _relay(self) -> str:
        """Passes on what the worker says; returns the line that says it is done, which is not passed on yet."""
        last = ""
        while (lines := self._ask(self._node.lines, _LINES_S)) is not None:
            for line in lines:
                if _is_done(line):
                    last = line
                else:
                    self._say(line)
        return last

    def _fetch_output(self) -> None:
        name = str(
            json.loads((self._run_dir / "run.json").read_text()).get(
                "output_dir", RunRequest.model_fields["output_dir"].default
            )
        )
        with tempfile.TemporaryFile() as file:
            while piece := self._ask(self._node.output, name, file.tell()):
                file.write(piece)
            file.seek(0)
            with tarfile.open(fileobj=file) as archive:
                archive.extractall(self._run_dir / name, filter="data")

    def _ask(self, method: Any, *arguments: Any) -> Any:
        return self._answer(method.remote(*arguments))

    def _answer(self, asked: Any) -> Any:
        # By turns: a signal is not heard inside Ray's own waiting, and an exception from its handler would break it.
        while not self._ray.wait([asked], timeout=_LINES_S)[0]:
            if self._is_canceled():
                raise Canceled
        if self._is_canceled():
            raise Canceled
        return self._ray.get(asked)

    def _say(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()

    def _end(self) -> None:
        """Whatever comes of it: the processors are free again when this process ends."""
        self._ray.wait([self._node.close.remote()], timeout=_STOP_S)
        self._ray.kill(self._node)


def _packed(run_dir: Path) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", dereference=True) as archive:
            archive.add(run_dir, ".")
        file.seek(0)
        while piece := file.read(PIECE_BYTES):
            yield piece


def _is_done(line: str) -> bool:
    try:
        return bool(json.loads(line).get("event") == "done")
    except (ValueError, AttributeError):
        return False


def _noted_signals() -> threading.Event:
    noted = threading.Event()
    # After Ray has put its own there.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _signal, _frame: noted.set())
    return noted


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)
