"""Sensor readings: which series there are, their rows, the latest values.

A batch of readings is one record in a pack; the index knows its time span and its newest reading, so series and latest
values never open a pack, and a time range opens only the batches that overlap it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import InvalidInput
from gleaner.app.services.items_filter import batches_between, matching, visible_origins
from gleaner.app.services.items_values import ItemFilter, Origin
from gleaner.app.store import sniff
from gleaner.app.store import tables as t
from gleaner.app.store.pack_format import Position
from gleaner.app.store.packs import PackStore
from gleaner.app.store.uploads import decode_readings

MOST_ROWS = 10_000
_BATCH = t.readings_batch.c


@dataclass(frozen=True)
class Series:
    """All readings of one method of one component."""

    origin: Origin
    count: int
    first_ns: int
    last_ns: int
    latest: dict[str, Any]


@dataclass(frozen=True)
class Reading:
    origin: Origin
    requested_ns: int
    received_ns: int
    synced_ns: int
    data: dict[str, Any]
    """As captured, e.g. `{"readings": {…}}` for a sensor."""
    tags: tuple[str, ...] = ()
    method_parameters: dict[str, Any] | None = None


class ReadingService:
    def __init__(self, database: Database, packs: PackStore) -> None:
        self._database = database
        self._packs = packs

    def series(self, caller: Caller, wanted: ItemFilter) -> list[Series]:
        """Newest first."""
        with self._database.read() as db:
            origins = {one.id: one for one in self._origins(db, caller, wanted)}
            query = (
                sa.select(
                    _BATCH.origin_id,
                    sa.func.sum(_BATCH.count),
                    sa.func.min(_BATCH.first_ns),
                    sa.func.max(_BATCH.last_ns),
                )
                .where(_BATCH.origin_id.in_(origins), _BATCH.deleted_ns.is_(None), *batches_between(wanted))
                .group_by(_BATCH.origin_id)
            )
            found = [
                Series(origins[origin_id], int(count), first, last, self._latest(db, origin_id, last))
                for origin_id, count, first, last in db.execute(query)
            ]
        return sorted(found, key=lambda one: -one.last_ns)

    def rows(self, caller: Caller, wanted: ItemFilter, limit: int) -> list[Reading]:
        """Up to `limit` readings of the matching series, newest first."""
        if not 1 <= limit <= MOST_ROWS:
            raise InvalidInput(f"{limit} readings cannot be shown at once", f"Ask for 1 to {MOST_ROWS}.")
        found: list[Reading] = []
        for batch_last_ns, batch in self._batches(caller, wanted, newest_first=True):
            if (
                len(found) >= limit
                and sorted((one.requested_ns for one in found), reverse=True)[limit - 1] >= batch_last_ns
            ):
                break  # batches come by their newest reading: nothing later can be among the newest
            found += [one for one in batch if _within(wanted, one.requested_ns)]
        return sorted(found, key=lambda one: -one.requested_ns)[:limit]

    def export(self, caller: Caller, wanted: ItemFilter) -> Iterator[Reading]:
        """Every matching reading, batch by batch in time order; memory stays flat."""
        for _, batch in self._batches(caller, wanted, newest_first=False):
            yield from (one for one in batch if _within(wanted, one.requested_ns))

    def count(self, caller: Caller, wanted: ItemFilter) -> int:
        return sum(one.count for one in self.series(caller, wanted))

    def _batches(
        self, caller: Caller, wanted: ItemFilter, *, newest_first: bool
    ) -> Iterator[tuple[int, list[Reading]]]:
        with self._database.read() as db:
            origins = {one.id: one for one in self._origins(db, caller, wanted)}
            query = sa.select(t.readings_batch).where(
                _BATCH.origin_id.in_(origins),
                _BATCH.deleted_ns.is_(None),
                _BATCH.pack_id.is_not(None),
                *batches_between(wanted),
            )
            order = _BATCH.last_ns.desc() if newest_first else _BATCH.first_ns
            batches = db.execute(query.order_by(order, _BATCH.id)).all()
        for one in batches:
            position = Position(one.record_offset, one.body_offset, one.size_bytes)
            tags = tuple(json.loads(one.tags))
            parameters = json.loads(one.method_parameters) if one.method_parameters else {}
            origin = origins[one.origin_id]
            yield (
                one.last_ns,
                [
                    Reading(origin, requested, received, one.synced_ns, data, tags, parameters)
                    for requested, received, data in decode_readings(self._packs.read(one.pack_id, position))
                ],
            )

    def _origins(self, db: sa.Connection, caller: Caller, wanted: ItemFilter) -> list[Origin]:
        visible = visible_origins(db, caller, wanted.organization_ids)
        return [one for one in matching(visible, wanted, without="kinds") if one.kind == sniff.READING]

    def _latest(self, db: sa.Connection, origin_id: int, last_ns: int) -> dict[str, Any]:
        newest = sa.select(_BATCH.latest).where(_BATCH.origin_id == origin_id, _BATCH.last_ns == last_ns).limit(1)
        latest = db.scalar(newest)
        return dict(json.loads(latest)) if latest else {}


def _within(wanted: ItemFilter, time_ns: int) -> bool:
    return (wanted.start_ns is None or time_ns >= wanted.start_ns) and (
        wanted.end_ns is None or time_ns < wanted.end_ns
    )
