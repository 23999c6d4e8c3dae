"""A training script of somebody's own, in Viam's package format: an sdist with `setup.py` and `model/training.py`.

It is run as `python -m model.training --dataset_file=… --model_output_directory=… --own=argument` (for a dataset of sequences
`--binary_data_file=… --tabular_data_file=… --sequences_file=…`) in a virtual environment that pip
fills with what the script asks for (`custom_env.py`). What it prints is the run's log, what it leaves in the output directory
is the model. It has the rights of whoever runs Gleaner.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gleaner.learn.custom_env import make_environment
from gleaner.learn.errors import RunProblem
from gleaner.learn.events import Events

SEQUENCE_FILES = ("binary_data", "tabular_data", "sequences")
"""A dataset of sequences: three Parquet files in the run's folder."""
MODULE = Path("model", "training.py")
_TAIL, _LONGEST_LINE = 12, 4000
_TICK_S = 1.0


class CustomRequest(BaseModel):
    """`run.json` of a run with a script."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    task: Literal["custom"]
    dataset: str = "dataset.jsonl"
    script: str = "script.tar.gz"
    arguments: dict[str, str] = Field(default_factory=dict)
    budget_s: float = Field(gt=0, description="The script is ended when so many seconds have passed.")
    output_dir: str = "out"


def is_custom(run_dir: Path) -> bool:
    try:
        return bool(json.loads((run_dir / "run.json").read_bytes()).get("task") == "custom")
    except (OSError, ValueError, AttributeError):
        return False


def run_custom(run_dir: Path, events: Events, elapsed: Callable[[], float]) -> None:
    """Leaves files in the output folder. Raises RunProblem with the script's last lines when it fails."""
    try:
        request = CustomRequest.model_validate_json((run_dir / "run.json").read_bytes())
    except ValidationError as error:
        raise RunProblem(f"The run description is not valid: {error}", "Start the training again.") from error
    steps = _Steps(events, elapsed, request.budget_s)
    steps.phase = "unpacking"
    source = unpack(run_dir / request.script, run_dir / "script")
    data, output = _data_arguments(run_dir, request.dataset), run_dir / request.output_dir
    output.mkdir(exist_ok=True)
    steps.phase = "installing"
    python = make_environment(run_dir / "env", source, steps.command, events)
    own = [f"--{name}={value}" for name, value in request.arguments.items()]
    paths = [*data, f"--model_output_directory={output}"]
    steps.phase = "training"
    events.log(" ".join(["Running python -m model.training", *own]))
    code, tail = steps.command([str(python), "-m", "model.training", *paths, *own], source)
    if code:
        raise RunProblem(f"The training script ended with exit code {code}: {_cause(tail)}", _last_lines(tail))
    if not any(path.is_file() for path in output.rglob("*")):
        raise RunProblem(
            "The training script ended well but left no file in --model_output_directory.",
            "Write the model (and its labels.txt) into the folder that this argument names.",
        )


def unpack(archive: Path, folder: Path) -> Path:
    """The folder that holds `model/training.py`: the archive's root or its only folder, as in an sdist."""
    try:
        with tarfile.open(archive, "r:*") as opened:
            opened.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise RunProblem(f"The training script cannot be unpacked: {error}.", "Upload it as a .tar.gz file.") from error
    for root in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (root / MODULE).is_file():
            return root
    raise RunProblem(
        f"The training script has no {MODULE.as_posix()}.",
        "Pack the folder that holds setup.py and model/ into the .tar.gz, as `python -m build --sdist` does.",
    )


def _data_arguments(run_dir: Path, dataset: str) -> list[str]:
    sequences = {name: run_dir / f"{name}.parquet" for name in SEQUENCE_FILES}
    if all(path.is_file() for path in sequences.values()):
        return [f"--{name}_file={path}" for name, path in sequences.items()]
    return [f"--dataset_file={_absolute_dataset(run_dir, dataset)}"]


def _absolute_dataset(run_dir: Path, name: str) -> Path:
    """Scripts open `image_path` as it is, from wherever they run."""
    path = run_dir / "dataset-file.jsonl"
    with (run_dir / name).open(encoding="utf-8") as given, path.open("w", encoding="utf-8") as made:
        for line in given:
            if line.strip():
                value = json.loads(line)
                value["image_path"] = str(run_dir / value["image_path"])
                made.write(json.dumps(value, ensure_ascii=False) + "\n")
    return path


class _Steps:
    """Runs one program after another within one time limit, its output as log lines."""

    def __init__(self, events: Events, elapsed: Callable[[], float], limit_s: float) -> None:
        self._events, self._elapsed, self._limit_s = events, elapsed, limit_s
        self.phase = ""

    def command(self, arguments: Sequence[str], folder: Path) -> tuple[int, list[str]]:
        """(exit code, last lines). Raises RunProblem when the time is up; whatever ends this ends the program, too."""
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        tail: deque[str] = deque(maxlen=_TAIL)
        # A daemon: something that the program left behind may hold its output open.
        reader = threading.Thread(target=self._read, args=(process, tail), name="script output", daemon=True)
        reader.start()
        try:
            code = self._wait(process)
            reader.join(5.0)
        finally:
            _end(process)
        return code, list(tail)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        while True:
            left_s = self._limit_s - self._elapsed()
            if left_s <= 0:
                raise RunProblem(
                    f"The time limit of {self._limit_s:.0f} s is up, and the training script was ended.",
                    "Give it more time, or let the script end earlier.",
                )
            try:
                return process.wait(min(_TICK_S, left_s))
            except subprocess.TimeoutExpired:
                self._events.progress(min(0.99, self._elapsed() / self._limit_s), self.phase, left_s)

    def _read(self, process: subprocess.Popen[bytes], tail: deque[str]) -> None:
        assert process.stdout is not None
        for raw in process.stdout:
            # A bar that redraws its line is one line: what it showed last.
            line = raw.decode(errors="replace").rstrip().rsplit("\r", 1)[-1][:_LONGEST_LINE]
            if line:
                tail.append(line)
                self._events.log(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The program and what it started; what has broken away ends with the run's process group."""
    if process.poll() is None:
        try:
            family = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        process.kill()
        for one in family:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        process.wait()


def _cause(tail: Sequence[str]) -> str:
    return tail[-1] if tail else "it said nothing."


def _last_lines(tail: Sequence[str]) -> str:
    return "Its last lines:\n" + "\n".join(tail) if len(tail) > 1 else "Read the run's log."
