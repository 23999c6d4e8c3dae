"""Data that a machine's configuration says to keep no longer: deleted behind the uploads, freed a day later like all deleted.

- `retention_policy` of a component's data manager entry: `days`, or `binary_limit_gb` and `tabular_limit_gb`;
- `data_retention_policy.days` of the part, for everything of it that has no policy of its own.

Days are whole UTC days, counted from the later of capture and arrival: data that a machine brings after a month offline, or
with a clock of 1970, is not deleted on its arrival. What is in a dataset, or in a version of one, stays, whatever its age, and counts in no limit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from gleaner.app.database import Database
from gleaner.app.events import EventBus
from gleaner.app.services import fleet_tables
from gleaner.app.services.items import publish_changed
from gleaner.app.store import deletions, sniff
from gleaner.app.store import tables as t
from gleaner.app.store.packs import PackStore
from gleaner.wire.machine_config import PartRetentionPolicy, RetentionPolicy

_DAY_NS = 86_400 * 10**9
_GB = 10**9
_IN_NO_DATASET = tuple(
    t.item.c.row.not_in(sa.select(table.c.row)) for table in (t.dataset_item, t.dataset_version_item)
)
_ITEM, _BATCH = t.item.c, t.readings_batch.c

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policies:
    """Of one part. `components`: by name."""

    components: Mapping[str, RetentionPolicy]
    others: RetentionPolicy | None

    def of(self, component: str) -> RetentionPolicy | None:
        return self.components.get(component, self.others)


@dataclass(frozen=True)
class Expired:
    items: int
    readings: int


def policies_of(config: Mapping[str, Any]) -> Policies:
    """What a part's configuration says; what it says wrongly (saved by an earlier version) deletes nothing."""
    found: dict[str, RetentionPolicy] = {}
    for resource in (*(config.get("components") or ()), *(config.get("services") or ())):
        for entry in resource.get("service_configs") or ():
            policy = _read(RetentionPolicy, (entry.get("attributes") or {}).get("retention_policy"))
            if policy is not None and str(entry.get("type", "")).rsplit(":", 1)[-1] == "data_manager":
                found[str(resource.get("name", ""))] = policy
    whole = _read(PartRetentionPolicy, config.get("data_retention_policy"))
    return Policies(found, RetentionPolicy(days=whole.days) if whole is not None else None)


def _read(model: type[Any], value: Any) -> Any:
    try:
        return model.model_validate(value) if value is not None else None
    except ValidationError:
        return None


class Retention:
    """`apply` is called by the cleaner before each of its passes."""

    def __init__(self, database: Database, packs: PackStore, events: EventBus, clock_ns: Callable[[], int]) -> None:
        self._database = database
        self._packs = packs
        self._events = events
        self._clock_ns = clock_ns

    def apply(self) -> Expired:
        items = readings = 0
        for origin, policy in self._governed():
            if origin.kind == sniff.READING:
                readings += self._expire_readings(origin, policy)
            else:
                items += self._expire_items(origin, policy)
        if items or readings:
            log.info("Retention policies deleted %d items and %d readings; they are freed in a day", items, readings)
        return Expired(items, readings)

    def _governed(self) -> Iterator[tuple[Any, RetentionPolicy]]:
        """Origins that a policy is about. Kinds of one component have origins of their own and share its limits."""
        config = fleet_tables.part_config.c
        newest = (
            sa.select(config.part_id, sa.func.max(config.number).label("number")).group_by(config.part_id).subquery()
        )
        current = sa.select(config.part_id, config.config).join(
            newest, sa.and_(newest.c.part_id == config.part_id, newest.c.number == config.number)
        )
        with self._database.read() as db:
            parts = {part_id: policies_of(text) for part_id, text in db.execute(current)}
            parts = {part_id: one for part_id, one in parts.items() if one.components or one.others}
            origins = db.execute(sa.select(t.origin)).all() if parts else []
        for one in origins:
            policy = parts[one.part_id].of(one.component_name) if one.part_id in parts else None
            if policy is not None:
                yield one, policy

    def _expire_items(self, origin: Any, policy: RetentionPolicy) -> int:
        alive = (_ITEM.deleted_ns.is_(None), _ITEM.pack_id.is_not(None), *_IN_NO_DATASET)
        with self._database.write() as db:
            rows: set[int] = set()
            if policy.days is not None:
                before_ns = self._before_ns(policy.days)
                old = (_ITEM.origin_id == origin.id, _ITEM.captured_ns < before_ns, _ITEM.synced_ns < before_ns)
                rows.update(db.scalars(sa.select(_ITEM.row).where(*alive, *old)))
            if policy.binary_limit_gb is not None:
                of = _of_component(origin, t.origin.c.kind != sniff.READING)
                where = (*alive, _ITEM.origin_id.in_(of))
                rows.update(_beyond(db, (_ITEM.row, _ITEM.captured_ns), where, policy.binary_limit_gb))
            if rows:
                chosen = t.rows_in(list(rows), db.dialect.name)
                # The time is the handle that undoes a deletion, so it must be this one's own (`ItemService.delete`).
                newest = db.scalar(sa.select(sa.func.max(_ITEM.deleted_ns)).where(_ITEM.deleted_ns.is_not(None)))
                now_ns = max(self._clock_ns(), (newest or 0) + 1)
                deletions.note(self._packs, db, deletions.file_ids_of(db, t.item, list(rows)), now_ns)
                db.execute(t.item.update().where(_ITEM.row.in_(chosen)).values(deleted_ns=now_ns))
        if rows:
            publish_changed(self._events, [origin.organization_id], rows)
        return len(rows)

    def _expire_readings(self, origin: Any, policy: RetentionPolicy) -> int:
        """Whole batches, when their newest reading is that old; machines end one every hour."""
        alive = (_BATCH.deleted_ns.is_(None), _BATCH.pack_id.is_not(None))
        with self._database.write() as db:
            ids: set[int] = set()
            if policy.days is not None:
                before_ns = self._before_ns(policy.days)
                old = (_BATCH.origin_id == origin.id, _BATCH.last_ns < before_ns, _BATCH.synced_ns < before_ns)
                ids.update(db.scalars(sa.select(_BATCH.id).where(*alive, *old)))
            if policy.tabular_limit_gb is not None:
                where = (*alive, _BATCH.origin_id.in_(_of_component(origin, t.origin.c.kind == sniff.READING)))
                ids.update(_beyond(db, (_BATCH.id, _BATCH.last_ns), where, policy.tabular_limit_gb))
            if not ids:
                return 0
            chosen = _BATCH.id.in_(t.rows_in(list(ids), db.dialect.name))
            count = db.scalar(sa.select(sa.func.sum(_BATCH["count"])).where(chosen))
            now_ns = self._clock_ns()
            deletions.note(self._packs, db, deletions.file_ids_of(db, t.readings_batch, list(ids)), now_ns)
            db.execute(t.readings_batch.update().where(chosen).values(deleted_ns=now_ns))
        return int(count or 0)

    def _before_ns(self, days: int) -> int:
        return (self._clock_ns() // _DAY_NS - days) * _DAY_NS


def _of_component(origin: Any, *where: sa.ColumnElement[bool]) -> sa.Select[tuple[int]]:
    same = [t.origin.c[name] == getattr(origin, name) for name in ("organization_id", "part_id", "component_name")]
    return sa.select(t.origin.c.id).where(*same, *where)


def _beyond(
    db: sa.Connection,
    columns: tuple[sa.Column[Any], sa.Column[Any]],
    where: Sequence[sa.ColumnElement[bool]],
    limit_gb: float,
) -> Iterator[int]:
    """Numbers of those that no longer fit, the newest first. `columns`: number and time."""
    number, time_ns = columns
    size = number.table.c["size_bytes"]
    left = int(limit_gb * _GB)
    if (db.scalar(sa.select(sa.func.sum(size)).where(*where)) or 0) <= left:
        return
    for one, size_bytes in db.execute(sa.select(number, size).where(*where).order_by(time_ns.desc(), number.desc())):
        left -= size_bytes
        if left < 0:
            yield one
