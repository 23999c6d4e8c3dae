"""`python -m gleaner.learn.worker <run dir>`: one training run as a child process.

stdout carries events and nothing else; whatever a library prints goes to stderr. The process ends with 0 after `done`,
1 after `failed`, 143 when it was told to stop. `docs/architecture.md` "Training run" is the contract.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType, ModuleType

from gleaner.learn.backbone_name import check_backbone
from gleaner.learn.custom import is_custom, run_custom
from gleaner.learn.errors import Canceled, RunProblem
from gleaner.learn.events import Events, claim_stdout
from gleaner.learn.request import Task, check_examples, not_accepted, read_examples, read_request
from gleaner.learn.threads import prepare_environment

EXIT_DONE, EXIT_FAILED, EXIT_CANCELED = 0, 1, 143


def main(arguments: list[str]) -> int:
    started = time.monotonic()
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m gleaner.learn.worker <run dir>\n")
        return 2
    signal.signal(signal.SIGTERM, _cancel)
    signal.signal(signal.SIGINT, _cancel)
    events = Events(claim_stdout())
    try:
        train(Path(arguments[0]).resolve(), events, started)
    except Canceled:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        events.log("Canceled")
        return EXIT_CANCELED
    except RunProblem as problem:
        events.failed(problem.message, problem.hint)
        return EXIT_FAILED
    except MemoryError:
        events.failed("The computer ran out of memory.", "Train on fewer pictures, or close other programs.")
        return EXIT_FAILED
    except BrokenPipeError:
        return EXIT_CANCELED  # whoever started the run is gone
    except Exception as error:  # noqa: BLE001 - top of the process: becomes the run's visible state
        traceback.print_exc()
        events.log(traceback.format_exc(), level="error")
        events.failed(
            f"Training stopped on an unexpected error: {type(error).__name__}: {error}",
            "Look at the run's log; if the dataset is fine, this is a mistake in Gleaner: please report it with the log.",
        )
        return EXIT_FAILED
    return EXIT_DONE


def train(run_dir: Path, events: Events, started: float) -> None:
    """Checks everything that can be checked without torch first: a mistake shows in a fraction of a second."""
    if is_custom(run_dir):
        run_custom(run_dir, events, lambda: time.monotonic() - started)
        events.progress(1.0, "done", 0.0)
        events.done()
        return
    request = read_request(run_dir)
    check_backbone(request.backbone, request.task is Task.DETECTION)
    examples, skipped = read_examples(run_dir, request)
    check_examples([example.labels for example in examples], request, not_accepted(skipped))
    events.progress(0.0, "starting", request.budget_s)
    kinds = _import_kinds()
    surroundings = kinds.Surroundings(run_dir, events, lambda: time.monotonic() - started)
    kinds.run_for(request, surroundings).run(examples, skipped)
    events.progress(1.0, "done", 0.0)
    events.done()


def _import_kinds() -> ModuleType:
    prepare_environment()
    try:
        from gleaner.learn import kinds
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "gleaner":
            raise
        raise RunProblem(
            f"Training needs {error.name}, which is not installed here.", "Run: pip install 'gleaner[train]'"
        ) from error
    return kinds


def _cancel(_signal: int, _frame: FrameType | None) -> None:
    raise Canceled


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    # torch's and the readers' threads need not be joined: the output folder is complete or absent.
    os._exit(status)
