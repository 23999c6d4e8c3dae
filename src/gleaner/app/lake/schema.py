"""Which keys of a series' readings get a column of their own. Pure.

A lake file has the columns of FIXED, then one per stable scalar key (`data.readings.temp`), and the whole reading as JSON
in `data`, so that nothing is lost whatever a sensor says. Kinds of typed columns:

- DOUBLE: the key's numbers; *exact* unless it also holds something else somewhere, which is then only in `data`;
- BOOLEAN, VARCHAR: the key never held anything else.

Keys with anything else (lists, objects, text and booleans mixed), with a dot in their name or one that differs from a
sibling's only in case (SQL's names do not) stay in `data` alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_COLUMNS = 256
_DEEPEST = 6
_NUMBERS = frozenset(("UBIGINT", "BIGINT", "DOUBLE", "HUGEINT", "UHUGEINT"))

#: Viam's names and DuckDB's types. Times are UTC, microseconds.
FIXED = (
    "organization_id",
    "location_id",
    "robot_id",
    "part_id",
    "component_type",
    "component_name",
    "method_name",
    "time_requested",
    "time_received",
    "tags",
    "additional_parameters",
    "data",
)

Path = tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A typed key. `is_exact`: the column says all that the key ever held."""

    type: str
    is_exact: bool = True


Columns = dict[Path, Column]


def column_name(path: Path) -> str:
    return ".".join(("data", *path))


def columns_of(structures: Iterable[str]) -> Columns:
    """The typed columns for readings of these structures (each the answer of DuckDB's `json_structure`)."""
    kinds: dict[Path, set[str]] = {}
    for structure in structures:
        _collect(json.loads(structure), (), kinds)
    return _bounded(_without_ambiguous({path: found for path, names in kinds.items() if (found := _column(names))}))


def merged(schemas: Iterable[Mapping[Path, Column]]) -> Columns:
    """What the files' columns are together: numbers win over anything else, other conflicts have no column."""
    together: dict[Path, set[Column]] = {}
    every = list(schemas)
    for path in {path for schema in every for path in schema}:
        together[path] = {schema[path] for schema in every if path in schema}
    found: Columns = {}
    for path, columns in together.items():
        types = {one.type for one in columns}
        if len(types) == 1:
            found[path] = Column(types.pop(), all(one.is_exact for one in columns))
        elif "DOUBLE" in types:
            found[path] = Column("DOUBLE", is_exact=False)
    return _without_ambiguous(found)


def dumped(columns: Mapping[Path, Column]) -> str:
    return json.dumps([[list(path), one.type, one.is_exact] for path, one in sorted(columns.items())])


def loaded(text: str) -> Columns:
    return {tuple(path): Column(type_, is_exact) for path, type_, is_exact in json.loads(text)}


def transform_spec(columns: Mapping[Path, Column]) -> str:
    """The nested types that `json_transform` takes, as JSON."""
    spec: dict[str, Any] = {}
    for path, column in columns.items():
        place = spec
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = column.type
    return json.dumps(spec)


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def json_path(path: Path) -> str:
    """A path as `json_extract` takes it."""
    return "$" + "".join('."' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' for key in path)


def from_json(data: str, path: Path, type_: str) -> str:
    """SQL for the value at `path` of the JSON `data`, NULL where it is of another type."""
    extracted = f"json_extract({data}, {literal(json_path(path))})"
    if type_ == "VARCHAR":
        return f"CASE json_type({extracted}) WHEN 'VARCHAR' THEN {extracted} ->> '$' END"
    return f"TRY_CAST({extracted} AS {type_})"


def _collect(structure: Any, path: Path, kinds: dict[Path, set[str]]) -> None:
    if isinstance(structure, dict) and len(path) < _DEEPEST and structure:
        if path:
            kinds.setdefault(path, set()).add("OBJECT")
        for key, inner in structure.items():
            _collect(inner, (*path, key), kinds)
    elif path:
        name = structure if isinstance(structure, str) else "LIST"
        kinds.setdefault(path, set()).add("DOUBLE" if name in _NUMBERS else name)


def _column(names: set[str]) -> Column | None:
    names = names - {"NULL"}
    if "DOUBLE" in names:
        # An object at the same place would need two fields of one name.
        return None if "OBJECT" in names else Column("DOUBLE", names == {"DOUBLE"})
    return Column(names.pop()) if names in ({"BOOLEAN"}, {"VARCHAR"}) else None


def _without_ambiguous(columns: Columns) -> Columns:
    """Without keys that SQL could not tell apart, at any depth."""
    spellings: dict[Path, set[Path]] = {}
    for path in columns:
        for depth in range(1, len(path) + 1):
            spellings.setdefault(tuple(key.casefold() for key in path[:depth]), set()).add(path[:depth])
    clear = {}
    for path, column in columns.items():
        folded = tuple(key.casefold() for key in path)
        if all(len(spellings[folded[:depth]]) == 1 for depth in range(1, len(path) + 1)) and all(map(_is_plain, path)):
            clear[path] = column
    return {path: one for path, one in clear.items() if not any(path[:n] in clear for n in range(1, len(path)))}


def _is_plain(key: str) -> bool:
    return 0 < len(key) <= 128 and "." not in key and key.isprintable()


def _bounded(columns: Columns) -> Columns:
    return dict(sorted(columns.items(), key=lambda one: (len(one[0]), one[0]))[:MOST_COLUMNS])
