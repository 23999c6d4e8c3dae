"""What machines say about themselves right now. In memory, because it is renewed every few seconds.

Only `last_seen` and the host's facts are written to the database, at most every ten seconds a part.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.services import fleet_tables as t

ONLINE_WINDOW_NS = 20_000_000_000
_SAVE_EVERY_NS = 10_000_000_000


@dataclass
class PartNow:
    """A part as last heard of. `status` is the link's last status message, empty without a link."""

    last_seen_ns: int = 0
    saved_ns: int = 0
    is_linked: bool = False
    was_online: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)


class Presence:
    def __init__(self, database: Database, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._parts: dict[str, PartNow] = {}
        self._stopped = threading.Event()
        self._watcher: threading.Thread | None = None

    def seen(self, part_id: str, info: dict[str, Any] | None = None) -> bool:
        """Notes a sign of life; tells whether the part has just come online."""
        now = self._clock_ns()
        with self._lock:
            part = self._parts.setdefault(part_id, PartNow())
            came_online = not self._is_online(part, now)
            part.last_seen_ns, part.was_online = now, True
            new_info = {**part.info, **{k: v for k, v in (info or {}).items() if v}}
            must_save = came_online or new_info != part.info or now - part.saved_ns >= _SAVE_EVERY_NS
            part.info = new_info
            if must_save:
                part.saved_ns = now
        if must_save:
            self._save(part_id, now, new_info)
        return came_online

    def linked(self, part_id: str, is_linked: bool) -> None:
        with self._lock:
            part = self._parts.setdefault(part_id, PartNow())
            part.is_linked = is_linked
            if not is_linked:
                part.status = {}

    def reported(self, part_id: str, status: dict[str, Any]) -> None:
        with self._lock:
            self._parts.setdefault(part_id, PartNow()).status = status

    def now(self, part_id: str) -> PartNow:
        with self._lock:
            part = self._parts.get(part_id, PartNow())
            return PartNow(part.last_seen_ns, part.saved_ns, part.is_linked, part.was_online, part.info, part.status)

    def online_state(self, part_id: str, saved_last_seen_ns: int | None) -> str:
        """`online`, `offline`, or `awaiting_setup` for a part that was never heard of."""
        with self._lock:
            part = self._parts.get(part_id)
            if part is not None and self._is_online(part, self._clock_ns()):
                return "online"
        return "offline" if saved_last_seen_ns or (part and part.last_seen_ns) else "awaiting_setup"

    def gone_offline(self) -> list[str]:
        """Parts that were online when last asked and are not now; each is told once."""
        now = self._clock_ns()
        with self._lock:
            gone = [i for i, part in self._parts.items() if part.was_online and not self._is_online(part, now)]
            for part_id in gone:
                self._parts[part_id].was_online = False
        return gone

    def watch(self, on_gone: Callable[[str], None]) -> None:
        """Starts the thread that calls `on_gone` with each part that falls silent, within a second."""
        self._stopped.clear()
        self._watcher = threading.Thread(target=self._watch, args=(on_gone,), name="presence")
        self._watcher.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None

    def _watch(self, on_gone: Callable[[str], None]) -> None:
        while not self._stopped.wait(1.0):
            for part_id in self.gone_offline():
                on_gone(part_id)

    def forget(self, part_id: str) -> None:
        with self._lock:
            self._parts.pop(part_id, None)

    def _is_online(self, part: PartNow, now: int) -> bool:
        return part.last_seen_ns > 0 and now - part.last_seen_ns < ONLINE_WINDOW_NS

    def _save(self, part_id: str, now: int, info: dict[str, Any]) -> None:
        values: dict[str, Any] = {"last_seen_ns": now}
        if info:
            values["info"] = info
        with self._database.write() as db:
            db.execute(t.part.update().where(sa.and_(t.part.c.id == part_id)).values(values))
