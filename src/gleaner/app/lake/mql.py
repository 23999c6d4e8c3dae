"""A pipeline of Mongo's query language as one SQL statement. Pure.

Each stage becomes a common table expression whose columns are c0, c1, …; what they mean is kept in a Document beside it
(`documents.py`), so no name of the user's ever becomes an SQL name. The order of a `$sort` is carried on until something
changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gleaner.app.errors import InvalidInput
from gleaner.app.lake import schema
from gleaner.app.lake.documents import (
    KIND_OF_TYPE,
    Data,
    Document,
    Leaf,
    extracted,
    leaf,
    put,
    remove,
    resolve,
    root,
    within,
)
from gleaner.app.lake.expressions import condition, field_path, value
from gleaner.app.lake.grouping import bucket, bucket_auto, group
from gleaner.app.lake.pipeline import Compiled, Pipeline, as_document, whole_number
from gleaner.app.lake.schema import Columns, Path
from gleaner.app.lake.windows import fill, set_window_fields

MOST_STAGES = 100
_KINDS = {"time_requested": "time", "time_received": "time", "tags": "array", "additional_parameters": "json"}
Stage = Mapping[str, Any]


def checked(stages: Sequence[Any]) -> list[tuple[str, Any]]:
    """(name, what it says) of each stage. Raises InvalidInput naming the one that cannot be run."""
    if len(stages) > MOST_STAGES:
        raise InvalidInput(f"The pipeline has {len(stages)} stages", f"At most {MOST_STAGES} are run.")
    found = []
    for number, stage in enumerate(stages, 1):
        if not isinstance(stage, Mapping) or len(stage) != 1:
            raise InvalidInput(f"Stage {number} is not a document with one name", 'For example {"$match": {…}}.')
        ((name, given),) = stage.items()
        if name not in _STAGES:
            hint = _REFUSED.get(str(name), f"There are: {' '.join(sorted(_STAGES))}.")
            raise InvalidInput(f"Stage {number}, {name}, cannot be run here", hint)
        found.append((str(name), given))
    return found


def fields(stages: Sequence[tuple[str, Any]]) -> set[Path]:
    """Keys of the readings that a pipeline may name."""
    texts = {text.lstrip("$") for _, given in stages for text in _texts(given)}
    return {tuple(text.split(".")[1:]) for text in texts if text.startswith("data.")}


def leading_matches(stages: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """(field, condition) that every reading the pipeline uses must fulfil."""
    for name, given in stages:
        if name != "$match" or not isinstance(given, Mapping):
            return
        yield from _conjuncts(given)


def compiled(stages: Sequence[tuple[str, Any]], columns: Columns, used: Mapping[Path, str]) -> Compiled:
    """Raises InvalidInput."""
    pipeline = Pipeline(_readings(columns, used))
    for number, (name, given) in enumerate(stages, 1):
        try:
            _STAGES[name](pipeline, given)
        except InvalidInput as err:
            raise InvalidInput(f"Stage {number}, {name}: {err.message}", err.hint) from None
    return pipeline.done()


def _readings(columns: Columns, used: Mapping[Path, str]) -> Document:
    document: Document = {name: Leaf(name, _KINDS.get(name, "text")) for name in schema.FIXED if name != "data"}  # type: ignore[arg-type]
    typed = {
        path: Leaf(
            schema.identifier(name),
            KIND_OF_TYPE[columns[path].type],
            "" if columns[path].is_exact else extracted("data", path),
        )
        for path, name in used.items()
    }
    return {**document, "data": Data(Leaf("data", "json"), typed)}


# --- stages ----------------------------------------------------------------------------------------------------------


def _match(pipeline: Pipeline, given: Any) -> None:
    pipeline.select(pipeline.document, rest=f" WHERE {condition(pipeline.document, given)}")


def _project(pipeline: Pipeline, given: Any) -> None:
    asked = {key: one for key, one in as_document("$project", given).items() if key != "_id" or one not in (0, False)}
    removing = [key for key, one in asked.items() if not isinstance(one, (str, dict)) and one in (0, False)]
    if removing and len(removing) == len(asked):
        _unset(pipeline, removing)
        return
    if removing:
        raise InvalidInput(f"{removing[0]} cannot be left out while others are chosen", "Choose, or leave out.")
    if (
        "_id" not in asked
        and isinstance(pipeline.document, dict)
        and "_id" in pipeline.document
        and (given or {}).get("_id", 1) not in (0, False)
    ):
        asked = {"_id": 1, **asked}
    made: Document = {}
    for key, one in asked.items():
        path = field_path(str(key))
        is_chosen = isinstance(one, (bool, int, float))
        found = resolve(pipeline.document, path) if is_chosen else value(pipeline.document, one)
        made = put(made, path, found)
    pipeline.select(made)


def _add_fields(pipeline: Pipeline, given: Any) -> None:
    made = pipeline.document
    for key, one in as_document("$addFields", given).items():
        made = put(made, field_path(str(key)), value(pipeline.document, one))
    pipeline.select(made)


def _unset(pipeline: Pipeline, given: Any) -> None:
    made = pipeline.document
    for key in [given] if isinstance(given, str) else given:
        made = remove(made, field_path(str(key)))
    pipeline.select(made)


def _sort(pipeline: Pipeline, given: Any) -> None:
    asked = as_document("$sort", given)
    order = []
    for key, direction in asked.items():
        if direction not in (1, -1) or isinstance(direction, bool):
            raise InvalidInput(f"{key} is sorted by {direction!r}", "1 is ascending, -1 descending.")
        order.append((leaf(pipeline.document, field_path(str(key))).sql, "ASC" if direction == 1 else "DESC"))
    pipeline.order = order
    pipeline.select(pipeline.document)


def _limit(pipeline: Pipeline, given: Any) -> None:
    count = whole_number("$limit", given, 1)
    pipeline.select(pipeline.document, rest=f"{pipeline.ordered()} LIMIT {count}")


def _skip(pipeline: Pipeline, given: Any) -> None:
    count = whole_number("$skip", given, 0)
    pipeline.select(pipeline.document, rest=f"{pipeline.ordered()} OFFSET {count}")


def _sample(pipeline: Pipeline, given: Any) -> None:
    count = whole_number("$sample", as_document("$sample", given).get("size"), 1)
    pipeline.select(pipeline.document, rest=f" USING SAMPLE reservoir({count} ROWS)")


def _count(pipeline: Pipeline, given: Any) -> None:
    if not isinstance(given, str) or not given or given.startswith("$") or "." in given:
        raise InvalidInput(f"{given!r} cannot be the name of the count", 'For example {"$count": "total"}.')
    pipeline.select({given: Leaf("count(*)", "number")}, rest=" HAVING count(*) > 0", is_grouped=True)


def _sort_by_count(pipeline: Pipeline, given: Any) -> None:
    group(pipeline, {"_id": given, "count": {"$sum": 1}})
    _sort(pipeline, {"count": -1})


def _unwind(pipeline: Pipeline, given: Any) -> None:
    asked = given if isinstance(given, Mapping) else {"path": given}
    text = asked.get("path")
    if not isinstance(text, str) or not text.startswith("$"):
        raise InvalidInput(f"{text!r} names no field", 'For example {"$unwind": "$data.readings.list"}.')
    path = field_path(text)
    found = leaf(pipeline.document, path).shown
    values, kind = found.sql, found.kind
    if kind == "array":
        kind = "text" if path == ("tags",) else "any"
    elif kind == "json":
        values = (
            f"CASE json_type({found.sql}) WHEN 'ARRAY' THEN json_extract({found.sql}, '$[*]') "
            f"WHEN 'NULL' THEN [] ELSE [{found.sql}] END"
        )
    else:
        values = f"[{found.sql}]"
    if found.kind != "array":  # a value alone is its own list, one that is missing none
        values = f"CASE WHEN {found.sql} IS NULL THEN [] ELSE {values} END"
    numbers = f"range(len({values}))"
    if asked.get("preserveNullAndEmptyArrays"):
        numbers = f"CASE WHEN len({values}) > 0 THEN {numbers} ELSE [NULL] END"
        values = f"CASE WHEN len({values}) > 0 THEN {values} ELSE [NULL] END"
    one = Leaf(f"unnest({values})", kind)
    made = put(pipeline.document, path, one)
    if "includeArrayIndex" in asked:
        made = put(
            made, field_path(str(asked["includeArrayIndex"])), Leaf(f"unnest({numbers})", "number", is_kept=True)
        )
    pipeline.select(made)


def _replace_root(pipeline: Pipeline, given: Any) -> None:
    asked = as_document("$replaceRoot", given)
    if "newRoot" not in asked:
        raise InvalidInput("it has no newRoot", 'For example {"newRoot": "$data.readings"}.')
    _replace_with(pipeline, asked["newRoot"])


def _replace_with(pipeline: Pipeline, given: Any) -> None:
    found = _part(pipeline.document, given) or root(value(pipeline.document, given))
    if found is None:
        raise InvalidInput(f"{given!r} is no document", 'For example "$data.readings".')
    pipeline.select(found)


def _part(document: Document | Data, given: Any) -> Data | None:
    """A part of the reading keeps its typed keys."""
    if not isinstance(given, str) or not given.startswith("$data.") or not isinstance(document, dict):
        return None
    data = document.get("data")
    return within(data, field_path(given)[1:]) if isinstance(data, Data) else None


_STAGES: Mapping[str, Callable[[Pipeline, Any], None]] = {
    "$match": _match,
    "$project": _project,
    "$addFields": _add_fields,
    "$set": _add_fields,
    "$unset": _unset,
    "$group": group,
    "$sort": _sort,
    "$limit": _limit,
    "$skip": _skip,
    "$sample": _sample,
    "$count": _count,
    "$sortByCount": _sort_by_count,
    "$unwind": _unwind,
    "$bucket": bucket,
    "$bucketAuto": bucket_auto,
    "$fill": fill,
    "$setWindowFields": set_window_fields,
    "$replaceRoot": _replace_root,
    "$replaceWith": _replace_with,
}


_ONE_TABLE = "A pipeline reads the readings alone; to join them with pictures or themselves, ask in SQL."
_NOTHING_IS_WRITTEN = "Queries change nothing; to keep what a pipeline finds, make it a data pipeline."
_REFUSED = {
    **dict.fromkeys(("$lookup", "$graphLookup", "$unionWith"), _ONE_TABLE),
    **dict.fromkeys(("$out", "$merge"), _NOTHING_IS_WRITTEN),
    "$facet": "Ask each of its pipelines by itself.",
}


# --- parts -----------------------------------------------------------------------------------------------------------


def _texts(given: Any) -> Iterator[str]:
    if isinstance(given, str):
        yield given
    elif isinstance(given, Mapping):
        for key, one in given.items():
            yield str(key)
            yield from _texts(one)
    elif isinstance(given, (list, tuple)):
        for one in given:
            yield from _texts(one)


def _conjuncts(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, one in given.items():
        if key == "$and" and isinstance(one, (list, tuple)):
            for inner in one:
                if isinstance(inner, Mapping):
                    yield from _conjuncts(inner)
        else:
            yield str(key), one
