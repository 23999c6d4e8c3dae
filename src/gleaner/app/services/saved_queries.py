"""Saved queries: a question in SQL or Mongo's language under a name, shared by everyone in the organization."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from gleaner.app.services.datasets import require_maker
from gleaner.app.services.query_text import checked_stages, split, stages_of_text, text_of_stages
from gleaner.app.store import tables as t

_LONGEST_NAME = 100
_LONGEST_TEXT = 100_000
_MOST = 500
_QUERY = t.saved_query.c


class Language(StrEnum):
    SQL = "sql"
    MQL = "mql"


@dataclass(frozen=True)
class Draft:
    """What is asked. `stages` (BSON documents) are empty in SQL; `text` may be empty in MQL."""

    language: Language
    text: str = ""
    stages: tuple[bytes, ...] = ()

    @classmethod
    def typed(cls, language: Language, text: str) -> Draft:
        """As somebody wrote it. Raises InvalidInput for what is no pipeline; SQL is checked when it is asked."""
        if len(text) > _LONGEST_TEXT:
            raise InvalidInput(f"The query has {len(text)} characters", f"Save one of at most {_LONGEST_TEXT}.")
        if not text.strip():
            raise InvalidInput("The query is empty", "Write one first.")
        stages = checked_stages(stages_of_text(text)) if language is Language.MQL else ()
        return cls(language, text, stages)

    @classmethod
    def sent(cls, stages: Sequence[bytes]) -> Draft:
        return cls(Language.MQL, "", checked_stages(stages))


@dataclass(frozen=True)
class SavedQuery:
    id: str
    organization_id: str
    name: str
    asks: Draft
    created_ns: int
    updated_ns: int

    @property
    def text(self) -> str:
        return self.asks.text or text_of_stages(self.asks.stages)


class SavedQueries:
    def __init__(self, database: Database, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock_ns = clock_ns

    def of_organization(self, caller: Caller, organization_id: str, limit: int = 0) -> list[SavedQuery]:
        """By name; at most `limit`, if it is not 0."""
        if organization_id not in caller.organization_ids():
            raise PermissionDenied(
                "You may not see the saved queries of this organization", "Ask one of its owners for a role there."
            )
        if limit < 0:
            raise InvalidInput(f"{limit} queries were asked for", "Send a positive limit, or none.")
        query = sa.select(t.saved_query).where(_QUERY.organization_id == organization_id)
        with self._database.read() as db:
            found = [_saved(row) for row in db.execute(query).mappings()]
        return sorted(found, key=lambda one: (one.name.lower(), one.id))[: limit or None]

    def get(self, caller: Caller, query_id: str) -> SavedQuery:
        """Raises NotFound, also for those of organizations that the caller does not know."""
        with self._database.read() as db:
            return _visible(db, caller, query_id)

    def named(self, caller: Caller, organization_id: str, name: str) -> SavedQuery:
        for one in self.of_organization(caller, organization_id):
            if one.name == name:
                return one
        raise NotFound(f"There is no saved query called {name}", "ListSavedQueries says which there are.")

    def create(self, caller: Caller, organization_id: str, name: str, asks: Draft) -> SavedQuery:
        """Raises Conflict if the organization has a query of that name."""
        require_maker(caller, organization_id)
        now_ns = self._clock_ns()
        made = SavedQuery(str(uuid.uuid4()), organization_id, _checked_name(name), asks, now_ns, now_ns)
        with self._database.write() as db:
            _require_free(db, organization_id, made.name)
            number = sa.select(sa.func.count()).where(_QUERY.organization_id == organization_id)
            if (db.scalar(number) or 0) >= _MOST:
                raise InvalidInput(f"There are {_MOST} saved queries already", "Delete those nobody uses.")
            columns = {"id": made.id, "organization_id": organization_id, "created_ns": now_ns}
            db.execute(t.saved_query.insert().values(columns | _values(made.name, asks, now_ns)))
        return made

    def change(self, caller: Caller, query_id: str, name: str = "", asks: Draft | None = None) -> SavedQuery:
        """What is not given stays."""
        with self._database.write() as db:
            old = _owned(db, caller, query_id)
            new_name = _checked_name(name) if name else old.name
            if new_name != old.name:
                _require_free(db, old.organization_id, new_name)
            now_ns = self._clock_ns()
            values = _values(new_name, asks or old.asks, now_ns)
            db.execute(t.saved_query.update().where(_QUERY.id == query_id).values(values))
        return SavedQuery(old.id, old.organization_id, new_name, asks or old.asks, old.created_ns, now_ns)

    def delete(self, caller: Caller, query_id: str) -> None:
        with self._database.write() as db:
            _owned(db, caller, query_id)
            db.execute(t.saved_query.delete().where(_QUERY.id == query_id))


def _values(name: str, asks: Draft, now_ns: int) -> dict[str, Any]:
    return {
        "name": name,
        "language": asks.language.value,
        "text": asks.text,
        "stages": b"".join(asks.stages),
        "updated_ns": now_ns,
    }


def _saved(row: sa.RowMapping) -> SavedQuery:
    asks = Draft(Language(row["language"]), row["text"], split(bytes(row["stages"])))
    return SavedQuery(
        row["id"], row["organization_id"], row["name"], asks, int(row["created_ns"]), int(row["updated_ns"])
    )


def _visible(db: sa.Connection, caller: Caller, query_id: str) -> SavedQuery:
    found = db.execute(sa.select(t.saved_query).where(_QUERY.id == query_id)).mappings().one_or_none()
    if found is None or found["organization_id"] not in caller.organization_ids():
        raise NotFound(f"There is no saved query {query_id!r}", "It may have been deleted; list them again.")
    return _saved(found)


def _owned(db: sa.Connection, caller: Caller, query_id: str) -> SavedQuery:
    """Raises PermissionDenied to operators."""
    query = _visible(db, caller, query_id)
    caller.require(query.organization_id, owner=True, what=f"the saved query {query.name}")
    return query


def _require_free(db: sa.Connection, organization_id: str, name: str) -> None:
    if db.scalar(sa.select(_QUERY.id).where(_QUERY.organization_id == organization_id, _QUERY.name == name)):
        raise Conflict(f"There is a saved query named {name!r} already", "Choose another name.")


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > _LONGEST_NAME or any(ord(c) < 32 for c in name):
        raise InvalidInput(f"{name[:40]!r} is no name for a query", f"Use 1 to {_LONGEST_NAME} characters.")
    return name
