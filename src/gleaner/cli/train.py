"""`gleaner train`: pictures in, a model and a report out. No app, no account, no network."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gleaner.cli.app_access import FAILED, NOT_USABLE, stop
from gleaner.cli.words import counted

if TYPE_CHECKING:
    from gleaner.app.services.job_runner import RunResult
    from gleaner.cli.train_data import Prepared
    from gleaner.cli.train_progress import Progress
    from gleaner.learn.request import Task

INTERRUPTED = 130
_KINDS = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "detector": "object_detection",
}
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?(s|sec|m|min|h)?")
_SECONDS = {None: 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_SHORTEST_S, _LONGEST_S = 5.0, 7 * 86_400.0
_BEST_S, _BEST_EACH_S, _BEST_MOST_S = 600.0, 1.0, 7200.0
"""`best`: ten minutes and a second more for each picture, two hours at most."""
_MOST_SAID = 20


def train(
    data: Annotated[Path, typer.Argument(exists=True, help="A folder, or a .zip: a folder per class, COCO, YOLO, Pascal VOC, Viam's dataset.jsonl …")],
    out: Annotated[Path | None, typer.Option(help="Folder for the model and its report; default: <name>-model here.")] = None,
    kind: Annotated[str, typer.Option(help="single, multi or detector; default: as the annotations are.")] = "",
    time: Annotated[str, typer.Option(help="How long to train: 60s, 5min, 1h or best.")] = "60s",
    label: Annotated[list[str] | None, typer.Option(help="Learn only this label; may be repeated.")] = None,
    name: Annotated[str, typer.Option(help="The model's name; default: the folder's.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="The same seed, data and machine divide and begin the same way.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0: one for each core.")] = 0,
    backbone: Annotated[str, typer.Option(help="Start a classifier from hf:owner/name, hf:/folder or timm:name; default: Gleaner's own weights.")] = "",
    accept_license: Annotated[bool, typer.Option("--accept-license", help="Whatever the licence of the backbone is.")] = False,
    training_memory_mb: Annotated[int, typer.Option(envvar="GLEANER_TRAINING_MEMORY_MB", min=0, max=1 << 24, help="Memory it may use; 0: 3/4 of the computer's.")] = 0,
    ray_address: Annotated[str, typer.Option(envvar="GLEANER_RAY_ADDRESS", help="Train on this Ray cluster: ray://head:10001.")] = "",
    ray_cpus: Annotated[int, typer.Option(envvar="GLEANER_RAY_CPUS", min=1, max=256, help="Processors to ask of it.")] = 2,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a model that is there already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:  # fmt: skip
    """Train a classifier or a detector on a folder of pictures: model.onnx, labels.txt, report.json and report.html."""
    if kind and kind not in _KINDS:
        stop(f"there is no kind {kind!r}: choose single, multi or detector", NOT_USABLE)
    _require_libraries()
    name = name or re.sub(r"[^A-Za-z0-9_-]+", "-", data.resolve().stem).strip("-") or "model"
    target = out or Path(f"{name}-model")
    if target.exists() and not replace and (not target.is_dir() or any(target.iterdir())):
        stop(f"{target} is there already: give --replace, or another --out", NOT_USABLE)
    _seconds_of(time, 0)
    where = (training_memory_mb, ray_address, ray_cpus)
    asked = _Asked(
        kind, time, tuple(label or ()), name, seed, threads, _checked(backbone, kind), accept_license, *where
    )
    try:
        target.resolve().parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that the finished model only has to be renamed.
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.resolve().parent) as folder:
            report = _train(data, Path(folder), asked, as_json)
            made = Path(folder, "out")
            if target.exists():
                shutil.rmtree(target) if target.is_dir() else target.unlink()
            made.rename(target)
    except OSError as error:
        stop(f"{error.filename or target}: {error.strerror or error}. Nothing was written", FAILED)
    _say_done(report, target, as_json)


@dataclass(frozen=True)
class _Asked:
    kind: str
    time: str
    labels: tuple[str, ...]
    name: str
    seed: int
    threads: int
    backbone: str
    accept_license: bool
    memory_mb: int
    ray_address: str
    ray_cpus: int


def _checked(backbone: str, kind: str) -> str:
    """The backbone's whole name, before a picture is read."""
    from gleaner.learn.backbone_name import check_backbone
    from gleaner.learn.errors import RunProblem

    try:
        return str(check_backbone(backbone, kind == "detector") or "")
    except RunProblem as problem:
        stop(f"{problem.message} {problem.hint}", NOT_USABLE)


def _train(data: Path, folder: Path, asked: _Asked, quiet: bool) -> dict[str, Any]:
    """The report; the model is in `folder/out`."""
    from gleaner.app.services.job_runner import TrainingRun, command_for
    from gleaner.cli.train_progress import progress_for
    from gleaner.learn.errors import RunProblem
    from gleaner.learn.html_report import write_html

    with progress_for(quiet) as progress:
        try:
            prepared, task, labels = _prepared(data, folder, asked, progress)
        except RunProblem as problem:
            stop(f"{problem.message} {problem.hint}", FAILED)
        seconds = _seconds_of(asked.time, prepared.pictures)
        settings = {
            "task": task.value,
            "labels": labels,
            "seed": asked.seed,
            "budget_s": seconds,
            "model_name": asked.name,
            "dataset_hash": prepared.hash,
            "backbone": asked.backbone,
            "accept_license": asked.accept_license,
            **({"threads": asked.threads} if asked.threads else {}),
        }
        (folder / "run.json").write_text(json.dumps(settings), encoding="utf-8")
        progress.starts(task.value, labels, prepared.pictures, seconds)
        run = TrainingRun(command_for(asked.ray_address, asked.ray_cpus), folder, asked.memory_mb)
        result = _waited_for(run, progress)
    if not result.is_done:
        _say_failed(result)
    write_html(folder / "out")
    report: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    return report


def _prepared(data: Path, folder: Path, asked: _Asked, progress: Progress) -> tuple[Prepared, Task, list[str]]:
    from gleaner.cli.train_data import prepare
    from gleaner.formats.registry import detect
    from gleaner.formats.sources import FolderSource, ZipSource
    from gleaner.formats.values import FormatProblem
    from gleaner.learn.errors import RunProblem
    from gleaner.learn.request import Task

    with ExitStack() as opened:
        try:
            source: FolderSource | ZipSource
            if data.is_dir():
                source = FolderSource(data)
            else:
                source = ZipSource(opened.enter_context(data.open("rb")))
                opened.callback(source.close)
            format_ = detect(source)
        except FormatProblem as problem:
            raise RunProblem(f"{data}: {problem}.", "") from problem
        prepared = prepare(source, format_, folder, progress.reads)
    task = Task(_KINDS[asked.kind]) if asked.kind else prepared.task()
    found = prepared.labels(task)
    labels = list(asked.labels) or sorted(found)
    for line in prepared.problems[:_MOST_SAID]:
        progress.warns(line)
    if len(prepared.problems) > _MOST_SAID:
        progress.warns(f"… {len(prepared.problems):,} things could not be read in all")
    if not labels:
        what = "boxes" if task is Task.DETECTION else "classes"
        how = "Draw boxes first" if task is Task.DETECTION else "Put the pictures into a folder per class"
        raise RunProblem(
            f"{data} ({format_}) has {counted(prepared.pictures, 'picture')} and no {what} to learn.", f"{how}."
        )
    if unknown := [one for one in asked.labels if not (prepared.tags[one] or prepared.boxes[one])]:
        raise RunProblem(f"There is no label {unknown[0]!r} in {data}.", f"It has: {', '.join(sorted(found))}.")
    return prepared, task, labels


def _waited_for(run: Any, progress: Progress) -> RunResult:
    """Ctrl-C ends the run within two seconds and leaves nothing behind."""
    done: list[RunResult] = []
    thread = threading.Thread(target=lambda: done.append(run.run(progress.hears)), name="training")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        run.stop()
        thread.join()
        typer.secho("Stopped. Nothing was written.", fg="yellow", err=True)
        raise typer.Exit(INTERRUPTED) from None
    return done[0]


def _seconds_of(text: str, pictures: int) -> float:
    if text == "best":
        return min(_BEST_MOST_S, _BEST_S + _BEST_EACH_S * pictures)
    found = _TIME.fullmatch(text.strip().lower())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        stop(f"{text!r} is no time to train for: give 60s, 5min, 1h (5 s to 7 days), or best", NOT_USABLE)
    return seconds


def _require_libraries() -> None:
    import importlib.util

    if missing := [one for one in ("torch", "onnx", "onnxruntime") if importlib.util.find_spec(one) is None]:
        stop(f"training needs {', '.join(missing)}, not installed here. Run: pip install 'gleaner[train]'", FAILED)


def _say_failed(result: RunResult) -> None:
    if result.failure is not None:
        stop(f"{result.failure.get('message', '')} {result.failure.get('hint', '')}".strip(), FAILED)
    last = result.stderr[-1] if result.stderr else f"exit code {result.exit_code}"
    if result.exit_code == -9:
        last = "it was killed, most likely because memory ran out; train on fewer pictures, or close other programs"
    stop(f"The training ended early: {last}", FAILED)


def _say_done(report: dict[str, Any], target: Path, as_json: bool) -> None:
    summary = report["summary"]
    if as_json:
        typer.echo(json.dumps({"out": str(target), "task": report["task"], **summary}, ensure_ascii=False))
        return
    value, interval = (
        summary.get("map50", summary["accuracy"]),
        summary.get("map50_interval", summary["accuracy_interval"]),
    )
    what = "mAP50" if "map50" in summary else "right"
    if value is None:
        said = "not tested: too few pictures to keep some back"
    else:
        sure = f", 95 % sure: {interval[0]:.1%} to {interval[1]:.1%}" if interval else ""
        said = f"{value:.1%} {what} on {summary['test_count']:,} pictures never seen in training{sure}"
    typer.secho(said, bold=True)
    typer.echo(
        f"{target / 'model.onnx'}  {report['model']['size_bytes'] / 1e6:.1f} MB, {report['timings']['inference_ms']:.1f} ms a picture here"
    )
    typer.echo(f"{target / 'report.html'}  what it gets wrong, and how sure you can be")
