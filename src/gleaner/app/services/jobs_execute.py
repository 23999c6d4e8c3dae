"""One job from a dataset version to a package: prepares the folder, listens to the child, packs what it made."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gleaner.app.errors import NotFound
from gleaner.app.events import Event, EventBus
from gleaner.app.services.job_runner import Message, RunResult, TrainingRun
from gleaner.app.services.jobs_store import Job, JobStore, Status
from gleaner.app.services.packages import ML_MODEL, NewPackage, PackageService

#: The page draws curves at 2 Hz at most; the database is written no oftener.
_TELL_EVERY_NS = 500_000_000
_OUTPUT = "out"
_COMPARED = ("report.json", "labels.txt", "split.json", "model.onnx")
SCRIPT_FILE = "script.tar.gz"
#: Small files first: a report or a sample picture is found without unpacking the model.
_ORDER = {"report.json": 0, "labels.txt": 1, "split.json": 1, "samples": 2}


_FRAMEWORKS = {
    ".onnx": "onnx",
    ".tflite": "tflite",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".pb": "tensorflow",
    ".keras": "tensorflow",
}


class JobExecution:
    def __init__(
        self,
        job: Job,
        run: TrainingRun,
        folder: Path,
        store: JobStore,
        events: EventBus,
        clock_ns: Callable[[], int],
    ) -> None:
        self._job = job
        self._run = run
        self._folder = folder
        self._store = store
        self._events = events
        self._clock_ns = clock_ns
        self._metrics: list[dict[str, Any]] = []
        self._warnings = list(job.warnings)
        self._progress = dict(job.progress)
        self._lines: list[tuple[int, str, str]] = []
        self._told_ns = 0

    def prepare(self, materialize: Callable[[], object], packages: PackageService) -> None:
        """Makes the run's folder, readable to this user only: it holds the dataset's pictures in the clear."""
        self._folder.mkdir(parents=True, mode=0o700)
        materialize()
        (self._folder / _OUTPUT).mkdir(exist_ok=True)
        settings = run_settings(self._job) | {"previous_version": self._previous(packages)}
        (self._folder / "run.json").write_text(json.dumps(settings, indent=2))

    def _previous(self, packages: PackageService) -> str:
        """Puts the version that machines have now beside the pictures, to be compared with; "" if there is none like it."""
        job = self._job
        found = packages.find(job.organization_id, job.model_name)
        if found is None or found.type != ML_MODEL or found.about.get("model_type") != job.model_type:
            return ""
        try:
            files = {name: packages.member(found, name) for name in _COMPARED}
        except NotFound:  # it was uploaded, or made by an older Gleaner
            return ""
        folder = self._folder / "previous"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return found.version

    def run(self) -> RunResult:
        result = self._run.run(self._on_message)
        self._tell()
        return result

    def package(self) -> tuple[NewPackage, Iterable[bytes]]:
        """What the run made, as a package. Raises FileNotFoundError if the model or its report is missing."""
        if self._job.script is not None:
            return self._scripts_package(self._job.script)
        report = json.loads((self._folder / _OUTPUT / "report.json").read_text())
        if not (self._folder / _OUTPUT / "model.onnx").is_file():
            raise FileNotFoundError("the training run ended without a model")
        summary = report.get("summary") or {}
        return self._packed(
            {
                "model_type": self._job.model_type,
                "model_framework": "onnx",
                "labels": self._job.labels,
                "accuracy": summary.get("map50", summary.get("accuracy")),
                "suggested_threshold": summary.get("suggested_threshold"),
                "compared": (compared := report.get("compared")),
                "held": bool(compared) and compared.get("verdict") == "worse",
            }
        )

    def _scripts_package(self, script: dict[str, Any]) -> tuple[NewPackage, Iterable[bytes]]:
        """Whatever a training script left; nobody knows more of it than the names of its files."""
        output = self._folder / _OUTPUT
        labels = output / "labels.txt"
        known = labels.read_text(encoding="utf-8", errors="replace").splitlines() if labels.is_file() else []
        endings = {path.suffix for path in output.rglob("*") if path.is_file()}
        framework = next((name for ending, name in _FRAMEWORKS.items() if ending in endings), "")
        return self._packed(
            {
                "model_type": "",
                "model_framework": framework,
                "labels": [line.strip() for line in known if line.strip()],
                "script": script,
            }
        )

    def _packed(self, about: dict[str, Any]) -> tuple[NewPackage, Iterable[bytes]]:
        job = self._job
        made_from = {
            "id": job.dataset_id,
            "name": job.dataset_name,
            "version": job.dataset_version,
            "item_count": job.item_count,
        }
        about = {**about, "job_id": job.id, "dataset": made_from}
        new = NewPackage(job.organization_id, job.model_name, job.model_version, ML_MODEL, about)
        return new, [_archive(self._folder / _OUTPUT)]

    def explain(self, result: RunResult) -> tuple[str, str]:
        """(message, hint) for a run that did not finish."""
        if result.failure is not None:
            message, hint = str(result.failure.get("message", "")), str(result.failure.get("hint", ""))
            return message or "The training failed.", hint or "Read the job's log."
        self._store_lines([(self._clock_ns(), "error", line) for line in result.stderr])
        if result.exit_code == -9:
            return (
                "The training process was killed, most likely because memory ran out.",
                "Close other programs, or train on fewer pictures.",
            )
        last = result.stderr[-1] if result.stderr else f"exit code {result.exit_code}"
        return f"The training process ended early: {last}", "The job's log has its last lines. Train again."

    def _on_message(self, message: Message) -> None:
        match message.pop("event"):
            case "log":
                level, text = str(message.get("level", "info")), str(message.get("message", ""))
                self._lines.append((self._clock_ns(), level, text))
            case "progress":
                self._progress = {name: message.get(name) for name in ("fraction", "phase", "eta_s")}
            case "metrics":
                self._metrics.append(message)
            case "warning":
                self._warnings.append(str(message.get("message", "")))
            case _:
                return
        if self._clock_ns() - self._told_ns >= _TELL_EVERY_NS:
            self._tell()

    def _tell(self) -> None:
        self._told_ns = self._clock_ns()
        self._store.update(
            self._job.id, progress=self._progress, metrics=self._metrics, warnings=list(dict.fromkeys(self._warnings))
        )
        self._store_lines(self._lines)
        self._lines = []
        job = self._store.get(self._job.id)
        if job is None:
            return
        if job.status is Status.CANCELING:  # by another process of the app, whose page cannot reach our child
            self._run.stop()
        self._events.publish(Event("job", job.organization_id, {"job": job.as_json()}))

    def _store_lines(self, lines: list[tuple[int, str, str]]) -> None:
        if lines:
            stored = [line.as_json() for line in self._store.add_lines(self._job.id, lines)]
            data = {"job_id": self._job.id, "logs": stored}
            self._events.publish(Event("job_log", self._job.organization_id, data))


def run_settings(job: Job) -> dict[str, Any]:
    """`run.json`: everything that the run depends on, so that the same file makes the same model."""
    if job.script is not None:
        return {
            "task": "custom",
            "dataset": "dataset.jsonl",
            "script": SCRIPT_FILE,
            "arguments": job.script["arguments"],
            "budget_s": job.time_budget_s,
            "output_dir": _OUTPUT,
        }
    return {
        "task": job.model_type,
        "labels": job.labels,
        "dataset": "dataset.jsonl",
        "seed": int(job.dataset_hash[:7] or "0", 16),
        "budget_s": job.time_budget_s,
        "output_dir": _OUTPUT,
        "model_name": job.model_name,
        "model_version": job.model_version,
        "dataset_hash": job.dataset_hash,
        "threads": max(1, os.cpu_count() or 1),
        "backbone": job.backbone["name"] if job.backbone else "",
        "accept_license": bool(job.backbone and job.backbone["accept_license"]),
    }


def _archive(folder: Path) -> bytes:
    """A tar.gz of the folder's files, without owners or times of this machine."""
    buffer = io.BytesIO()
    names = sorted(
        (path.relative_to(folder) for path in folder.rglob("*") if path.is_file()),
        key=lambda path: (_ORDER.get(path.parts[0], 3), path.as_posix()),
    )
    # Level 1: weights and JPEGs hardly shrink, whatever the effort.
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name in names:
            info = tarfile.TarInfo(name.as_posix())
            info.size, info.mode = (folder / name).stat().st_size, 0o644
            with (folder / name).open("rb") as file:
                archive.addfile(info, file)
    return buffer.getvalue()
