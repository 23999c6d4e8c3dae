"""`$fill` and `$setWindowFields`: a document gets values from those before and behind it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gleaner.app.errors import InvalidInput
from gleaner.app.lake.documents import Leaf, as_leaf, leaf, put, shown_leaves
from gleaner.app.lake.expressions import either, field_path, scalar, value
from gleaner.app.lake.pipeline import Pipeline, as_document

_SECONDS = {"millisecond": 0.001, "second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_BEFORE = "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
_BEHIND = "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING"


def fill(pipeline: Pipeline, given: Any) -> None:
    asked = as_document("$fill", given)
    by = asked.get("partitionBy", {key: f"${key}" for key in asked.get("partitionByFields", ())})
    series = _Series(pipeline, by or None, asked.get("sortBy"))
    made = pipeline.document
    for key, one in as_document("output", asked.get("output")).items():
        path = field_path(str(key))
        found = _without_null(leaf(pipeline.document, path))
        if isinstance(one, Mapping) and "value" in one:
            filled = either([f"{found.sql} IS NOT NULL"], [found], scalar(pipeline.document, one["value"]))
        elif isinstance(one, Mapping) and one.get("method") in _FILLERS:
            filled = _FILLERS[one["method"]](found, series)
        else:
            raise InvalidInput(
                f"{key} is filled with {one!r}", 'Write {"value": …}, or {"method": "linear"} or "locf".'
            )
        made = put(made, path, filled)
    pipeline.select(made)


def set_window_fields(pipeline: Pipeline, given: Any) -> None:
    asked = as_document("$setWindowFields", given)
    series = _Series(pipeline, asked.get("partitionBy"), asked.get("sortBy"))
    made = pipeline.document
    for key, one in as_document("output", asked.get("output")).items():
        operators = [name for name in one if name != "window"] if isinstance(one, Mapping) else []
        if len(operators) != 1 or operators[0] not in {*_OVER, *_ALONE}:
            raise InvalidInput(
                f"{key} is not calculated by a known operator", f"There are: {' '.join(sorted({*_OVER, *_ALONE}))}."
            )
        name, what = operators[0], one[operators[0]]
        if name in _ALONE:
            found = _ALONE[name](pipeline, what, series)
        else:
            found = _OVER[name](pipeline, what, series.over(_frame(one.get("window"), series)))
        made = put(made, field_path(str(key)), found)
    pipeline.select(made)


class _Series:
    """The documents that belong together, in their order."""

    def __init__(self, pipeline: Pipeline, by: Any, sort: Any) -> None:
        found = value(pipeline.document, by)
        keys = [one.sql for one in shown_leaves(found) if one.sql != "NULL"]
        self._parted = f"PARTITION BY {', '.join(keys)} " if keys else ""
        self.sorted: list[tuple[Leaf, str]] = []
        for key, direction in (sort or {}).items():
            if direction not in (1, -1):
                raise InvalidInput(f"{key} is sorted by {direction!r}", "1 is ascending, -1 descending.")
            at = leaf(pipeline.document, field_path(str(key)))
            self.sorted.append((at, "ASC" if direction == 1 else "DESC"))

    def over(self, frame: str = "") -> str:
        order = ", ".join(
            f"{_key(one)} {direction} NULLS {'FIRST' if direction == 'ASC' else 'LAST'}"
            for one, direction in self.sorted
        )
        return f" OVER ({self._parted}{f'ORDER BY {order} ' if order else ''}{frame})"

    def ordered(self, name: str) -> str:
        if not self.sorted:
            raise InvalidInput(f"{name} needs sortBy", 'For example "sortBy": {"time_received": 1}.')
        return self.over()

    def place(self, name: str) -> str:
        """The one value that the documents are sorted by, as a number."""
        if len(self.sorted) != 1:
            raise InvalidInput(f"{name} needs sortBy with one key", 'For example "sortBy": {"time_received": 1}.')
        ((one, _),) = self.sorted
        return f"(epoch_us({one.sql}) / 1e6)" if one.kind == "time" else one.number


def _key(one: Leaf) -> str:
    return one.number if one.kind == "json" else one.sql


def _without_null(one: Leaf) -> Leaf:
    """A null in JSON is a value; here it is one that is missing."""
    shown = one.shown
    if shown.kind != "json":
        return shown
    return Leaf(f"(CASE WHEN ({shown.sql})::VARCHAR <> 'null' THEN {shown.sql} END)", "json")


def _locf(found: Leaf, series: _Series) -> Leaf:
    series.ordered("locf")
    return Leaf(f"last_value({found.sql} IGNORE NULLS){series.over(_BEFORE)}", found.kind)


def _linear(found: Leaf, series: _Series) -> Leaf:
    place, number = series.place("linear"), found.number
    known = f"(CASE WHEN {number} IS NOT NULL THEN {place} END)"
    ends = [
        f"{function}({one} IGNORE NULLS){series.over(frame)}"
        for one in (number, known)
        for function, frame in (("last_value", _BEFORE), ("first_value", _BEHIND))
    ]
    low, high, start, end = ends
    share = f"({place} - {start}) / nullif({end} - {start}, 0)"
    return Leaf(f"coalesce({number}, {low} + ({high} - {low}) * {share})", "number")


_FILLERS: Mapping[str, Callable[[Leaf, _Series], Leaf]] = {"locf": _locf, "linear": _linear}


def _frame(given: Any, series: _Series) -> str:
    """The neighbours that count; without a window all of the series."""
    if given is None:
        return "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
    asked = as_document("window", given)
    name = "documents" if "documents" in asked else "range"
    ends = asked.get(name)
    if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != 2:
        raise InvalidInput("its window has no two ends", 'For example {"documents": [-2, "current"]}.')
    series.ordered("a window")
    unit = asked.get("unit")
    if name == "range":
        series.place("a window's range")
        if (series.sorted[0][0].kind == "time") is (unit is None) or (unit is not None and unit not in _SECONDS):
            raise InvalidInput(
                "the unit of its range does not fit what it is sorted by", f"For times: {', '.join(_SECONDS)}."
            )
    words = [_end(one, is_last=at == 1, unit=unit, is_range=name == "range") for at, one in enumerate(ends)]
    return f"{'ROWS' if name == 'documents' else 'RANGE'} BETWEEN {words[0]} AND {words[1]}"


def _end(given: Any, *, is_last: bool, unit: str | None, is_range: bool) -> str:
    if given == "unbounded":
        return f"UNBOUNDED {'FOLLOWING' if is_last else 'PRECEDING'}"
    if given == "current":
        return "CURRENT ROW"
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool) and abs(given) < 2**31
    if not is_number or (not is_range and given != int(given)):
        raise InvalidInput(f"{given!r} is no end of a window", 'Write a number, "current" or "unbounded".')
    size = f"INTERVAL '{abs(given) * _SECONDS[unit]} seconds'" if unit else repr(abs(given if is_range else int(given)))
    return f"{size} {'FOLLOWING' if given > 0 else 'PRECEDING'}"


def _numbers(function: str, otherwise: str = "") -> Callable[[Pipeline, Any, str], Leaf]:
    def made(pipeline: Pipeline, what: Any, over: str) -> Leaf:
        text = f"{function}({scalar(pipeline.document, what).number}){over}"
        return Leaf(f"coalesce({text}, {otherwise})" if otherwise else text, "number", is_kept=True)

    return made


def _values(function: str) -> Callable[[Pipeline, Any, str], Leaf]:
    def made(pipeline: Pipeline, what: Any, over: str) -> Leaf:
        one = scalar(pipeline.document, what)
        if function in ("min", "max") and one.kind == "json":
            return Leaf(f"{function}({one.number}){over}", "number", is_kept=True)
        one = one.shown if function not in ("min", "max") else one
        return Leaf(f"{function}({one.sql}){over}", "array" if function == "list" else one.kind, is_kept=True)

    return made


_OVER: Mapping[str, Callable[[Pipeline, Any, str], Leaf]] = {
    "$sum": _numbers("sum", "0"),
    "$avg": _numbers("avg"),
    "$stdDevPop": _numbers("stddev_pop"),
    "$stdDevSamp": _numbers("stddev_samp"),
    "$count": lambda pipeline, what, over: Leaf(f"count(*){over}", "number"),
    "$min": _values("min"),
    "$max": _values("max"),
    "$first": _values("first_value"),
    "$last": _values("last_value"),
    "$push": _values("list"),
}


def _shift(pipeline: Pipeline, what: Any, series: _Series) -> Leaf:
    asked = as_document("$shift", what)
    by = asked.get("by")
    if not isinstance(by, int) or isinstance(by, bool) or abs(by) >= 2**31:
        raise InvalidInput(f"$shift by {by!r}", "by is a whole number: -1 is the document before.")
    one = scalar(pipeline.document, asked.get("output")).shown
    moved = f"{'lead' if by >= 0 else 'lag'}({{}}, {abs(by)}){series.ordered('$shift')}"
    if asked.get("default") is None:
        return Leaf(moved.format(one.sql), one.kind, is_kept=True)
    is_there = f"{moved.format('1')} IS NOT NULL"
    found = either([is_there], [Leaf(moved.format(one.sql), one.kind)], scalar(pipeline.document, asked["default"]))
    return replace(found, is_kept=True)


def _function(function: str) -> Callable[[Pipeline, Any, _Series], Leaf]:
    return lambda pipeline, what, series: Leaf(f"{function}(){series.ordered('$' + function)}", "number")


def _filler(name: str) -> Callable[[Pipeline, Any, _Series], Leaf]:
    return lambda pipeline, what, series: _FILLERS[name](_without_null(as_leaf(value(pipeline.document, what))), series)


_ALONE: Mapping[str, Callable[[Pipeline, Any, _Series], Leaf]] = {
    "$shift": _shift,
    "$rank": _function("rank"),
    "$denseRank": _function("dense_rank"),
    "$documentNumber": _function("row_number"),
    "$locf": _filler("locf"),
    "$linearFill": _filler("linear"),
}
