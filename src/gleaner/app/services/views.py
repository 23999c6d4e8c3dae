"""Saved views: a filter of the data pages under a name, shared by everyone in the organization."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from gleaner.app.services.datasets import require_maker
from gleaner.app.store import tables as t

_LONGEST_NAME = 100
_LONGEST_QUERY = 8000
_MOST = 500
#: What an address of the data pages may say: docs/architecture.md FILTER; `time` is a range that moves with the clock.
_NAMES = frozenset(
    [
        "location_id",
        "machine_id",
        "part_id",
        "component_name",
        "component_type",
        "method",
        "mime_type",
        "tag",
        "tagged",
        "label",
        "boxed",
        "dataset_id",
        "start",
        "end",
        "time",
        "kind",
        "search",
        "near",
        "similar",
        "once",
    ]
)
_VIEW = t.saved_view.c


@dataclass(frozen=True)
class SavedView:
    """`query` is the query string of the data page's address."""

    id: str
    organization_id: str
    name: str
    query: str
    created_ns: int


class ViewService:
    def __init__(self, database: Database, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock_ns = clock_ns

    def of_organization(self, caller: Caller, organization_id: str) -> list[SavedView]:
        """By name."""
        if organization_id not in caller.organization_ids():
            raise PermissionDenied(
                "You may not see the saved views of this organization", "Ask one of its owners for a role there."
            )
        with self._database.read() as db:
            found = db.execute(sa.select(t.saved_view).where(_VIEW.organization_id == organization_id)).mappings()
            return sorted((SavedView(**row) for row in found), key=lambda one: (one.name.lower(), one.id))

    def create(self, caller: Caller, organization_id: str, name: str, query: str) -> SavedView:
        """Raises Conflict if the organization has a view of that name."""
        require_maker(caller, organization_id)
        made = SavedView(
            str(uuid.uuid4()), organization_id, _checked_name(name), _checked_query(query), self._clock_ns()
        )
        with self._database.write() as db:
            _require_free(db, organization_id, made.name)
            number = sa.select(sa.func.count()).where(_VIEW.organization_id == organization_id)
            if (db.scalar(number) or 0) >= _MOST:
                raise InvalidInput(f"There are {_MOST} saved views already", "Delete those nobody uses.")
            db.execute(t.saved_view.insert().values(made.__dict__))
        return made

    def change(self, caller: Caller, view_id: str, name: str | None = None, query: str | None = None) -> SavedView:
        """What is None stays."""
        with self._database.write() as db:
            old = _owned(db, caller, view_id)
            values: dict[str, Any] = {}
            if name is not None and _checked_name(name) != old.name:
                values["name"] = _checked_name(name)
                _require_free(db, old.organization_id, values["name"])
            if query is not None:
                values["query"] = _checked_query(query)
            if values:
                db.execute(t.saved_view.update().where(_VIEW.id == view_id).values(values))
        return SavedView(**(old.__dict__ | values))

    def delete(self, caller: Caller, view_id: str) -> None:
        with self._database.write() as db:
            _owned(db, caller, view_id)
            db.execute(t.saved_view.delete().where(_VIEW.id == view_id))


def _owned(db: sa.Connection, caller: Caller, view_id: str) -> SavedView:
    """Raises NotFound also for those of organizations that the caller does not know, PermissionDenied to operators."""
    found = db.execute(sa.select(t.saved_view).where(_VIEW.id == view_id)).mappings().one_or_none()
    if found is None or found["organization_id"] not in caller.organization_ids():
        raise NotFound("There is no such saved view", "It may have been deleted; reload the page.")
    view = SavedView(**found)
    caller.require(view.organization_id, owner=True, what=f"the saved view {view.name}")
    return view


def _require_free(db: sa.Connection, organization_id: str, name: str) -> None:
    if db.scalar(sa.select(_VIEW.id).where(_VIEW.organization_id == organization_id, _VIEW.name == name)):
        raise Conflict(f"There is a saved view named {name!r} already", "Choose another name.")


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > _LONGEST_NAME or any(ord(c) < 32 for c in name):
        raise InvalidInput(f"{name[:40]!r} is no name for a view", f"Use 1 to {_LONGEST_NAME} characters.")
    return name


def _checked_query(query: str) -> str:
    query = query.removeprefix("?")
    if len(query) > _LONGEST_QUERY:
        raise InvalidInput(f"The filter has {len(query)} characters", f"Save one of at most {_LONGEST_QUERY}.")
    try:
        names = {name for name, _ in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))}
    except ValueError as err:
        raise InvalidInput(f"The filter is no query string: {err}", "Write it like tag=red&time=24h.") from err
    if unknown := sorted(names - _NAMES):
        raise InvalidInput(f"The filter has {unknown[0]!r}, which is no part of one", "Leave it out.")
    return query
