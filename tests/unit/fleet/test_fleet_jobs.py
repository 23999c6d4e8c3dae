"""Training jobs: one at a time, each a child process whose end is always a result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from fleet_world import Fleet

from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.events import Event
from gleaner.app.services import job_runner
from gleaner.app.services.job_runner import TrainingRun, kill_leftover
from gleaner.app.services.jobs import TrainingService
from gleaner.app.services.jobs_request import TrainingRequest
from gleaner.app.services.jobs_store import ENDED, Job, JobStore, Status

PRELUDE = """
import json, os, pathlib, signal, sys, time
run = pathlib.Path(sys.argv[1]); settings = json.loads((run / "run.json").read_text()); out = run / "out"
def say(event, **more): print(json.dumps({"event": event, **more}), flush=True)
def finish():
    (out / "samples").mkdir(); (out / "samples/1.jpg").write_bytes(b"jpeg")
    (out / "model.onnx").write_bytes(b"onnx"); (out / "labels.txt").write_text("a\\nb")
    (out / "report.json").write_text(json.dumps({"summary": {"accuracy": 0.8, "suggested_threshold": 0.4}}))
    say("done")
"""
GOOD = """
say("log", level="info", message="hello"); say("progress", fraction=0.5, phase="training", eta_s=3)
say("metrics", t_s=1, step=1, train_loss=0.5, train_accuracy=0.7, validation_loss=None, validation_accuracy=None)
say("warning", message="few pictures"); print("not json"); finish()
"""
PATIENT = 'say("log", level="info", message="started")\nwhile True: time.sleep(0.05)'
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + PATIENT


@dataclass(frozen=True)
class Version:
    id: str
    dataset_name: str
    organization_id: str
    version: int = 1
    item_count: int = 4
    hash: str = "abcdef0123"


class Datasets:
    """Stands in for the dataset service, which has its own tests."""

    def __init__(self, organization_id: str) -> None:
        self.organization_id = organization_id
        self.counts = {"a": 2, "b": 2}
        self.untagged = 0

    def check(self, caller: object, dataset_id: str, labels: object = (), model_type: str = "") -> dict[str, Any]:
        counts = [{"label": label, "count": self.counts.get(label, 0)} for label in labels]  # type: ignore[attr-defined]
        return {"warnings": [{"message": "few", "hint": "more"}], "counts": counts, "untagged": self.untagged}

    def create_version(self, caller: object, dataset_id: str) -> Version:
        return Version("v1", "shapes", self.organization_id)

    def materialize_version(self, version_id: str, folder: Path) -> None:
        (folder / "dataset.jsonl").write_text("")
        (folder / "images").mkdir()
        (folder / "images" / "1.jpg").write_bytes(b"a private picture")


class Training:
    """The service with a script for a worker, and a way to wait for what it tells."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet, self.folder = fleet, folder
        self.datasets = Datasets(fleet.organization_id)
        self.store = JobStore(fleet.context.database)
        self.told = threading.Condition()
        self.events: list[Event] = []
        fleet.context.events.publish = self._heard  # type: ignore[method-assign]
        self.service = self.new_service()

    def new_service(self) -> TrainingService:
        context = self.fleet.context
        return TrainingService(self.store, context.events, self.datasets, context.packages, self.folder / "runs")

    def script(self, text: str) -> None:
        path = self.folder / "worker.py"
        path.write_text(PRELUDE + text)
        self.service.command = (sys.executable, str(path))

    def submit(self, **changes: Any) -> Job:
        base: dict[str, Any] = {"dataset_id": "d", "model_name": "m", "labels": ["a", "b"]}
        request = TrainingRequest(**{**base, "model_type": "single_label_classification", **changes})
        return self.service.submit(self.fleet.owner, request)

    def get(self, job: Job) -> Job:
        return self.service.get(self.fleet.owner, job.id)

    def wait(self, job: Job, wanted: Callable[[Job], bool] = lambda job: job.status in ENDED) -> Job:
        with self.told:
            assert self.told.wait_for(lambda: wanted(self.get(job)), 60), self.get(job)
        return self.get(job)

    def messages(self, job: Job) -> list[str]:
        return [line.message for line in self.service.logs(self.fleet.owner, job.id)]

    def started(self, job: Job) -> bool:
        return "started" in self.messages(job)

    def _heard(self, event: Event) -> None:
        with self.told:
            self.events.append(event)
            self.told.notify_all()


@pytest.fixture
def training(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Training]:
    monkeypatch.setattr("gleaner.app.services.jobs_execute._TELL_EVERY_NS", 0)
    training = Training(fleet, tmp_path)
    training.service.start()
    yield training
    training.service.stop()


def test_a_good_run_becomes_a_model(training: Training, tmp_path: Path) -> None:
    training.script(GOOD)
    job = training.wait(training.submit())
    assert (job.status, job.error) == (Status.COMPLETED, None)
    assert [m["train_loss"] for m in job.metrics] == [0.5]
    assert job.warnings == ["few more", "few pictures"]
    assert training.messages(job) == ["hello", "not json"]
    package = training.fleet.context.packages.find(training.fleet.organization_id, "m", job.model_version)
    assert package is not None
    assert package.about["accuracy"] == 0.8
    content = b"".join(training.fleet.context.packages.content(package))
    with tarfile.open(fileobj=BytesIO(content)) as archive:
        assert archive.getnames() == ["report.json", "labels.txt", "samples/1.jpg", "model.onnx"]
    assert list((tmp_path / "runs").iterdir()) == [], "no picture stays in the clear"
    last = [event.data["job"]["status"] for event in training.events if event.type == "job"]
    assert last[0] == "pending"
    assert last[-1] == "completed"


COMPARED = """
before = settings["previous_version"]
assert (run / "previous" / "model.onnx").is_file() == bool(before)
compared = {"version": before, "pictures": 40, "right_before": 38, "right_now": 30, "verdict": "worse"}
summary = {"accuracy": 0.75, "suggested_threshold": 0.5}
(out / "report.json").write_text(json.dumps({"format": 1, "summary": summary, "compared": compared if before else None}))
for name in ("model.onnx", "labels.txt", "split.json"):
    (out / name).write_text(name)
say("done")
"""


def test_a_version_that_did_worse_is_held_back_until_somebody_releases_it(training: Training) -> None:
    packages, owner, organization = (
        training.fleet.context.packages,
        training.fleet.owner,
        training.fleet.organization_id,
    )
    training.script(COMPARED)
    first, second = (training.wait(training.submit()) for _ in range(2))
    assert [first.status, second.status] == [Status.COMPLETED] * 2
    [model] = training.fleet.context.ml_models.listed(owner, organization)
    assert [(one["version"], one["held"]) for one in model["versions"]] == [
        (second.model_version, True),
        (first.model_version, False),
    ]
    assert model["versions"][0]["compared"]["version"] == first.model_version
    assert packages.latest_version(organization, "m") == first.model_version
    third = training.wait(training.submit())
    newest = packages.find(organization, "m", third.model_version)
    assert newest is not None and newest.compared is not None
    assert newest.compared["version"] == first.model_version, "compared with what machines have"

    training.fleet.context.fleet.put_config(owner, training.fleet.part_id, {}, None)
    deploy = training.fleet.context.deploy
    with pytest.raises(Conflict, match="30 of 40 test pictures right, 38 before"):
        deploy.deploy(owner, training.fleet.part_id, "m", second.model_version)
    made = deploy.deploy(owner, training.fleet.part_id, "m")
    assert (made.wanted_version, made.version) == ("latest", first.model_version)
    made = deploy.deploy(owner, training.fleet.part_id, "m", second.model_version, even_if_worse=True)
    assert made.version == second.model_version
    packages.release(owner, organization, "m", third.model_version)
    assert packages.latest_version(organization, "m") == third.model_version


def test_the_run_gets_everything_it_depends_on_and_no_secret(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLEANER_KEY", "secret")
    training.script(
        "say('log', message=json.dumps(settings)); say('log', message=str(sorted(os.environ)));"
        "say('log', message=oct(run.stat().st_mode & 0o777)); finish()"
    )
    job = training.wait(training.submit(time_budget_s=33))
    settings, environment, mode = training.messages(job)
    assert json.loads(settings) | {"threads": 0} == {
        "task": "single_label_classification",
        "labels": ["a", "b"],
        "dataset": "dataset.jsonl",
        "seed": 0xABCDEF0,
        "budget_s": 33,
        "output_dir": "out",
        "model_name": "m",
        "model_version": job.model_version,
        "dataset_hash": "abcdef0123",
        "threads": 0,
        "previous_version": "",
        "backbone": "",
        "accept_license": False,
    }
    assert "GLEANER_KEY" not in environment
    assert mode == "0o700"


def test_the_run_is_told_what_to_start_from(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gleaner.learn.backbone_name.missing_libraries", lambda _: [])
    training.script("say('log', message=json.dumps(settings)); finish()")
    job = training.wait(training.submit(backbone="hf:owner/name@main", accept_license=True))
    settings = json.loads(training.messages(job)[0])
    assert (settings["backbone"], settings["accept_license"]) == ("hf:owner/name@main", True)
    assert job.as_json()["backbone"] == "hf:owner/name@main"


@pytest.mark.parametrize(
    ("script", "message", "hint"),
    [
        ('say("failed", message="no picture can be read", hint="Add JPEGs."); sys.exit(1)', "no picture", "Add JPEGs."),
        ('sys.stderr.write("boom at line 7\\n"); sys.exit(3)', "ended early: boom at line 7", "log"),
        ("os.kill(os.getpid(), 9)", "memory ran out", "fewer pictures"),
        ('say("done")', "The app could not run this training", "Train again"),
        ("sys.exit(0)", "ended early: exit code 0", "Train again"),
    ],
)
def test_a_crash_is_a_result_with_a_hint(training: Training, script: str, message: str, hint: str) -> None:
    training.script(script)
    job = training.wait(training.submit())
    assert job.status is Status.FAILED
    assert job.error is not None
    assert message in job.error["message"]
    assert hint in job.error["hint"]


def test_one_runs_at_a_time_and_the_next_follows(training: Training) -> None:
    training.script(PATIENT)
    first, second = training.submit(), training.submit()
    assert first.model_version != second.model_version, "two jobs of one second"
    training.wait(first, training.started)
    assert training.get(second).status is Status.PENDING
    training.service.cancel(training.fleet.owner, second.id)
    assert training.get(second).status is Status.CANCELED, "a waiting job ends at once"
    training.service.cancel(training.fleet.owner, first.id)
    assert training.wait(first).status is Status.CANCELED


def test_another_process_of_the_app_cancels_a_run_too(training: Training) -> None:
    training.script(
        'say("log", level="info", message="started")\nwhile True: say("progress", fraction=0.1); time.sleep(0.05)'
    )
    job = training.submit()
    training.wait(job, training.started)
    training.new_service().cancel(training.fleet.owner, job.id)  # it has no child that it could tell
    assert training.wait(job).status is Status.CANCELED


def test_a_run_that_does_not_listen_is_killed(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_runner, "KILL_AFTER_S", 0.1)
    training.script(DEAF)
    job = training.submit()
    training.wait(job, training.started)
    training.service.cancel(training.fleet.owner, job.id)
    assert training.wait(job).status is Status.CANCELED
    with pytest.raises(Conflict, match="ended already"):
        training.service.cancel(training.fleet.owner, job.id)


def test_children_of_a_run_end_with_it(training: Training) -> None:
    training.script(
        "import subprocess\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "say('log', message=str(child.pid)); finish()"
    )
    job = training.wait(training.submit())
    [pid] = training.messages(job)
    psutil.wait_procs([psutil.Process(int(pid))] if psutil.pid_exists(int(pid)) else [], timeout=5)
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


def test_a_restart_of_the_app_starts_the_job_again_once(training: Training) -> None:
    training.script(PATIENT)
    job = training.submit()
    training.wait(job, training.started)
    training.service.stop()
    assert training.get(job).status is Status.PENDING
    command = training.service.command
    training.service = training.new_service()
    training.service.command = command
    training.service.start()
    training.wait(job, lambda job: training.messages(job).count("started") == 2)
    training.service.stop()
    # As after a kill -9 of the app: the row says that it runs, nobody does.
    training.store.move(job.id, Status.IN_PROGRESS, attempts=2)
    training.service = training.new_service()
    training.service.start()
    failed = training.wait(job)
    assert failed.error is not None
    assert "stopped twice" in failed.error["message"]


def test_a_child_that_outlived_the_app_is_ended(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    created = psutil.Process(process.pid).create_time()
    (tmp_path / "worker.pid").write_text(json.dumps({"pid": process.pid, "created": created}))
    kill_leftover(tmp_path)
    assert not psutil.pid_exists(process.pid)
    process.wait()
    (tmp_path / "worker.pid").write_text(json.dumps({"pid": os.getpid(), "created": 1.0}))
    kill_leftover(tmp_path)  # somebody else has that number now: still here to say so


def test_stopping_before_the_start_never_starts(tmp_path: Path) -> None:
    run = TrainingRun((sys.executable, "-c", "raise SystemExit(5)"), tmp_path)
    run.stop()
    assert run.run(lambda message: None).exit_code == -15


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": []}, "no label to learn"),
        ({"labels": ["a", "c"]}, "no picture of the dataset has the label 'c'"),
        ({"labels": ["a"]}, "nothing to tell it apart"),
        ({"model_name": "a b"}, "cannot name a model"),
        ({"model_name": "m" * 41}, "cannot name a model"),
        ({"model_type": "magic"}, "no type of model"),
        ({"time_budget_s": 1}, "no time for training"),
        ({"time_budget_s": float("nan")}, "no time for training"),
        ({"organization_id": "other"}, "another organization"),
        ({"backbone": "resnet"}, "names no backbone"),
        ({"backbone": "hf:/nowhere"}, "hf:/nowhere needs transformers|/nowhere holds no checkpoint"),
        ({"backbone": "hf:a/b", "model_type": "object_detection"}, "A detector cannot start from hf:a/b"),
    ],
)
def test_what_cannot_work_is_said_before_it_starts(training: Training, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as told:
        training.submit(**changes)
    assert told.value.hint


def test_one_label_is_enough_beside_untagged_pictures(training: Training) -> None:
    training.script(GOOD)
    training.datasets.untagged = 5
    assert training.wait(training.submit(labels=["a"])).status is Status.COMPLETED


def test_a_version_is_used_once(training: Training) -> None:
    training.script(GOOD)
    training.wait(training.submit(model_version="1.0"))
    with pytest.raises(Conflict, match=r"version 1\.0 already"):
        training.submit(model_version="1.0")


def test_jobs_are_deleted_when_they_have_ended_and_by_owners(training: Training) -> None:
    training.script(PATIENT)
    job = training.submit()
    with pytest.raises(NotFound):
        training.service.cancel(training.fleet.part(), job.id)
    with pytest.raises(Conflict, match="not ended"):
        training.service.delete(training.fleet.owner, job.id)
    training.service.cancel(training.fleet.owner, job.id)
    training.wait(job)
    training.service.delete(training.fleet.owner, job.id)
    with pytest.raises(NotFound):
        training.get(job)
