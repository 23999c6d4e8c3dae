"""Training jobs as rows: what was asked, how far it is, what came of it.

Allowed transitions (`TRANSITIONS`): a job waits, runs and ends once; `canceling` is the time between asking the child
process to stop and its exit. Log lines go with their job.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import sqlalchemy as sa

from gleaner.app.database import Database, metadata
from gleaner.app.services.fleet_values import iso


class Status(Enum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    CANCELING = "canceling"


ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELED})
TRANSITIONS = {
    Status.PENDING: {Status.IN_PROGRESS, Status.CANCELED, Status.FAILED},
    # Back to pending: the app stopped while the job ran, and it will run again.
    Status.IN_PROGRESS: {Status.COMPLETED, Status.FAILED, Status.CANCELING, Status.PENDING},
    Status.CANCELING: {Status.CANCELED, Status.COMPLETED, Status.FAILED},
}

training_job = sa.Table(
    "training_job",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("organization_id", sa.Text, sa.ForeignKey("organization.id", ondelete="CASCADE"), nullable=False),
    sa.Column("status", sa.Text, nullable=False, index=True),
    sa.Column("model_name", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("model_type", sa.Text, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("dataset_id", sa.Text, nullable=False),
    sa.Column("dataset_name", sa.Text, nullable=False),
    sa.Column("dataset_version", sa.Integer, nullable=False),
    sa.Column("dataset_version_id", sa.Text, nullable=False),
    sa.Column("dataset_hash", sa.Text, nullable=False),
    sa.Column("item_count", sa.Integer, nullable=False),
    sa.Column("time_budget_s", sa.Double, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.Column("started_ns", sa.BigInteger),
    sa.Column("ended_ns", sa.BigInteger),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("progress", sa.JSON, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("warnings", sa.JSON, nullable=False),
    #: {"message", "hint"}; null unless the job failed.
    sa.Column("error", sa.JSON),
    #: {"name", "version", "arguments"} of the training script that makes the model; null where Gleaner does.
    sa.Column("script", sa.JSON),
    #: {"name", "accept_license"} of what a classifier starts from; null for Gleaner's own weights.
    sa.Column("backbone", sa.JSON),
)

training_log = sa.Table(
    "training_log",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.Text, sa.ForeignKey("training_job.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("time_ns", sa.BigInteger, nullable=False),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True)
class Job:
    id: str
    organization_id: str
    status: Status
    model_name: str
    model_version: str
    model_type: str
    labels: list[str]
    dataset_id: str
    dataset_name: str
    dataset_version: int
    dataset_version_id: str
    dataset_hash: str
    item_count: int
    time_budget_s: float
    created_ns: int
    started_ns: int | None
    ended_ns: int | None
    attempts: int
    progress: dict[str, Any]
    metrics: list[dict[str, Any]]
    warnings: list[str]
    error: dict[str, str] | None
    script: dict[str, Any] | None = None
    backbone: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "status": self.status.value,
            "model_name": self.model_name,
            "model_version": self.model_version,
            "model_type": self.model_type,
            "labels": self.labels,
            "dataset": {
                "id": self.dataset_id,
                "name": self.dataset_name,
                "version": self.dataset_version,
                "item_count": self.item_count,
            },
            "organization_id": self.organization_id,
            "created_at": iso(self.created_ns),
            "started_at": iso(self.started_ns),
            "ended_at": iso(self.ended_ns),
            "time_budget_s": self.time_budget_s,
            "progress": self.progress,
            "metrics": self.metrics,
            "warnings": self.warnings,
            "error": self.error,
            "script": self.script,
            "backbone": self.backbone["name"] if self.backbone else "",
        }


@dataclass(frozen=True)
class JobLine:
    id: int
    time_ns: int
    level: str
    message: str

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "time": iso(self.time_ns), "level": self.level, "message": self.message}


class JobStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, values: dict[str, Any]) -> None:
        with self._database.write() as db:
            db.execute(training_job.insert().values(**values))

    def get(self, job_id: str) -> Job | None:
        with self._database.read() as db:
            row = db.execute(sa.select(training_job).where(training_job.c.id == job_id)).mappings().first()
        return _job(row) if row else None

    def listed(self, organization_id: str, status: Status | None = None) -> list[Job]:
        """Newest first."""
        wanted = sa.select(training_job).where(training_job.c.organization_id == organization_id)
        if status is not None:
            wanted = wanted.where(training_job.c.status == status.value)
        with self._database.read() as db:
            return [_job(row) for row in db.execute(wanted.order_by(training_job.c.created_ns.desc())).mappings()]

    def in_status(self, *statuses: Status) -> list[Job]:
        """Oldest first, in every organization."""
        wanted = sa.select(training_job).where(training_job.c.status.in_([status.value for status in statuses]))
        with self._database.read() as db:
            return [_job(row) for row in db.execute(wanted.order_by(training_job.c.created_ns)).mappings()]

    def move(self, job_id: str, to: Status, **values: Any) -> bool:
        """Changes the status if that is an allowed transition now; tells whether it did."""
        sources = [status.value for status, targets in TRANSITIONS.items() if to in targets]
        changed = training_job.update().where(training_job.c.id == job_id, training_job.c.status.in_(sources))
        with self._database.write() as db:
            return bool(db.execute(changed.values(status=to.value, **values)).rowcount)

    def update(self, job_id: str, **values: Any) -> None:
        with self._database.write() as db:
            db.execute(training_job.update().where(training_job.c.id == job_id).values(**values))

    def delete(self, job_id: str) -> None:
        with self._database.write() as db:
            db.execute(training_job.delete().where(training_job.c.id == job_id))

    def add_lines(self, job_id: str, lines: list[tuple[int, str, str]]) -> list[JobLine]:
        """Stores (time, level, message) lines."""
        rows: list[dict[str, Any]] = [
            {"job_id": job_id, "time_ns": t, "level": level, "message": text[:16_000]} for t, level, text in lines
        ]
        with self._database.write() as db:
            ids = db.scalars(training_log.insert().returning(training_log.c.id, sort_by_parameter_order=True), rows)
            return [
                JobLine(i, row["time_ns"], row["level"], row["message"]) for i, row in zip(ids.all(), rows, strict=True)
            ]

    def lines(self, job_id: str, after: int = 0, limit: int = 1000) -> list[JobLine]:
        """Oldest first, those with an id above `after`."""
        wanted = sa.select(training_log).where(training_log.c.job_id == job_id, training_log.c.id > after)
        with self._database.read() as db:
            rows = db.execute(wanted.order_by(training_log.c.id).limit(limit)).mappings()
            return [JobLine(row["id"], row["time_ns"], row["level"], row["message"]) for row in rows]


def _job(row: sa.RowMapping) -> Job:
    return Job(**{**row, "status": Status(row["status"])})
