"""`$group`, `$bucket` and `$bucketAuto`: many documents become one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from gleaner.app.errors import InvalidInput
from gleaner.app.lake.documents import Document, Leaf, constant, leaf, mapped, put, shown_leaves
from gleaner.app.lake.expressions import either, scalar, value
from gleaner.app.lake.pipeline import Pipeline, as_document, whole_number

_HIDDEN, _PLACE = ("\0key",), ("\0place",)
"""Keys that no pipeline can name."""
_READ = frozenset(("number", "text", "time"))


def group(pipeline: Pipeline, given: Any) -> None:
    asked = dict(as_document("$group", given))
    if "_id" not in asked:
        raise InvalidInput("it has no _id", 'Group by a field ("_id": "$component_name"), or by nothing ("_id": null).')
    collect(pipeline, value(pipeline.document, asked.pop("_id")), asked)


def collect(pipeline: Pipeline, by: Any, asked: Mapping[str, Any]) -> None:
    """One document for each value of `by`, with these accumulators. Keeps the pipeline's order if it names one."""
    by = mapped(by, lambda one: Leaf(one.shown.sql, one.shown.kind, is_kept=True))
    keys = [one.sql for one in shown_leaves(by) if one.sql != "NULL"]
    made: Document = {"_id": by, **accumulated(pipeline, asked)}
    # Grouped by nothing, no documents still make none, as in Mongo.
    rest = f" GROUP BY {', '.join(dict.fromkeys(keys))}" if keys else " HAVING count(*) > 0"
    pipeline.select(made, rest=rest, is_grouped=True)


def accumulated(pipeline: Pipeline, asked: Mapping[str, Any]) -> Document:
    return {str(key): _accumulated(pipeline, str(key), one) for key, one in asked.items()}


def bucket(pipeline: Pipeline, given: Any) -> None:
    asked = as_document("$bucket", given)
    borders = asked.get("boundaries")
    if "groupBy" not in asked or not isinstance(borders, (list, tuple)) or len(borders) < 2:
        raise InvalidInput(
            "it needs groupBy and at least two boundaries",
            'For example {"groupBy": "$data.readings.temp", "boundaries": [0, 20, 40], "default": "other"}.',
        )
    found = scalar(pipeline.document, asked["groupBy"])
    limits = [constant(one) for one in borders]
    kinds = {one.kind for one in limits}
    if len(kinds) != 1 or (kind := kinds.pop()) not in _READ or any(a >= b for a, b in pairwise(borders)):
        raise InvalidInput("its boundaries are not ascending values of one kind", "Sort them.")
    read = getattr(found, kind)
    tests = [f"{read} >= {low.sql} AND {read} < {high.sql}" for low, high in pairwise(limits)]
    number = " ".join(f"WHEN {test} THEN {at}" for at, test in enumerate(tests))
    # Without a default a value outside is an error, as in Mongo.
    outside = (
        str(len(tests))
        if "default" in asked
        else "error('$bucket: a document is in none of the buckets; name a default')"
    )
    pipeline.select(put(pipeline.document, _HIDDEN, Leaf(f"(CASE {number} ELSE {outside} END)", "number")))
    place = leaf(pipeline.document, _HIDDEN).sql
    ids = [f"{place} = {at}" for at in range(len(tests))]
    otherwise = constant(asked.get("default"))
    by = either(ids, limits[:-1], otherwise)
    made: Document = {"_id": Leaf(by.sql, by.kind, is_kept=True), **accumulated(pipeline, _output(asked))}
    pipeline.order = [(place, "ASC")]
    pipeline.select(made, rest=f" GROUP BY {place}")


def bucket_auto(pipeline: Pipeline, given: Any) -> None:
    """About as many documents in each; equal values are never parted. Documents without the value come first."""
    asked = as_document("$bucketAuto", given)
    if "groupBy" not in asked or "granularity" in asked:
        raise InvalidInput("it needs groupBy, and knows no granularity", 'For example {"groupBy": "$a", "buckets": 4}.')
    count = whole_number("$bucketAuto", asked.get("buckets"), 1)
    found = scalar(pipeline.document, asked["groupBy"])
    key = Leaf(found.number, "number") if found.kind in ("json", "number") else found.shown
    pipeline.select(put(pipeline.document, _HIDDEN, key))
    hidden = leaf(pipeline.document, _HIDDEN)
    size = f"greatest(1, round(count(*) OVER () / {count}))"
    place = f"least({count - 1}, (rank() OVER (ORDER BY {hidden.sql} NULLS FIRST) - 1) // {size})"
    pipeline.select(put(pipeline.document, _PLACE, Leaf(place, "number")))
    place, hidden = leaf(pipeline.document, _PLACE).sql, leaf(pipeline.document, _HIDDEN)
    outputs = accumulated(pipeline, _output(asked))
    ends: Document = {name: Leaf(f"{name}({hidden.sql})", hidden.kind, is_kept=True) for name in ("min", "max")}
    pipeline.order = [(place, "ASC")]
    pipeline.select({"_id": ends, **outputs}, rest=f" GROUP BY {place}")
    ((by, _),) = pipeline.order
    low, high = leaf(pipeline.document, ("_id", "min")), leaf(pipeline.document, ("_id", "max"))
    next_low = Leaf(f"coalesce(lead({low.sql}) OVER (ORDER BY {by}), {high.sql})", low.kind, is_kept=True)
    pipeline.select(put(pipeline.document, ("_id", "max"), next_low))


def _output(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    return asked["output"] if isinstance(asked.get("output"), Mapping) else {"count": {"$sum": 1}}


def _accumulated(pipeline: Pipeline, name: str, given: Any) -> Leaf:
    if not isinstance(given, Mapping) or len(given) != 1 or next(iter(given)) not in _ACCUMULATORS:
        raise InvalidInput(
            f"{name} is not collected by a known operator", f"There are: {' '.join(sorted(_ACCUMULATORS))}."
        )
    ((operator, what),) = given.items()
    one = Leaf("1", "number") if operator == "$count" else scalar(pipeline.document, what)
    return _ACCUMULATORS[operator](one, pipeline.ordered())


def _numbers(function: str, otherwise: str = "") -> Callable[[Leaf, str], Leaf]:
    def made(one: Leaf, order: str) -> Leaf:
        text = f"{function}({one.number})"
        return Leaf(f"coalesce({text}, {otherwise})" if otherwise else text, "number", is_kept=True)

    return made


def _extreme(function: str) -> Callable[[Leaf, str], Leaf]:
    def made(one: Leaf, order: str) -> Leaf:
        if one.kind == "json":  # numbers are what sensors say; text is compared where a key has its own column
            return Leaf(f"{function}({one.number})", "number", is_kept=True)
        return Leaf(f"{function}({one.sql})", one.kind, is_kept=True)

    return made


def _picked(function: str) -> Callable[[Leaf, str], Leaf]:
    return lambda one, order: Leaf(f"{function}({one.shown.sql}{order})", one.shown.kind, is_kept=True)


def _listed(distinct: str) -> Callable[[Leaf, str], Leaf]:
    def made(one: Leaf, order: str) -> Leaf:
        text = one.shown.sql
        order = "" if distinct else order
        return Leaf(
            f"coalesce(list({distinct}{text}{order}) FILTER (WHERE {text} IS NOT NULL), [])", "array", is_kept=True
        )

    return made


_ACCUMULATORS: Mapping[str, Callable[[Leaf, str], Leaf]] = {
    "$sum": _numbers("sum", "0"),
    "$avg": _numbers("avg"),
    "$stdDevPop": _numbers("stddev_pop"),
    "$stdDevSamp": _numbers("stddev_samp"),
    "$count": lambda one, order: Leaf("count(*)", "number"),
    "$min": _extreme("min"),
    "$max": _extreme("max"),
    "$first": _picked("first"),
    "$last": _picked("last"),
    "$push": _listed(""),
    "$addToSet": _listed("DISTINCT "),
}
