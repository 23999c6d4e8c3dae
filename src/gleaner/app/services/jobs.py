"""Training: a queue of jobs, one running at a time, each a child process over an immutable dataset version."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gleaner.app.caller import Caller
from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.events import Event, EventBus
from gleaner.app.services.job_runner import WORKER, TrainingRun, kill_leftover
from gleaner.app.services.jobs_execute import SCRIPT_FILE, JobExecution
from gleaner.app.services.jobs_request import (
    CUSTOM,
    CustomRequest,
    TrainingRequest,
    check_arguments,
    check_frame,
    checked_backbone,
    checked_labels,
    require_examples,
)
from gleaner.app.services.jobs_store import ENDED, Job, JobLine, JobStore, Status
from gleaner.app.services.packages import ML_TRAINING, PackageService

NO_CONTAINERS = "Containers are not used here: the script runs in a Python environment of its own, with the Python that Gleaner has."
_MOST_ATTEMPTS = 2
_ELSEWHERE_S = 2.0
"""How often a queue that other processes add to is looked at."""

log = logging.getLogger("gleaner.app.jobs")


class VersionInfo(Protocol):
    """A dataset version, as `DatasetService.create_version` returns it."""

    @property
    def id(self) -> str: ...
    @property
    def dataset_name(self) -> str: ...
    @property
    def organization_id(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def item_count(self) -> int: ...
    @property
    def hash(self) -> str: ...


class Datasets(Protocol):
    """The dataset service as training sees it."""

    def check(self, caller: Caller, dataset_id: str, labels: Sequence[str], model_type: str) -> dict[str, Any]: ...
    def create_version(self, caller: Caller, dataset_id: str) -> VersionInfo: ...
    def materialize_version(self, version_id: str, folder: Path) -> object: ...


@dataclass(frozen=True)
class Outcome:
    """What became of a run; `message` and `hint` only if it failed, PENDING if it is to start again."""

    status: Status
    message: str = ""
    hint: str = ""


class TrainingService:
    """`start` resumes the queue, `stop` ends the running child; jobs survive both."""

    def __init__(
        self,
        store: JobStore,
        events: EventBus,
        datasets: Datasets,
        packages: PackageService,
        runs_dir: Path,
        command: Sequence[str] = WORKER,
        memory_mb: int = 0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._events = events
        self._datasets = datasets
        self._packages = packages
        self._runs_dir = runs_dir
        self.command = command
        """What runs a job; replaced by tests."""
        self._memory_mb = memory_mb
        self.holding: Callable[[str], AbstractContextManager[bool]] | None = None
        """Of several processes on one database, the one that has the lease runs the queue of all."""
        self._clock_ns = clock_ns
        self._wake = threading.Condition()
        self._is_stopping = False
        self._running: tuple[str, TrainingRun] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._is_stopping = False
        if self.holding is None:
            self._recover()
        self._thread = threading.Thread(target=self._work_alone if self.holding else self._work, name="training queue")
        self._thread.start()

    def stop(self) -> None:
        """A job that runs goes back into the queue and starts again with the app."""
        with self._wake:
            self._is_stopping = True
            if self._running:
                self._running[1].stop()
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    # Requests

    def submit(self, caller: Caller, request: TrainingRequest) -> Job:
        """Checks everything that can be checked now, freezes the dataset and queues the job."""
        labels, backbone = checked_labels(request), checked_backbone(request)
        found = self._datasets.check(caller, request.dataset_id, labels, request.model_type)
        require_examples(labels, found)
        warnings = [f"{w['message']} {w.get('hint', '')}".strip() for w in found.get("warnings", [])]
        values = {"model_type": request.model_type, "labels": labels, "warnings": warnings, "backbone": backbone}
        return self._queue(caller, request, values)

    def submit_custom(self, caller: Caller, request: CustomRequest) -> Job:
        """Queues a run of a training script; it makes a model of whatever it leaves behind."""
        check_frame(request.model_name, request.time_budget_s)
        check_arguments(request.arguments)
        version = request.script_version or "latest"
        script = self._packages.get(caller, request.organization_id, request.script_name, version)
        if script.type != ML_TRAINING:
            raise InvalidInput(f"{script.name} is no training script", "Choose a package of the type ml_training.")
        about = {"name": script.name, "version": script.version, "arguments": request.arguments}
        warnings = [NO_CONTAINERS] if request.container else []
        return self._queue(caller, request, {"model_type": CUSTOM, "labels": [], "warnings": warnings, "script": about})

    def _queue(self, caller: Caller, request: TrainingRequest | CustomRequest, values: dict[str, Any]) -> Job:
        """Freezes the dataset. `values`: what the two kinds of training do not share."""
        version = self._datasets.create_version(caller, request.dataset_id)
        organization_id = version.organization_id
        caller.require(organization_id, owner=True, what="the organization's models")
        if request.organization_id not in ("", organization_id):
            raise InvalidInput("the dataset belongs to another organization", "Choose a dataset of this organization.")
        model_version = self._free_version(organization_id, request.model_name, request.model_version)
        job_id = secrets.token_hex(12)
        self._store.insert(
            {
                "id": job_id,
                "organization_id": organization_id,
                "status": Status.PENDING.value,
                "model_name": request.model_name,
                "model_version": model_version,
                "dataset_id": request.dataset_id,
                "dataset_name": version.dataset_name,
                "dataset_version": version.version,
                "dataset_version_id": version.id,
                "dataset_hash": version.hash,
                "item_count": version.item_count,
                "time_budget_s": request.time_budget_s,
                "created_ns": self._clock_ns(),
                "attempts": 0,
                "progress": {"fraction": 0.0, "phase": "waiting", "eta_s": None},
                "metrics": [],
                **values,
            }
        )
        job = self._changed(job_id)
        with self._wake:
            self._wake.notify_all()
        return job

    def listed(self, caller: Caller, organization_id: str, status: Status | None = None) -> list[Job]:
        if organization_id not in caller.organization_ids() or caller.part_id:
            raise NotFound(f"there is no organization {organization_id}", "List the organizations to see its id.")
        return self._store.listed(organization_id, status)

    def get(self, caller: Caller, job_id: str) -> Job:
        job = self._store.get(job_id)
        # Machines are of the organization too, and have no business with its training.
        if job is None or job.organization_id not in caller.organization_ids() or caller.part_id:
            raise NotFound(f"there is no training job {job_id}", "List the jobs of the organization.")
        return job

    def cancel(self, caller: Caller, job_id: str) -> Job:
        """A waiting job ends at once; a running one is told to stop. Raises Conflict if it has ended already."""
        job = self._owned(caller, job_id)
        if (
            self._store.move(job_id, Status.CANCELED, ended_ns=self._clock_ns())
            if job.status is Status.PENDING
            else False
        ):
            return self._changed(job_id)
        if not self._store.move(job_id, Status.CANCELING) and self.get(caller, job_id).status in ENDED:
            raise Conflict("this training job has ended already", "There is nothing to cancel.")
        with self._wake:
            if self._running and self._running[0] == job_id:
                self._running[1].stop()
        return self._changed(job_id)

    def delete(self, caller: Caller, job_id: str) -> None:
        """Takes the job and its logs; the model that it made stays."""
        job = self._owned(caller, job_id)
        if job.status not in ENDED:
            raise Conflict("this training job has not ended yet", "Cancel it first.")
        self._store.delete(job_id)

    def logs(self, caller: Caller, job_id: str, after: int = 0, limit: int = 1000) -> list[JobLine]:
        self.get(caller, job_id)
        return self._store.lines(job_id, after, limit)

    # The queue

    def _work_alone(self) -> None:
        assert self.holding is not None
        while True:
            with self.holding("training") as is_ours:
                if is_ours:
                    self._recover()
                    self._work()
            with self._wake:
                if self._is_stopping or self._wake.wait_for(lambda: self._is_stopping, _ELSEWHERE_S):
                    return

    def _work(self) -> None:
        while True:
            with self._wake:
                job = self._next()
                while job is None and not self._is_stopping:
                    self._wake.wait(_ELSEWHERE_S if self.holding else None)
                    job = self._next()
                if self._is_stopping or job is None:
                    return
                folder = self._runs_dir / job.id
                run = TrainingRun(self.command, folder, self._memory_mb)
                self._running = (job.id, run)
                claimed = self._store.move(
                    job.id, Status.IN_PROGRESS, started_ns=self._clock_ns(), attempts=job.attempts + 1
                )
            if claimed:
                self._finish(job, self._result(job, run, folder))
            with self._wake:
                self._running = None

    def _result(self, job: Job, run: TrainingRun, folder: Path) -> Outcome:
        """Runs the job. The pictures in its folder are gone before anyone is told the result."""
        try:
            return self._execute(job, run, folder)
        except Exception as error:  # the top of a job: whatever went wrong is the job's result
            log.exception("training job %s failed in the app", job.id)
            message = f"The app could not run this training: {error}"
            return Outcome(Status.FAILED, message, "Train again; the app's log has the details.")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _execute(self, job: Job, run: TrainingRun, folder: Path) -> Outcome:
        self._changed(job.id)
        execution = JobExecution(job, run, folder, self._store, self._events, self._clock_ns)
        execution.prepare(lambda: self._materialize(job, folder), self._packages)
        result = execution.run()
        current = self._store.get(job.id)
        if current is None or current.status is Status.CANCELING:
            return Outcome(Status.CANCELED)
        if result.is_done:
            self._packages.register(*execution.package())
            return Outcome(Status.COMPLETED)
        if self._is_stopping:
            return Outcome(Status.PENDING)
        return Outcome(Status.FAILED, *execution.explain(result))

    def _materialize(self, job: Job, folder: Path) -> None:
        """The pictures that a job learns from, and the script if it has one."""
        self._datasets.materialize_version(job.dataset_version_id, folder)
        if job.script is None:
            return
        script = self._packages.find(job.organization_id, job.script["name"], job.script["version"])
        if script is None:
            raise FileNotFoundError(f"the training script {job.script['name']} was deleted")
        with (folder / SCRIPT_FILE).open("wb") as file:
            for chunk in self._packages.content(script):
                file.write(chunk)

    def _finish(self, job: Job, outcome: Outcome) -> None:
        if self._store.get(job.id) is None:
            return  # its organization was deleted meanwhile
        now = self._clock_ns()
        match outcome.status:
            case Status.FAILED:
                self._fail(job.id, outcome.message, outcome.hint)
                return
            case Status.PENDING:
                self._store.move(job.id, Status.PENDING, started_ns=None, metrics=[], attempts=job.attempts)
            case Status.COMPLETED:
                progress = {"fraction": 1.0, "phase": "done", "eta_s": 0}
                self._store.move(job.id, Status.COMPLETED, ended_ns=now, progress=progress)
            case _:
                self._store.move(job.id, outcome.status, ended_ns=now)
        self._changed(job.id)

    def _next(self) -> Job | None:
        waiting = self._store.in_status(Status.PENDING)
        return waiting[0] if waiting else None

    def _recover(self) -> None:
        """Jobs that ran when the app went away start again once; a second time they fail, so that a job that takes the
        app down with it does not do so for ever."""
        self._runs_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in self._runs_dir.iterdir():
            kill_leftover(folder)
            shutil.rmtree(folder, ignore_errors=True)
        for job in self._store.in_status(Status.IN_PROGRESS, Status.CANCELING):
            if job.status is Status.CANCELING:
                self._store.move(job.id, Status.CANCELED, ended_ns=self._clock_ns())
            elif job.attempts < _MOST_ATTEMPTS:
                self._store.move(job.id, Status.PENDING, started_ns=None, metrics=[])
                text = "The app was restarted while this model was training: it starts again from the beginning."
                self._store.add_lines(job.id, [(self._clock_ns(), "warn", text)])
            else:
                self._fail(job.id, "The app was stopped twice while this model was training.", "Train again.")

    def _fail(self, job_id: str, message: str, hint: str) -> None:
        error = {"message": message, "hint": hint}
        if self._store.move(job_id, Status.FAILED, ended_ns=self._clock_ns(), error=error):
            self._store.add_lines(job_id, [(self._clock_ns(), "error", message)])
            self._changed(job_id)

    def _changed(self, job_id: str) -> Job:
        job = self._store.get(job_id)
        if job is None:
            raise NotFound(f"there is no training job {job_id}", "List the jobs of the organization.")
        self._events.publish(Event("job", job.organization_id, {"job": job.as_json()}))
        return job

    def _owned(self, caller: Caller, job_id: str) -> Job:
        job = self.get(caller, job_id)
        caller.require(job.organization_id, owner=True, what="the organization's training jobs")
        return job

    def _free_version(self, organization_id: str, name: str, wanted: str) -> str:
        """Viam's form, the UTC second: unique even for two jobs in one second, whether finished or waiting."""
        taken = {j.model_version for j in self._store.listed(organization_id) if j.model_name == name}
        if wanted:
            if wanted in taken or self._packages.find(organization_id, name, wanted):
                raise Conflict(f"{name} has a version {wanted} already", "Leave the version out to use the time.")
            return wanted
        second = self._clock_ns() // 1_000_000_000
        while (text := time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(second))) in taken:
            second += 1
        return text
