"""Sequences: created once by machines or programs, found, changed, deleted. Seen and changed by role, like items."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from gleaner.app.caller import Caller, CallerKind
from gleaner.app.database import Database
from gleaner.app.errors import InvalidInput, NotFound
from gleaner.app.services.datasets import dataset_row, require_maker
from gleaner.app.services.datasets_values import DatasetType
from gleaner.app.services.items_values import ItemFilter
from gleaner.app.services.sequences_values import CapturedSequence, SequenceDraft, SequencePage, checked
from gleaner.app.store import tables as t
from gleaner.app.store.places import PartLookup, Place

MOST_LISTED = 1000
_DEFAULT_PAGE = 50
_SEQUENCE = t.sequence.c
_MEMBER = t.dataset_sequence.c


class SequenceService:
    def __init__(self, database: Database, parts: PartLookup, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._parts = parts
        self._clock_ns = clock_ns

    # Creating

    def create(self, caller: Caller, part_id: str, draft: SequenceDraft) -> str:
        """Its id; the same again for the same sequence. A machine creates its own, keys those of machines they know."""
        place = self._parts.place(part_id or caller.part_id)
        if place is None:
            raise NotFound(f"There is no machine part {part_id!r}", "Copy the part's id from the machine's page.")
        if caller.part_id != place.part_id:
            caller.require(
                place.organization_id, place.location_id, place.machine_id, what=f"the machine {place.machine_name}"
            )
        # Whoever creates what was deleted wants it back; a machine only repeats what it has not seen acknowledged.
        return self.keep(place, draft, revive=caller.kind is not CallerKind.PART)[0]

    def keep(self, place: Place, draft: SequenceDraft, *, revive: bool = False) -> tuple[str, bool]:
        """(id, whether it was known), durable. For code that has checked its caller."""
        id_, now = draft.id_in(place.part_id), self._clock_ns()
        values: dict[str, Any] = {
            "organization_id": place.organization_id,
            "location_id": place.location_id,
            "machine_id": place.machine_id,
            "part_id": place.part_id,
            **_columns(draft),
            "created_ns": now,
            "updated_ns": now,
            "deleted_ns": None,
        }
        with self._database.write() as db:
            known = db.execute(sa.select(_SEQUENCE.deleted_ns).where(_SEQUENCE.id == id_)).one_or_none()
            if known is None:
                db.execute(t.sequence.insert().values(id=id_, **values))
            elif revive and known.deleted_ns is not None:
                db.execute(t.sequence.update().where(_SEQUENCE.id == id_).values(**values))
        return id_, known is not None

    # Finding

    def get(self, caller: Caller, sequence_id: str) -> CapturedSequence:
        """Raises NotFound."""
        with self._database.read() as db:
            return _described(db, [_row(db, caller, sequence_id)])[0]

    def page(
        self, caller: Caller, organization_id: str, size: int = 0, token: str = "", *, dataset_id: str = ""
    ) -> SequencePage:
        """Up to `size` sequences (50 by default, at most 1000), the newest start first, behind the page that gave `token`."""
        if organization_id not in caller.organization_ids():
            raise NotFound(f"There is no organization {organization_id}", "List the organizations to see its id.")
        wanted = _page_size(size)
        query = sa.select(t.sequence).where(_SEQUENCE.organization_id == organization_id, _visible(caller))
        if dataset_id:
            query = query.where(_SEQUENCE.id.in_(_members(dataset_id)))
        edge = sa.tuple_(_SEQUENCE.start_ns, _SEQUENCE.id)
        if token:
            query = query.where(edge < sa.tuple_(*(sa.literal(value) for value in _read_token(token))))
        query = query.order_by(_SEQUENCE.start_ns.desc(), _SEQUENCE.id.desc()).limit(wanted + 1)
        with self._database.read() as db:
            rows = db.execute(query).mappings().all()
            found = _described(db, rows[:wanted])
        more = len(rows) > wanted
        return SequencePage(found, _write_token(rows[wanted - 1]["start_ns"], rows[wanted - 1]["id"]) if more else "")

    def item_filter(self, caller: Caller, sequence_id: str) -> ItemFilter:
        """Which items belong to it."""
        return self.get(caller, sequence_id).item_filter()

    # Changing

    def update(self, caller: Caller, sequence_id: str, **changes: Any) -> None:
        """Changes the named ones of `resources`, `tags`, `start_ns`, `end_ns`. What was sent stays known as the same."""
        with self._database.write() as db:
            row = _owned(db, caller, sequence_id)
            covers = _draft(row)
            new = {
                name: changes.get(name, getattr(covers, name)) for name in ("resources", "tags", "start_ns", "end_ns")
            }
            values = _columns(checked(**new)) | {"updated_ns": self._clock_ns()}
            db.execute(t.sequence.update().where(_SEQUENCE.id == sequence_id).values(**values))

    def delete(self, caller: Caller, sequence_id: str) -> None:
        """What was captured in it stays."""
        with self._database.write() as db:
            _owned(db, caller, sequence_id)
            db.execute(t.dataset_sequence.delete().where(_MEMBER.sequence_id == sequence_id))
            db.execute(t.sequence.update().where(_SEQUENCE.id == sequence_id).values(deleted_ns=self._clock_ns()))

    # Datasets

    def add_to_dataset(self, caller: Caller, dataset_id: str, sequence_ids: Sequence[str]) -> None:
        """Raises InvalidInput for a dataset of items, or for sequences of another organization."""
        with self._database.write() as db:
            dataset = _sequence_dataset(db, caller, dataset_id)
            require_maker(caller, dataset["organization_id"])
            rows = [_row(db, caller, one) for one in _given(sequence_ids)]
            if any(row["organization_id"] != dataset["organization_id"] for row in rows):
                raise InvalidInput("Some sequences belong to another organization", "Choose those of the dataset's.")
            adding = t.insert_ignoring(t.dataset_sequence, db.dialect.name)
            db.execute(adding, [{"dataset_id": dataset_id, "sequence_id": row["id"]} for row in rows])

    def remove_from_dataset(self, caller: Caller, dataset_id: str, sequence_ids: Sequence[str]) -> None:
        """What is not in it is passed over."""
        with self._database.write() as db:
            dataset = _sequence_dataset(db, caller, dataset_id)
            require_maker(caller, dataset["organization_id"])
            chosen = _MEMBER.dataset_id == dataset_id, _MEMBER.sequence_id.in_(_given(sequence_ids))
            db.execute(t.dataset_sequence.delete().where(*chosen))

    def page_of_dataset(self, caller: Caller, dataset_id: str, size: int = 0, token: str = "") -> SequencePage:
        """As `page`."""
        with self._database.read() as db:
            dataset = dataset_row(db, caller, dataset_id)
        return self.page(caller, dataset["organization_id"], size, token, dataset_id=dataset_id)

    def of_version(self, version_id: str) -> list[CapturedSequence]:
        """As they were when the dataset version was made; none if it is of pictures. For code that has checked its caller."""
        version, member = t.dataset_version.c, t.dataset_version_sequence
        query = sa.select(member.c.sequence_id, member.c.covers, version.created_ns)
        query = query.join(version.id.table, version.id == member.c.version_id).order_by(member.c.sequence_id)
        with self._database.read() as db:
            rows = db.execute(query.where(version.id == version_id)).all()
        return [_frozen(*row) for row in rows]

    def require_dataset(self, caller: Caller, dataset_id: str) -> str:
        """Its organization. Raises NotFound, InvalidInput for a dataset of items."""
        with self._database.read() as db:
            return str(_sequence_dataset(db, caller, dataset_id)["organization_id"])

    def count_in_dataset(self, caller: Caller, dataset_id: str) -> int:
        with self._database.read() as db:
            dataset_row(db, caller, dataset_id)
            query = sa.select(sa.func.count()).where(_SEQUENCE.id.in_(_members(dataset_id)), _visible(caller))
            return int(db.scalar(query) or 0)


def _columns(draft: SequenceDraft) -> dict[str, Any]:
    return {
        "resources": json.dumps(draft.resources),
        "tags": json.dumps(draft.tags),
        "start_ns": draft.start_ns,
        "end_ns": draft.end_ns,
    }


def _draft(row: sa.RowMapping | dict[str, Any]) -> SequenceDraft:
    resources = tuple((name, method) for name, method in json.loads(row["resources"]))
    return SequenceDraft(resources, tuple(json.loads(row["tags"])), row["start_ns"], row["end_ns"])


def _frozen(id_: str, covers: str, created_ns: int) -> CapturedSequence:
    kept = json.loads(covers)
    return CapturedSequence(
        id_,
        kept["organization_id"],
        kept["location_id"],
        kept["machine_id"],
        kept["part_id"],
        _draft(kept),
        created_ns,
        created_ns,
    )


def _described(db: sa.Connection, rows: Sequence[sa.RowMapping]) -> list[CapturedSequence]:
    datasets: dict[str, list[str]] = {}
    members = sa.select(t.dataset_sequence).where(_MEMBER.sequence_id.in_([row["id"] for row in rows]))
    for one in db.execute(members.order_by(_MEMBER.dataset_id)).mappings():
        datasets.setdefault(one["sequence_id"], []).append(one["dataset_id"])
    return [
        CapturedSequence(
            row["id"],
            row["organization_id"],
            row["location_id"],
            row["machine_id"],
            row["part_id"],
            _draft(row),
            row["created_ns"],
            row["updated_ns"],
            tuple(datasets.get(row["id"], ())),
        )
        for row in rows
    ]


def _visible(caller: Caller) -> sa.ColumnElement[bool]:
    """Living sequences of places where the caller has a role."""
    columns = {
        "organization": _SEQUENCE.organization_id,
        "location": _SEQUENCE.location_id,
        "robot": _SEQUENCE.machine_id,
    }
    places = [
        sa.and_(columns[one.resource_type] == one.resource_id, _SEQUENCE.organization_id == one.organization_id)
        for one in caller.grants
        if one.resource_type in columns
    ]
    return sa.and_(_SEQUENCE.deleted_ns.is_(None), sa.or_(sa.false(), *places))


def _row(db: sa.Connection, caller: Caller, sequence_id: str) -> sa.RowMapping:
    query = sa.select(t.sequence).where(_SEQUENCE.id == sequence_id, _visible(caller))
    row = db.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no sequence {sequence_id!r}", "List the sequences to see its id.")
    return row


def _owned(db: sa.Connection, caller: Caller, sequence_id: str) -> sa.RowMapping:
    row = _row(db, caller, sequence_id)
    place = row["organization_id"], row["location_id"], row["machine_id"]
    caller.require(*place, owner=True, what=f"the sequence {sequence_id}")
    return row


def _sequence_dataset(db: sa.Connection, caller: Caller, dataset_id: str) -> sa.RowMapping:
    row = dataset_row(db, caller, dataset_id)
    if row["type"] != DatasetType.SEQUENCE:
        raise InvalidInput(
            f"The dataset {row['name']} holds pictures and files, not sequences",
            "Make one of the type DATASET_TYPE_SEQUENCE_DATA.",
        )
    return row


def _members(dataset_id: str) -> sa.Select[tuple[str]]:
    return sa.select(_MEMBER.sequence_id).where(_MEMBER.dataset_id == dataset_id)


def _given(sequence_ids: Sequence[str]) -> list[str]:
    if not sequence_ids or not all(sequence_ids):
        raise InvalidInput("No sequence ids were given", "Give at least one.")
    return list(dict.fromkeys(sequence_ids))


def _page_size(size: int) -> int:
    if size < 0:
        raise InvalidInput(f"A page of {size} sequences was asked for", f"Ask for 1 to {MOST_LISTED}.")
    return min(size or _DEFAULT_PAGE, MOST_LISTED)


def _write_token(start_ns: int, id_: str) -> str:
    return base64.urlsafe_b64encode(f"{start_ns}:{id_}".encode()).decode()


def _read_token(token: str) -> tuple[int, str]:
    try:
        start, id_ = base64.urlsafe_b64decode(token).decode().split(":")
        return int(start), id_
    except (ValueError, binascii.Error) as err:
        raise InvalidInput(f"{token!r} is no page token", "Send next_page_token as the page before gave it.") from err
