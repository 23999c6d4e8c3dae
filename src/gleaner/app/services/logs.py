"""What machines log, kept per part in a bounded ring: the newest 20,000 lines, at most seven days old."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database, metadata
from gleaner.app.errors import PermissionDenied
from gleaner.app.events import Event, EventBus
from gleaner.app.services.fleet import FleetService
from gleaner.app.services.fleet_values import iso

MOST_LINES = 20_000
OLDEST_NS = 7 * 86400 * 1_000_000_000
LONGEST_MESSAGE = 16_000
_TRIM_EVERY = 500

part_log = sa.Table(
    "part_log",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("part_id", sa.Text, sa.ForeignKey("part.id", ondelete="CASCADE"), nullable=False),
    sa.Column("time_ns", sa.BigInteger, nullable=False),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("logger", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Index("part_log_of_part", "part_id", "id"),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True)
class NewLine:
    """`level` is one of debug, info, warn, error."""

    time_ns: int
    level: str
    logger: str
    message: str


@dataclass(frozen=True)
class LogLine:
    id: int
    time_ns: int
    level: str
    logger: str
    message: str

    def as_json(self) -> dict[str, Any]:
        time_text = iso(self.time_ns)
        return {
            "id": self.id,
            "time": time_text,
            "level": self.level,
            "logger": self.logger,
            "message": self.message,
        }


@dataclass(frozen=True)
class LogPage:
    """Newest first; `next` is the `before` of the following page, None at the end."""

    lines: list[LogLine]
    next: int | None


class LogService:
    def __init__(
        self, database: Database, events: EventBus, fleet: FleetService, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._database = database
        self._events = events
        self._fleet = fleet
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._since_trim: dict[str, int] = {}

    def append(self, caller: Caller, part_id: str, lines: Iterable[NewLine]) -> int:
        """Stores what a part logged; only the part itself (or an owner of its machine) may. Returns how many."""
        if caller.part_id != part_id:
            self._fleet.part(caller, part_id, owner=True)
        rows: list[dict[str, Any]] = [
            {
                "part_id": part_id,
                "time_ns": line.time_ns or self._clock_ns(),
                "level": normal_level(line.level),
                "logger": line.logger[:200],
                "message": line.message[:LONGEST_MESSAGE],
            }
            for line in lines
        ]
        if not rows:
            return 0
        with self._database.write() as db:
            ids = db.scalars(sa.insert(part_log).returning(part_log.c.id, sort_by_parameter_order=True), rows).all()
            if self._trim_is_due(part_id, len(rows)):
                self._trim(db, part_id)
        stored = [
            LogLine(id=i, **{k: v for k, v in row.items() if k != "part_id"}) for i, row in zip(ids, rows, strict=True)
        ]
        place = self._fleet.place(part_id)
        if place is not None:
            data = {"part_id": part_id, "logs": [line.as_json() for line in stored]}
            self._events.publish(Event("part_log", place.organization_id, data))
        return len(rows)

    def page(
        self,
        caller: Caller,
        part_id: str,
        *,
        levels: Sequence[str] = (),
        search: str = "",
        before: int | None = None,
        start_ns: int = 0,
        end_ns: int = 0,
        limit: int = 100,
    ) -> LogPage:
        """A page of what the part logged; `search` looks in messages and logger names without regard to case."""
        part = self._fleet.part(caller, part_id)
        if caller.part_id and caller.part_id != part.id:
            raise PermissionDenied("a machine may read only its own logs", "Use an API key.")
        limit = max(1, min(limit, 1000))
        wanted = sa.select(part_log).where(part_log.c.part_id == part_id)
        if levels:
            wanted = wanted.where(part_log.c.level.in_([normal_level(level) for level in levels]))
        if search:
            wanted = wanted.where(
                part_log.c.message.icontains(search, autoescape=True)
                | part_log.c.logger.icontains(search, autoescape=True)
            )
        if before is not None:
            wanted = wanted.where(part_log.c.id < before)
        if start_ns:
            wanted = wanted.where(part_log.c.time_ns >= start_ns)
        if end_ns:
            wanted = wanted.where(part_log.c.time_ns < end_ns)
        with self._database.read() as db:
            rows = db.execute(wanted.order_by(part_log.c.id.desc()).limit(limit + 1)).mappings().all()
        lines = [LogLine(r["id"], r["time_ns"], r["level"], r["logger"], r["message"]) for r in rows[:limit]]
        return LogPage(lines, lines[-1].id if len(rows) > limit else None)

    def _trim_is_due(self, part_id: str, added: int) -> bool:
        with self._lock:
            count = self._since_trim.get(part_id, _TRIM_EVERY) + added
            self._since_trim[part_id] = 0 if count >= _TRIM_EVERY else count
            return count >= _TRIM_EVERY

    def _trim(self, db: sa.Connection, part_id: str) -> None:
        mine = part_log.c.part_id == part_id
        newest = sa.select(part_log.c.id).where(mine).order_by(part_log.c.id.desc())
        oldest_kept = db.scalar(newest.offset(MOST_LINES - 1).limit(1))
        if oldest_kept is not None:
            db.execute(part_log.delete().where(mine, part_log.c.id < oldest_kept))
        db.execute(part_log.delete().where(mine, part_log.c.time_ns < self._clock_ns() - OLDEST_NS))


def normal_level(level: str) -> str:
    """Viam's four levels; `warning` and `critical` are what Python calls two of them."""
    lowered = level.lower()
    return {"warning": "warn", "critical": "error", "fatal": "error", "": "info"}.get(lowered, lowered)
