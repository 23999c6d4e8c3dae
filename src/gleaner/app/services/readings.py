"""Sensor readings: which series there are, their rows, the latest values.

A batch of readings is one record in a pack; the index knows its time span and its newest reading, so series and latest
values never open a pack, and a time range opens only the batches that overlap it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import InvalidInput
from gleaner.app.services.items_filter import batches_between, matching, require_owner, visible_origins
from gleaner.app.services.items_values import ItemFilter, Origin
from gleaner.app.store import deletions, sniff
from gleaner.app.store import tables as t
from gleaner.app.store.pack_format import Position
from gleaner.app.store.packs import PackStore
from gleaner.app.store.uploads import decode_readings

MOST_ROWS = 10_000
_BATCH = t.readings_batch.c
_DAY_NS = 86_400 * 10**9


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
        return self._first(caller, wanted, limit, newest_first=True)

    def page(
        self, caller: Caller, wanted: ItemFilter, limit: int, last: str = "", *, newest_first: bool = True
    ) -> tuple[list[Reading], str]:
        """Up to `limit` readings behind the page that gave `last`, and what to send for the next page."""
        if not 1 <= limit <= MOST_ROWS:
            raise InvalidInput(f"{limit} readings cannot be shown at once", f"Ask for 1 to {MOST_ROWS}.")
        time_ns, seen = _read_last(last) if last else (None, 0)
        if time_ns is not None:
            wanted = _beyond(wanted, time_ns, newest_first=newest_first)
        found = self._first(caller, wanted, limit + seen, newest_first=newest_first)[seen:]
        if not found:
            return [], last
        edge_ns = found[-1].requested_ns
        same = sum(one.requested_ns == edge_ns for one in found) + (seen if edge_ns == time_ns else 0)
        return found, f"{edge_ns}:{same}"

    def _first(self, caller: Caller, wanted: ItemFilter, limit: int, *, newest_first: bool) -> list[Reading]:
        sign = -1 if newest_first else 1
        found: list[Reading] = []
        for edge_ns, batch in self._batches(caller, wanted, newest_first=newest_first):
            if len(found) >= limit and sorted(sign * one.requested_ns for one in found)[limit - 1] <= sign * edge_ns:
                break  # batches come by their first reading in this order: nothing later can be before these
            found += [one for one in batch if _within(wanted, one.requested_ns)]
        return sorted(found, key=lambda one: sign * one.requested_ns)[:limit]

    def export(self, caller: Caller, wanted: ItemFilter) -> Iterator[Reading]:
        """Every matching reading, batch by batch in time order; memory stays flat."""
        for _, batch in self._batches(caller, wanted, newest_first=False):
            yield from (one for one in batch if _within(wanted, one.requested_ns))

    def count(self, caller: Caller, wanted: ItemFilter) -> int:
        return sum(one.count for one in self.series(caller, wanted))

    def delete(self, caller: Caller, wanted: ItemFilter, older_than_days: int, now_ns: int) -> int:
        """Deletes readings from before midnight UTC so many days ago (0: all there are); how many.

        A batch goes when its newest reading is that old: machines end one every hour, so only batches of other clients can
        keep older readings. They count no more from now on, and their bytes are freed after 24 hours.
        """
        if older_than_days < 0:
            raise InvalidInput(
                f"{older_than_days} days cannot be deleted", "Send 0 for everything, or a number of days."
            )
        with self._database.write() as db:
            origins = self._origins(db, caller, wanted)
            require_owner(caller, origins, "its readings")
            ids = t.rows_in([one.id for one in origins], db.dialect.name)
            there: list[sa.ColumnElement[bool]] = [_BATCH.origin_id.in_(ids)]
            if older_than_days:
                there.append(_BATCH.last_ns < (now_ns // _DAY_NS - older_than_days) * _DAY_NS)
            found = db.execute(
                sa.select(_BATCH.id, _BATCH["count"], _BATCH.tags).where(*there, _BATCH.deleted_ns.is_(None))
            )
            gone = {i: int(count) for i, count, tags in found if _has_tags(wanted, json.loads(tags))}
            chosen = _BATCH.id.in_(t.rows_in(list(gone), db.dialect.name))
            deletions.note(self._packs, db, deletions.file_ids_of(db, t.readings_batch, list(gone)), now_ns)
            db.execute(t.readings_batch.update().where(chosen).values(deleted_ns=now_ns))
        return sum(gone.values())

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
                one.last_ns if newest_first else one.first_ns,
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


def _has_tags(wanted: ItemFilter, tags: list[str]) -> bool:
    if wanted.tagged is not None:
        return bool(tags) is wanted.tagged
    return not wanted.tags or not set(wanted.tags).isdisjoint(tags)


def _read_last(last: str) -> tuple[int, int]:
    """When the last reading shown was taken, and how many of that very moment were shown."""
    try:
        time_ns, seen = map(int, last.split(":"))
    except ValueError as err:
        raise InvalidInput(f"{last!r} is not what a page gave as last", "Send it as the page before gave it.") from err
    if not 0 <= seen <= MOST_ROWS:
        raise InvalidInput(f"More than {MOST_ROWS} readings have the same time", "Take them with ExportTabularData.")
    return time_ns, seen


def _beyond(wanted: ItemFilter, time_ns: int, *, newest_first: bool) -> ItemFilter:
    """From that moment on, itself included."""
    if newest_first:
        return replace(wanted, end_ns=min(time_ns + 1, wanted.end_ns if wanted.end_ns is not None else time_ns + 1))
    return replace(wanted, start_ns=max(time_ns, wanted.start_ns or time_ns))


def _within(wanted: ItemFilter, time_ns: int) -> bool:
    return (wanted.start_ns is None or time_ns >= wanted.start_ns) and (
        wanted.end_ns is None or time_ns < wanted.end_ns
    )
