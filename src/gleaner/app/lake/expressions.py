"""MQL's expressions and `$match` conditions as SQL. Pure; every name and value goes through quoting."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bson

from gleaner.app.errors import InvalidInput
from gleaner.app.lake import schema
from gleaner.app.lake.documents import Data, Document, Leaf, as_leaf, constant, leaf, merged, resolve

_COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<=", "$eq": "=", "$ne": "<>"}
_UNITS = frozenset(("year", "quarter", "month", "week", "day", "hour", "minute", "second", "millisecond"))
_PARTS = {
    "$year": "year",
    "$month": "month",
    "$dayOfMonth": "day",
    "$dayOfYear": "dayofyear",
    "$hour": "hour",
    "$minute": "minute",
    "$second": "second",
    "$week": "week",
}


def value(document: Document | Data, given: Any) -> Any:
    """An expression of `$project`, `$addFields` or `$group` as a Leaf, Data or nested document."""
    if given in ("$$ROOT", "$$CURRENT"):
        return document
    if isinstance(given, str) and given.startswith("$"):
        return resolve(document, field_path(given))
    if isinstance(given, Mapping):
        operators = [key for key in given if str(key).startswith("$")]
        if not operators:
            return {str(key): value(document, one) for key, one in given.items()}
        if len(given) != 1:
            raise InvalidInput(f"{', '.join(map(str, given))} cannot stand together", "Use one operator a document.")
        return _operator(document, operators[0], given[operators[0]])
    return constant(given)


def scalar(document: Document | Data, given: Any) -> Leaf:
    return as_leaf(value(document, given))


def field_path(text: str) -> schema.Path:
    text = text.removeprefix("$$ROOT.").removeprefix("$$CURRENT.")
    if text.startswith("$$"):
        raise InvalidInput(f"The variable {text} is not known here", "Fields are named like $data.readings.temp.")
    path = tuple(text.lstrip("$").split("."))
    if not all(path):
        raise InvalidInput(f"{text} names no field", "Fields are named like $data.readings.temp.")
    return path


# --- $match ----------------------------------------------------------------------------------------------------------


def condition(document: Document | Data, given: Any) -> str:
    """SQL that is true for the documents that match."""
    if not isinstance(given, Mapping):
        raise InvalidInput("$match takes a document of conditions", 'For example {"part_id": "…"}.')
    parts = []
    for key, wanted in given.items():
        if key in ("$and", "$or", "$nor"):
            inner = [condition(document, one) for one in _list(key, wanted)] or ["TRUE"]
            joined = (" AND " if key == "$and" else " OR ").join(f"({one})" for one in inner)
            parts.append(f"NOT ({joined})" if key == "$nor" else joined)
        elif key == "$expr":
            parts.append(scalar(document, wanted).truth)
        elif str(key).startswith("$"):
            raise InvalidInput(f"$match does not know {key}", "It knows $and, $or, $nor and $expr.")
        else:
            parts.append(_field(leaf(document, field_path(str(key))), wanted))
    return " AND ".join(f"({one})" for one in parts) or "TRUE"


def _field(found: Leaf, wanted: Any) -> str:
    if isinstance(wanted, (re.Pattern, bson.Regex)):
        flags = "i" if wanted.flags & re.IGNORECASE else ""
        return _matches(found, str(wanted.pattern), flags)
    if not (isinstance(wanted, Mapping) and any(str(key).startswith("$") for key in wanted)):
        return _is(found, wanted)
    parts = [_test(found, str(key), one, wanted) for key, one in wanted.items() if key != "$options"]
    return " AND ".join(f"({one})" for one in parts)


def _test(found: Leaf, operator: str, wanted: Any, whole: Mapping[str, Any]) -> str:
    if operator == "$eq":
        return _is(found, wanted)
    if operator == "$ne":
        return f"NOT ({_is(found, wanted)})"
    if operator in _COMPARISONS:
        return f"coalesce({_compared(found, _COMPARISONS[operator], wanted)}, false)"
    if operator in ("$in", "$nin"):
        any_of = " OR ".join(_is(found, one) for one in _list(operator, wanted)) or "FALSE"
        return any_of if operator == "$in" else f"NOT ({any_of})"
    if operator == "$exists":
        return f"{found.shown.sql} IS {'NOT ' if wanted else ''}NULL"
    if operator == "$not":
        return f"NOT ({_field(found, wanted)})"
    if operator == "$regex":
        return _matches(found, str(getattr(wanted, "pattern", wanted)), str(whole.get("$options", "")))
    raise InvalidInput(
        f"$match does not know {operator}", "It knows $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $not, $regex."
    )


def _is(found: Leaf, wanted: Any) -> str:
    """Never NULL, so that it can be negated."""
    if wanted is None:
        return f"({found.shown.sql} IS NULL OR {found.shown.sql}::VARCHAR = 'null')"
    if found.kind == "array" and not isinstance(wanted, list):
        return f"coalesce(list_contains({found.sql}, {constant(wanted).sql}), false)"
    return f"coalesce({_compared(found, '=', wanted)}, false)"


def _compared(found: Leaf, operator: str, wanted: Any) -> str:
    """Values of different kinds are never equal, greater or less, as in Mongo."""
    other = constant(wanted)
    if isinstance(wanted, bool):
        mine = found.sql if found.kind == "bool" else f"TRY_CAST({found.shown.sql} AS BOOLEAN)"
        return f"{mine} {operator} {other.sql}" if found.kind in ("bool", "json") else "FALSE"
    if isinstance(wanted, (int, float)):
        return f"{found.number} {operator} {other.sql}" if found.kind in ("number", "json") else "FALSE"
    if isinstance(wanted, str):
        return f"{found.shown.text} {operator} {other.sql}"
    if isinstance(wanted, dt.datetime):
        return f"{found.time} {operator} {other.sql}"
    return f"{found.shown.sql}::JSON {operator} {other.sql}"


def _matches(found: Leaf, pattern: str, options: str) -> str:
    flags = "".join(flag for flag in "ims" if flag in options)
    return f"coalesce(regexp_matches({found.shown.text}, {schema.literal(pattern)}, '{flags}'), false)"


def _list(name: str, given: Any) -> Sequence[Any]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise InvalidInput(f"{name} takes a list", f'For example {{"{name}": […]}}.')
    return given


# --- operators -------------------------------------------------------------------------------------------------------


def _operator(document: Document | Data, name: str, given: Any) -> Any:
    if name == "$literal":
        return constant(given)
    if name == "$mergeObjects":
        return merged([value(document, one) for one in _list(name, given)])
    if made := _SPECIAL.get(name):
        return made(document, given)
    arguments = given if isinstance(given, (list, tuple)) else [given]
    leaves = [scalar(document, one) for one in arguments]
    if name in _COMPARISONS:
        return _compare_leaves(name, leaves)
    if name in _PARTS:
        return Leaf(f"date_part('{_PARTS[name]}', {_only(name, leaves).time})::BIGINT", "number")
    if simple := _SIMPLE.get(name):
        fewest, most, make = simple
        if not fewest <= len(leaves) <= most:
            raise InvalidInput(f"{name} got {len(leaves)} values", f"It takes {fewest} to {most}.")
        return make(leaves)
    known = sorted({"$mergeObjects", *_SIMPLE, *_SPECIAL, *_COMPARISONS, *_PARTS, "$literal"})
    raise InvalidInput(f"The operator {name} is not known here", f"There are: {' '.join(known)}.")


def _compare_leaves(name: str, leaves: list[Leaf]) -> Leaf:
    if len(leaves) != 2:
        raise InvalidInput(f"{name} got {len(leaves)} values, expected 2", f'For example {{"{name}": ["$a", 1]}}.')
    one, two = leaves
    kinds = {one.kind, two.kind}
    for kind, read in (("number", "number"), ("time", "time"), ("text", "text")):
        if kind in kinds:
            return Leaf(f"coalesce({getattr(one, read)} {_COMPARISONS[name]} {getattr(two, read)}, false)", "bool")
    if name in ("$eq", "$ne"):
        said = f"({one.shown.sql})::VARCHAR IS NOT DISTINCT FROM ({two.shown.sql})::VARCHAR"
        return Leaf(said if name == "$eq" else f"NOT ({said})", "bool")
    return Leaf(f"coalesce({one.number} {_COMPARISONS[name]} {two.number}, false)", "bool")


def _only(name: str, leaves: list[Leaf]) -> Leaf:
    if len(leaves) != 1:
        raise InvalidInput(
            f"{name} got {len(leaves)} values, expected 1", f'For example {{"{name}": "$time_received"}}.'
        )
    return leaves[0]


def _joined(operator: str) -> Callable[[list[Leaf]], Leaf]:
    return lambda leaves: Leaf("(" + f" {operator} ".join(one.number for one in leaves) + ")", "number")


def _call(function: str) -> Callable[[list[Leaf]], Leaf]:
    return lambda leaves: Leaf(f"{function}({', '.join(one.number for one in leaves)})", "number")


def _logic(operator: str) -> Callable[[list[Leaf]], Leaf]:
    return lambda leaves: Leaf("(" + f" {operator} ".join(one.truth for one in leaves) + ")", "bool")


def _subtract(leaves: list[Leaf]) -> Leaf:
    one, two = leaves
    if one.kind == two.kind == "time":
        return Leaf(f"(epoch_us({one.sql}) - epoch_us({two.sql})) / 1000.0", "number")
    return Leaf(f"({one.number} - {two.number})", "number")


def _as_text(one: Leaf) -> str:
    if one.kind == "json":
        return f"({one.sql} ->> '$')"
    return f"strftime({one.sql}, '%Y-%m-%dT%H:%M:%S.%gZ')" if one.kind == "time" else f"({one.shown.sql})::VARCHAR"


def _first_of(leaves: list[Leaf]) -> Leaf:
    return either([f"{leaves[0].shown.sql} IS NOT NULL"], leaves[:1], leaves[1])


def either(tests: list[str], results: list[Leaf], otherwise: Leaf) -> Leaf:
    """CASE over values that may be of different kinds."""
    kinds = {one.kind for one in (*results, otherwise) if one.kind != "any"}
    kind = kinds.pop() if len(kinds) == 1 else "json"
    shown = [one.sql if one.kind == kind else f"to_json({one.shown.sql})" for one in (*results, otherwise)]
    cases = " ".join(f"WHEN {test} THEN {one}" for test, one in zip(tests, shown, strict=False))
    return Leaf(f"(CASE {cases} ELSE {shown[-1]} END)", kind)


_SIMPLE: Mapping[str, tuple[int, int, Callable[[list[Leaf]], Leaf]]] = {
    "$add": (1, 99, _joined("+")),
    "$multiply": (1, 99, _joined("*")),
    "$subtract": (2, 2, _subtract),
    "$divide": (2, 2, lambda a: Leaf(f"({a[0].number} / nullif({a[1].number}, 0))", "number")),
    "$mod": (2, 2, lambda a: Leaf(f"fmod({a[0].number}, nullif({a[1].number}, 0))", "number")),
    "$abs": (1, 1, _call("abs")),
    "$ceil": (1, 1, _call("ceil")),
    "$floor": (1, 1, _call("floor")),
    "$sqrt": (1, 1, lambda a: Leaf(f"CASE WHEN {a[0].number} >= 0 THEN sqrt({a[0].number}) END", "number")),
    "$pow": (2, 2, _call("pow")),
    "$round": (1, 2, lambda a: Leaf(f"round({a[0].number}, {f'({a[1].number})::INT' if a[1:] else '0'})", "number")),
    "$trunc": (1, 1, _call("trunc")),
    "$and": (0, 99, lambda a: _logic("AND")(a) if a else Leaf("TRUE", "bool")),
    "$or": (0, 99, lambda a: _logic("OR")(a) if a else Leaf("FALSE", "bool")),
    "$not": (1, 1, lambda a: Leaf(f"(NOT {a[0].truth})", "bool")),
    "$concat": (1, 99, lambda a: Leaf("(" + " || ".join(one.text for one in a) + ")", "text")),
    "$toLower": (1, 1, lambda a: Leaf(f"lower({a[0].text})", "text")),
    "$toUpper": (1, 1, lambda a: Leaf(f"upper({a[0].text})", "text")),
    "$toString": (1, 1, lambda a: Leaf(_as_text(a[0]), "text")),
    "$toDouble": (1, 1, lambda a: Leaf(f"TRY_CAST({_as_text(a[0])} AS DOUBLE)", "number")),
    "$toInt": (1, 1, lambda a: Leaf(f"trunc(TRY_CAST({_as_text(a[0])} AS DOUBLE))::BIGINT", "number")),
    "$toDate": (1, 1, lambda a: Leaf(a[0].time, "time")),
    "$ifNull": (2, 2, _first_of),
    "$size": (
        1,
        1,
        lambda a: Leaf(f"len({a[0].sql})" if a[0].kind == "array" else f"json_array_length({a[0].sql})", "number"),
    ),
    "$arrayElemAt": (2, 2, lambda a: Leaf(f"json_extract(to_json({a[0].sql}), ({a[1].number})::BIGINT)", "json")),
}


def _cond(document: Document | Data, given: Any) -> Leaf:
    if isinstance(given, Mapping):
        given = [given.get("if"), given.get("then"), given.get("else")]
    test, then, otherwise = (scalar(document, one) for one in given)
    return either([test.truth], [then], otherwise)


def _switch(document: Document | Data, given: Any) -> Leaf:
    branches = given["branches"]
    tests = [scalar(document, one["case"]).truth for one in branches]
    return either(tests, [scalar(document, one["then"]) for one in branches], scalar(document, given.get("default")))


def _date_trunc(document: Document | Data, given: Any) -> Leaf:
    unit, size = str(given.get("unit", "")), given.get("binSize", 1)
    if unit not in _UNITS or not isinstance(size, int) or not 1 <= size <= 100_000:
        raise InvalidInput(f"$dateTrunc cannot cut to {size} {unit}", f"Units: {', '.join(sorted(_UNITS))}.")
    moment = scalar(document, given.get("date")).time
    if size == 1:
        return Leaf(f"date_trunc('{unit}', {moment})", "time")
    return Leaf(f"time_bucket(INTERVAL '{size} {unit}s', {moment}, TIMESTAMP '2000-01-01')", "time")


def _date_to_string(document: Document | Data, given: Any) -> Leaf:
    form = str(given.get("format", "%Y-%m-%dT%H:%M:%S.%LZ")).replace("%L", "%g")
    return Leaf(f"strftime({scalar(document, given.get('date')).time}, {schema.literal(form)})", "text")


def _in(document: Document | Data, given: Any) -> Leaf:
    found, among = given
    one = scalar(document, found)
    if isinstance(among, (list, tuple)):
        return Leaf("(" + (" OR ".join(_is(one, each) for each in among) or "FALSE") + ")", "bool")
    many = scalar(document, among)
    texts = f"{many.sql}::VARCHAR[]" if many.kind == "array" else f"TRY_CAST({many.sql} AS VARCHAR[])"
    return Leaf(f"coalesce(list_contains({texts}, {_as_text(one)}), false)", "bool")


def _described(name: str, make: Callable[[Document | Data, Any], Leaf]) -> Callable[[Document | Data, Any], Leaf]:
    def checked(document: Document | Data, given: Any) -> Leaf:
        try:
            return make(document, given)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InvalidInput(
                f"{name} is not written as it should be: {given}", "See Mongo's description of it."
            ) from None

    return checked


_SPECIAL = {
    name: _described(name, make)
    for name, make in {
        "$cond": _cond,
        "$switch": _switch,
        "$dateTrunc": _date_trunc,
        "$dateToString": _date_to_string,
        "$in": _in,
    }.items()
}
