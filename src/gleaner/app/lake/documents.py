"""Documents whose shape is known while a pipeline is compiled: which field is which SQL expression. Pure."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gleaner.app.errors import InvalidInput
from gleaner.app.lake import schema
from gleaner.app.lake.schema import Path

Kind = Literal["number", "text", "bool", "time", "json", "array", "any"]
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
KIND_OF_TYPE: Mapping[str, Kind] = {"DOUBLE": "number", "VARCHAR": "text", "BOOLEAN": "bool"}


@dataclass(frozen=True)
class Leaf:
    """One value. `whole` is it as JSON where `sql` says only its numbers; `is_kept`: shown also when it is null."""

    sql: str
    kind: Kind
    whole: str = ""
    is_kept: bool = False

    @property
    def number(self) -> str:
        if self.kind == "bool":
            return "NULL"
        return self.sql if self.kind == "number" else f"TRY_CAST({self.sql} AS DOUBLE)"

    @property
    def text(self) -> str:
        if self.kind in ("json", "any"):
            return f"(CASE json_type({self.sql}) WHEN 'VARCHAR' THEN ({self.sql}) ->> '$' END)"
        return self.sql if self.kind == "text" else "NULL"

    @property
    def time(self) -> str:
        return self.sql if self.kind == "time" else f"TRY_CAST({self.text} AS TIMESTAMP)"

    @property
    def truth(self) -> str:
        """As Mongo's conditions see it: false, 0 and null are false."""
        if self.kind == "bool":
            return f"coalesce({self.sql}, false)"
        if self.kind == "number":
            return f"coalesce({self.sql} <> 0, false)"
        if self.kind == "json":
            return f"coalesce(({self.sql})::VARCHAR NOT IN ('false', '0', '0.0', 'null'), false)"
        return f"({self.sql} IS NOT NULL)"

    @property
    def shown(self) -> Leaf:
        """For where the value itself is wanted, not to be calculated with."""
        return Leaf(self.whole, "json", is_kept=self.is_kept) if self.whole else self


@dataclass(frozen=True)
class Data:
    """The reading as it came: JSON, with typed keys, and what the pipeline put into or took out of it."""

    base: Leaf
    typed: Mapping[Path, Leaf] = field(default_factory=dict)
    changed: Mapping[Path, Leaf] = field(default_factory=dict)
    removed: tuple[Path, ...] = ()


Value = "Leaf | Data | dict[str, Value]"
Document = dict[str, Any]


def resolve(document: Document | Data, path: Path) -> Any:
    """The Leaf, Data or document at a path; a null Leaf where there is none."""
    value: Any = document
    for at, key in enumerate(path):
        if isinstance(value, dict):
            value = value.get(key, Leaf("NULL", "any"))
        elif isinstance(value, Data):
            return _inside(value, path[at:])
        else:
            is_json = value.kind == "json"
            return Leaf(extracted(value.sql, path[at:]), "json") if is_json else Leaf("NULL", "any")
    return value


def leaf(document: Document | Data, path: Path) -> Leaf:
    """As `resolve`; what is a document is turned into JSON."""
    return as_leaf(resolve(document, path))


def as_leaf(value: Any) -> Leaf:
    if isinstance(value, Leaf):
        return value
    if isinstance(value, Data):
        if value.changed or value.removed:
            return _patched(value)
        return value.base
    inner = ", ".join(f"{schema.literal(key)}, {as_leaf(one).shown.sql}" for key, one in value.items())
    return Leaf(f"json_object({inner})", "json")


def extracted(sql: str, path: Path) -> str:
    return f"json_extract({sql}, {schema.literal(schema.json_path(path))})"


def within(data: Data, path: Path) -> Data | None:
    """The part of it at a path, with its typed and changed keys; None where that is no document of its own."""
    if path in data.typed or any(path[: len(one)] == one for one in (*data.changed, *data.removed)):
        return None

    def below(some: Mapping[Path, Leaf]) -> dict[Path, Leaf]:
        return {one[len(path) :]: found for one, found in some.items() if one[: len(path)] == path}

    removed = tuple(one[len(path) :] for one in data.removed if one[: len(path)] == path)
    inner = extracted(data.base.sql, path)
    whole = Leaf(f"(CASE json_type({inner}) WHEN 'OBJECT' THEN {inner} END)", "json")
    return Data(whole, below(data.typed), below(data.changed), removed)


def _patched(data: Data) -> Leaf:
    """All of it as JSON. A key that was set to null is missing in it."""
    patch: dict[str, Any] = {}
    for path, one in (*((gone, Leaf("NULL", "any")) for gone in data.removed), *data.changed.items()):
        place = patch
        for key in path[:-1]:
            inner = place.get(key)
            place = place.setdefault(key, {}) if isinstance(inner, dict | None) else place
        place[path[-1]] = one
    whole = f"CASE WHEN json_type({data.base.sql}) = 'OBJECT' THEN {data.base.sql} ELSE '{{}}'::JSON END"
    return Leaf(f"json_merge_patch({whole}, {as_leaf(patch).sql})", "json")


def _inside(data: Data, path: Path) -> Leaf:
    for changed, one in data.changed.items():
        if path[: len(changed)] == changed:
            rest = path[len(changed) :]
            return one if not rest else Leaf(extracted(one.sql, rest), "json")
    if any(path[: len(gone)] == gone for gone in data.removed):
        return Leaf("NULL", "any")
    if any(one[: len(path)] == path for one in (*data.changed, *data.removed)):
        part = within(data, path)
        return _patched(part) if part is not None else Leaf("NULL", "any")
    return data.typed.get(path) or Leaf(extracted(data.base.sql, path), "json")


def put(document: Document | Data, path: Path, value: Any) -> Any:
    """A copy with the value at the path."""
    if isinstance(document, Data):
        return replace(document, changed={**document.changed, path: as_leaf(value)})
    key, rest = path[0], path[1:]
    inner = document.get(key)
    if not rest:
        return {**document, key: value}
    if isinstance(inner, Data):
        return {**document, key: put(inner, rest, value)}
    return {**document, key: put(inner if isinstance(inner, dict) else {}, rest, value)}


def root(value: Any) -> Document | Data | None:
    """A value as a whole document; None if it can be none. A key whose value is no document gives an empty one."""
    if isinstance(value, dict | Data):
        return value
    if value.kind != "json":
        return None
    return Data(Leaf(f"(CASE json_type({value.shown.sql}) WHEN 'OBJECT' THEN {value.shown.sql} END)", "json"))


def merged(values: Sequence[Any]) -> Document | Data:
    """`$mergeObjects`: later keys win. Raises InvalidInput for what cannot be merged while the pipeline is compiled."""
    first, *others = values or [{}]
    made = root(first)
    if made is None:
        raise InvalidInput("$mergeObjects begins with something that is no document", "For example $data.readings.")
    for other in others:
        if not isinstance(other, dict):
            raise InvalidInput("$mergeObjects adds only keys that are written there", "Put the reading first.")
        for key, one in other.items():
            made = put(made, (key,), one)
    return made


def remove(document: Document | Data, path: Path) -> Any:
    if isinstance(document, Data):
        changed = {one: value for one, value in document.changed.items() if one[: len(path)] != path}
        return replace(document, changed=changed, removed=(*document.removed, path))
    key, rest = path[0], path[1:]
    inner = document.get(key)
    if not rest:
        return {name: one for name, one in document.items() if name != key}
    if isinstance(inner, Data):
        return {**document, key: remove(inner, rest)}
    return {**document, key: remove(inner, rest)} if isinstance(inner, dict) else document


def mapped(value: Any, change: Callable[[Leaf], Leaf]) -> Any:
    """The same document with every leaf changed."""
    if isinstance(value, Leaf):
        return change(value)
    if isinstance(value, Data):
        return Data(
            change(value.base),
            {path: change(one) for path, one in value.typed.items()},
            {path: change(one) for path, one in value.changed.items()},
            value.removed,
        )
    return {key: mapped(one, change) for key, one in value.items()}


def shown_leaves(value: Any) -> Iterator[Leaf]:
    """What the answer is made of, in the order that `assembled` takes it."""
    if isinstance(value, Leaf):
        yield value.shown
    elif isinstance(value, Data):
        yield value.base
        yield from (one.shown for one in value.changed.values())
    else:
        for one in value.values():
            yield from shown_leaves(one)


def assembled(value: Any, found: Iterator[Any]) -> Any:
    """The answer's document from a row's values; missing ones are left out."""
    if isinstance(value, Leaf):
        return next(found)
    if isinstance(value, Data):
        whole = next(found) or {}
        for path in value.removed:
            _cut(whole, path)
        for path, one in zip(value.changed, list(value.changed.values()), strict=True):
            _set(whole, path, next(found), is_kept=one.is_kept)
        return whole
    document = {}
    for key, one in value.items():
        inner = assembled(one, found)
        if inner is not None or (isinstance(one, Leaf) and one.is_kept):
            document[key] = inner
    return document


def constant(value: Any) -> Leaf:
    """A literal of a pipeline. Raises InvalidInput for a type that has no place in a query."""
    if value is None:
        return Leaf("NULL", "any")
    if isinstance(value, bool):
        return Leaf("TRUE" if value else "FALSE", "bool")
    if isinstance(value, (int, float)):
        finite = math.isfinite(value)
        return Leaf(f"{value!r}::DOUBLE" if finite else f"'{value}'::DOUBLE", "number")
    if isinstance(value, str):
        return Leaf(schema.literal(value), "text")
    if isinstance(value, dt.datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        return Leaf(f"make_timestamp({(moment - _EPOCH) // dt.timedelta(microseconds=1)}::BIGINT)", "time")
    try:
        return Leaf(f"{schema.literal(json.dumps(value))}::JSON", "json")
    except (TypeError, ValueError):
        raise InvalidInput(
            f"A {type(value).__name__} cannot be used in a query", "Send text, numbers or dates."
        ) from None


def _cut(whole: Any, path: Path) -> None:
    for key in path[:-1]:
        whole = whole.get(key) if isinstance(whole, dict) else None
    if isinstance(whole, dict):
        whole.pop(path[-1], None)


def _set(whole: dict[str, Any], path: Path, value: Any, *, is_kept: bool) -> None:
    for key in path[:-1]:
        inner = whole.get(key)
        if not isinstance(inner, dict):
            inner = whole[key] = {}
        whole = inner
    if value is None and not is_kept:
        whole.pop(path[-1], None)
    else:
        whole[path[-1]] = value
