"""Indexes, as clients of Viam's ask for them: recorded, listed and deleted; nothing is built.

Viam's hot store is a MongoDB that needs them. Here readings lie in Parquet ordered by place and time, with the least and the
greatest of every key of each file, so that no answer changes and few become faster by an index of one's own. They are kept
all the same, because programs make them on their first run and look for them on the next. The order that is really there is
listed as made by the app.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import bson
import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.services.datasets import require_maker
from gleaner.app.store import tables as t

_INDEX = t.query_index.c
_MOST = 64
"""As in MongoDB."""
_KINDS = ("text", "hashed", "2dsphere", "2d")
_EXAMPLE = 'For example {"component_name": 1, "time_requested": -1}.'


class Collection(StrEnum):
    HOT_STORE = "hot_store"
    PIPELINE_SINK = "pipeline_sink"


@dataclass(frozen=True)
class IndexPlace:
    """Which collection. `pipeline_name` is empty but for PIPELINE_SINK."""

    organization_id: str
    collection: Collection
    pipeline_name: str = ""


@dataclass(frozen=True)
class QueryIndex:
    place: IndexPlace
    name: str
    keys: Mapping[str, Any]
    options: Mapping[str, Any]
    is_built_in: bool = False


_BUILT_IN = {
    Collection.HOT_STORE: (
        "place_and_time",
        ("part_id", "component_type", "component_name", "method_name", "time_requested"),
    ),
    Collection.PIPELINE_SINK: ("run_and_time", ("_viam_pipeline_run.interval.start",)),
}


class QueryIndexes:
    def __init__(self, database: Database, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock_ns = clock_ns

    def of(self, caller: Caller, place: IndexPlace) -> list[QueryIndex]:
        """The one the app made first."""
        caller_place = _seen(caller, place)
        with self._database.read() as db:
            _require_collection(db, place)
            rows = db.execute(sa.select(t.query_index).where(*caller_place).order_by(_INDEX.created_ns, _INDEX.name))
            found = [QueryIndex(place, row.name, json.loads(row.fields), json.loads(row.options)) for row in rows]
        name, fields = _BUILT_IN[place.collection]
        return [QueryIndex(place, name, dict.fromkeys(fields, 1), {}, is_built_in=True), *found]

    def create(self, caller: Caller, place: IndexPlace, spec: Sequence[bytes]) -> QueryIndex:
        """`spec` is the keys and, if there are any, the options, each in JSON or BSON. Made twice the same, it is one.

        Raises InvalidInput, and Conflict when another has the name.
        """
        require_maker(caller, place.organization_id)
        keys, options = _read(spec)
        name = str(options.get("name") or "_".join(f"{field}_{way}" for field, way in keys.items()))
        made = QueryIndex(place, name, keys, options)
        if name == _BUILT_IN[place.collection][0]:
            raise Conflict(f"The app has an index {name} of its own", "Choose another name.")
        with self._database.write() as db:
            _require_collection(db, place)
            there = {row.name: row for row in db.execute(sa.select(t.query_index).where(*_of(place)))}
            if same := there.get(name):
                if (json.loads(same.fields), json.loads(same.options)) != (dict(keys), dict(options)):
                    raise Conflict(f"There is another index named {name}", "Delete it, or choose another name.")
                return made
            if len(there) >= _MOST:
                raise InvalidInput(f"There are {_MOST} indexes already", "Delete those nobody uses.")
            db.execute(
                t.query_index.insert().values(
                    organization_id=place.organization_id,
                    collection=place.collection.value,
                    pipeline_name=place.pipeline_name,
                    name=name,
                    fields=json.dumps(keys),
                    options=json.dumps(options),
                    created_ns=self._clock_ns(),
                )
            )
        return made

    def delete(self, caller: Caller, place: IndexPlace, name: str) -> None:
        """Raises NotFound; InvalidInput for the app's own."""
        require_maker(caller, place.organization_id)
        if name == _BUILT_IN[place.collection][0]:
            raise InvalidInput(
                f"{name} is how the readings are ordered", "Only indexes that were created can be deleted."
            )
        with self._database.write() as db:
            gone = db.execute(t.query_index.delete().where(*_of(place), _INDEX.name == name))
            if not gone.rowcount:
                raise NotFound(f"There is no index {name!r}", "ListIndexes says which there are.")


def _seen(caller: Caller, place: IndexPlace) -> tuple[sa.ColumnElement[bool], ...]:
    if place.organization_id not in caller.organization_ids():
        raise NotFound(f"There is no organization {place.organization_id!r}", "List the organizations to see its id.")
    return _of(place)


def _of(place: IndexPlace) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _INDEX.organization_id == place.organization_id,
        _INDEX.collection == place.collection.value,
        _INDEX.pipeline_name == place.pipeline_name,
    )


def _require_collection(db: sa.Connection, place: IndexPlace) -> None:
    if place.collection is Collection.PIPELINE_SINK and not place.pipeline_name:
        raise InvalidInput("A sink belongs to a data pipeline", "Send pipeline_name.")


def _read(spec: Sequence[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    documents = [_document(one) for one in spec]
    if not documents or len(documents) > 2:
        raise InvalidInput("An index is described by its keys and, if need be, options", _EXAMPLE)
    keys = documents[0]
    options = documents[1] if len(documents) == 2 else {}
    for inner in ("key", "keys"):  # as MongoDB's createIndexes writes it
        if isinstance(keys.get(inner), dict):
            options = {name: one for name, one in keys.items() if name not in (inner, "options")} | options
            options |= keys["options"] if isinstance(keys.get("options"), dict) else {}
            keys = keys[inner]
            break
    if not keys:
        raise InvalidInput("The index has no keys", _EXAMPLE)
    for field, way in keys.items():
        is_direction = not isinstance(way, bool) and way in (1, -1)
        if not is_direction and way not in _KINDS:
            raise InvalidInput(f"{field} of the index is {way!r}", "1 is ascending, -1 descending.")
    return {field: int(way) if isinstance(way, float) else way for field, way in keys.items()}, options


def _document(given: bytes) -> dict[str, Any]:
    try:
        found = json.loads(given) if given.lstrip()[:1] == b"{" else bson.decode(given)
        json.dumps(found)
    except (ValueError, TypeError, RecursionError, bson.errors.InvalidBSON) as err:
        raise InvalidInput(f"The index is described neither in JSON nor in BSON: {err}", _EXAMPLE) from err
    if not isinstance(found, dict):
        raise InvalidInput("The index is no document", _EXAMPLE)
    return found
