"""A user's SQL: checked against what may be asked, and its `data.readings.key` turned into columns.

Works on DuckDB's own parse tree (`json_serialize_sql`), never on text: what is checked is what runs. Only one SELECT, only
the tables given, only harmless table functions. The cage (`engine.py`) holds without this; this gives the clear errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gleaner.app.errors import InvalidInput
from gleaner.app.lake import schema
from gleaner.app.lake.schema import Columns, Path

if TYPE_CHECKING:
    import duckdb

READINGS = "readings"
_DATABASE = "sensordata"
_TABLE_FUNCTIONS = frozenset(("unnest", "range", "generate_series", "json_each", "json_tree"))
_REFUSED_FUNCTIONS = frozenset(("current_setting", "getvariable", "write_log", "nextval", "currval"))
_SOURCES = frozenset(("BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EMPTY", "EXPRESSION_LIST", "PIVOT"))
_HINT = "Ask with one SELECT on the table readings. Times are UTC timestamps; keys are data.readings.<key>."

_AGGREGATES_OF_NUMBERS = (
    "sum",
    "avg",
    "mean",
    "median",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "quantile",
    "quantile_cont",
)
_FUNCTIONS_OF_NUMBERS = ("abs", "round", "floor", "ceil", "sqrt", "ln", "log", "exp", "pow", "+", "-", "*", "/", "%")
_OF_NUMBERS = frozenset((*_AGGREGATES_OF_NUMBERS, *_FUNCTIONS_OF_NUMBERS))

Node = dict[str, Any]


@dataclass
class Statement:
    """A checked query. `text(columns)` is the SQL to run on a view `readings` with the typed columns in `used`."""

    tree: Node
    tables: set[str]
    fields: list[Path]
    """Keys of the readings that it names, as written."""
    conditions: dict[str, list[Node]]
    """By table: what every row that it can use must fulfil."""
    used: dict[Path, str] = field(default_factory=dict)


def parse(connection: duckdb.DuckDBPyConnection, text: str, tables: frozenset[str]) -> Statement:
    """Raises InvalidInput."""
    sent = _with_double_quotes(text)
    row = connection.execute("SELECT json_serialize_sql(?)", [sent]).fetchone()
    tree = json.loads(row[0]) if row else {}
    if tree.get("error"):
        where = _place(sent, int(tree["position"])) if "position" in tree else ""
        raise InvalidInput(f"The query is not a SELECT that can be run: {tree['error_message']}{where}", _HINT)
    if len(tree["statements"]) != 1:
        raise InvalidInput(f"{len(tree['statements'])} statements were sent, expected exactly one", _HINT)
    named = {entry["key"].casefold() for node in _nodes(tree) for entry in (node.get("cte_map") or {}).get("map", ())}
    if taken := named & tables:
        raise InvalidInput(f"WITH {taken.pop()} would hide the table of that name", "Give it another name.")
    found: set[str] = set()
    for node in _nodes(tree):
        _check(node, tables, named, found)
    fields = [path for node in _nodes(tree) if node.get("class") == "COLUMN_REF" and (path := _path(node)[1])]
    return Statement(tree, found, fields, {name: _conditions(tree, name) for name in found})


def _place(text: str, position: int) -> str:
    """Of a byte of the text, for people."""
    before = text.encode()[:position].decode(errors="replace")
    return f" (line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))})"


def written(connection: duckdb.DuckDBPyConnection, statement: Statement, columns: Columns) -> str:
    """The SQL to run; fills `statement.used` with the typed columns that the view must have."""
    statement.used = used_columns(statement.fields, columns)
    node = statement.tree["statements"][0]["node"]
    _Rewriter(connection, columns, statement.used).visit(node)
    row = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(statement.tree)]).fetchone()
    return str(row[0]) if row else ""


def used_columns(fields: Iterable[Path], columns: Columns) -> dict[Path, str]:
    """The typed columns behind these keys, with their names."""
    resolve = resolver(columns)
    return {path: schema.column_name(path) for one in fields if (path := resolve(one)) is not None}


def expression(connection: duckdb.DuckDBPyConnection, text: str) -> Node:
    """The parse tree of one expression."""
    row = connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {text}"]).fetchone()
    tree: Node = json.loads(row[0])["statements"][0]["node"]["select_list"][0] if row else {}
    return tree


def text_of(connection: duckdb.DuckDBPyConnection, node: Node) -> str:
    """An expression's SQL."""
    tree = json.loads(_template(connection))
    tree["statements"][0]["node"]["select_list"] = [node]
    row = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchone()
    return str(row[0]).removeprefix("SELECT ") if row else ""


def _template(connection: duckdb.DuckDBPyConnection) -> str:
    row = connection.execute("SELECT json_serialize_sql('SELECT 1')").fetchone()
    return str(row[0]) if row else ""


# --- checking --------------------------------------------------------------------------------------------------------


def _check(node: Node, tables: frozenset[str], named: set[str], found: set[str]) -> None:
    if node.get("from_table"):
        _check_source(node["from_table"])
    kind = node.get("type")
    if kind == "JOIN":
        _check_source(node["left"])
        _check_source(node["right"])
    if kind == "BASE_TABLE":
        name, place = node["table_name"].casefold(), node["schema_name"].casefold()
        if node["catalog_name"] or place not in ("", _DATABASE) or name not in tables | named:
            wanted = ".".join(part for part in (node["catalog_name"], node["schema_name"], node["table_name"]) if part)
            raise InvalidInput(f"There is no table {wanted}", f"There are: {', '.join(sorted(tables))}.")
        if name in tables:
            found.add(name)
            node |= {"schema_name": "", "table_name": name, "qualified_name": {"path": [name]}}
            node["alias"] = node["alias"] or name
    if kind == "TABLE_FUNCTION":
        name = node["function"]["function_name"].casefold()
        if name not in _TABLE_FUNCTIONS:
            raise InvalidInput(f"{name}() cannot be used as a table", _HINT)
    if kind == "FUNCTION" and node["function_name"].casefold() in _REFUSED_FUNCTIONS:
        raise InvalidInput(f"{node['function_name']}() cannot be used", _HINT)


def _check_source(node: Node) -> None:
    if node["type"] not in _SOURCES:
        raise InvalidInput(f"FROM cannot hold {node['type'].replace('_', ' ').lower()}", _HINT)


def _nodes(value: Any) -> Iterator[Node]:
    """Every object of the tree."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _conditions(tree: Node, table: str) -> list[Node]:
    """Of the only SELECT that reads the table; joined with others, those that name it."""
    readers = [one for one in _nodes(tree) if one.get("type") == "BASE_TABLE" and one["table_name"] == table]
    for select in (one for one in _nodes(tree) if one.get("type") == "SELECT_NODE"):
        source = select["from_table"]
        if any(one is readers[0] for one in _base_tables(source)) and len(readers) == 1:
            alias, is_alone = readers[0]["alias"].casefold(), source is readers[0]
            return [one for one in _conjuncts(select.get("where_clause")) if _is_about(one, alias, is_alone=is_alone)]
    return []


def _is_about(condition: Node, alias: str, *, is_alone: bool) -> bool:
    columns = [one["column_names"] for one in _nodes(condition) if one.get("class") == "COLUMN_REF"]
    return all(names[0].casefold() == alias if len(names) > 1 else is_alone for names in columns)


def _base_tables(source: Node) -> Iterator[Node]:
    if source.get("type") == "JOIN":
        yield from _base_tables(source["left"])
        yield from _base_tables(source["right"])
    elif source.get("type") == "BASE_TABLE":
        yield source


def _conjuncts(node: Node | None) -> Iterator[Node]:
    if node is None:
        return
    if node.get("type") == "CONJUNCTION_AND":
        for child in node["children"]:
            yield from _conjuncts(child)
    else:
        yield node


# --- keys of the readings --------------------------------------------------------------------------------------------


def _path(node: Node) -> tuple[str, Path]:
    """(qualifier, keys) of `data.a.b`, `r.data.a.b` or `"data.a.b"`; no keys for other columns."""
    names = list(node["column_names"])
    if len(names) <= 2 and names[-1].startswith("data."):
        names[-1:] = names[-1].split(".")
    for at, name in enumerate(names[:2]):
        if name.casefold() == "data" and len(names) > at + 1:
            return (names[0] if at else ""), tuple(names[at + 1 :])
    return "", ()


def resolver(columns: Columns) -> Callable[[Path], Path | None]:
    folded: dict[Path, list[Path]] = {}
    for path in columns:
        folded.setdefault(tuple(map(str.casefold, path)), []).append(path)

    def resolve(path: Path) -> Path | None:
        if path in columns:
            return path
        alike = folded.get(tuple(map(str.casefold, path)), [])
        return alike[0] if len(alike) == 1 else None

    return resolve


@dataclass(frozen=True)
class _Rewriter:
    """Replaces keys in place."""

    connection: duckdb.DuckDBPyConnection
    columns: Columns
    used: Mapping[Path, str]

    def visit(self, value: Any, own: tuple[str, ...] = (), outer: tuple[str, ...] = ()) -> None:
        """`own`: aliases of `readings` itself in the SELECT that this is part of; `outer`: in those around it."""
        if isinstance(value, list):
            for inner in value:
                self.visit(inner, own, outer)
            return
        if not isinstance(value, dict):
            return
        if value.get("type") == "SELECT_NODE":
            own, outer = tuple(_readings_aliases(value["from_table"])), own + outer
            self._name_and_show(value, own + outer)
        if value.get("class") == "COLUMN_REF":
            self._replace(value, own + outer)
            return
        if value.get("class") == "FUNCTION" and value["function_name"].casefold() in _OF_NUMBERS:
            self._numbers(value["arguments"], own + outer)
        if value.get("class") == "STAR" and self.used and own:
            relation = value["relation_name"].casefold()
            if not relation or relation in map(str.casefold, own):
                value["exclude_list"] = [*value["exclude_list"], *self.used.values()]
        for inner in value.values():
            self.visit(inner, own, outer)

    def _name_and_show(self, select: Node, sources: tuple[str, ...]) -> None:
        for item in select["select_list"]:
            self._keep_name(item)
        for item in (*select["select_list"], *select["group_expressions"]):
            if item.get("class") == "COLUMN_REF":
                self._replace(item, sources, is_bare=True)

    def _numbers(self, arguments: Sequence[Node], sources: tuple[str, ...]) -> None:
        for one in arguments:
            if one["expression"].get("class") == "COLUMN_REF":
                self._replace(one["expression"], sources, is_number=True)

    def _keep_name(self, item: Node) -> None:
        """A calculated column is called what the user wrote, not what it becomes."""
        is_about_keys = any(one.get("class") == "COLUMN_REF" and _path(one)[1] for one in _nodes(item))
        if item["alias"] or item["class"] in ("COLUMN_REF", "STAR") or not is_about_keys:
            return
        item["alias"] = text_of(self.connection, item).replace('"', "")

    def _replace(self, node: Node, sources: tuple[str, ...], *, is_bare: bool = False, is_number: bool = False) -> None:
        """`is_bare`: the value itself is wanted, not to be calculated with; `is_number`: only a number makes sense."""
        qualifier, path = _path(node)
        if not path:
            return
        typed = resolver(self.columns)(path)
        place = qualifier or (sources[0] if sources else "")
        prefix = f"{schema.identifier(place)}." if place else ""
        if typed is None and is_number:  # a key that nothing read here has, too: its mean is null then, no error
            text = schema.from_json(f"{prefix}data", path, "DOUBLE")
        elif typed is None or (is_bare and not self.columns[typed].is_exact):
            text = f"json_extract({prefix}data, {schema.literal(schema.json_path(typed or path))})"
        elif place.casefold() in map(str.casefold, sources):
            text = prefix + schema.identifier(self.used[typed])
        else:
            text = schema.from_json(f"{prefix}data", typed, self.columns[typed].type)
        alias = node.get("alias") or (path[-1] if is_bare else "")
        new = expression(self.connection, text)
        node.clear()
        node.update(new, alias=alias)


def _readings_aliases(source: Node) -> Iterator[str]:
    return (one["alias"] for one in _base_tables(source) if one["table_name"] == READINGS)


def _with_double_quotes(text: str) -> str:
    """Backticks are how Atlas SQL quotes names."""
    quote, out = "", []
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"`":
            quote = letter
        out.append('"' if letter == "`" and quote in ("", "`") else letter)
    return "".join(out)


def constants(node: Mapping[str, Any]) -> bool:
    """Whether an expression can be calculated before any reading is looked at."""
    return not any(
        one.get("class") in ("COLUMN_REF", "SUBQUERY", "STAR", "WINDOW", "PARAMETER") for one in _nodes(dict(node))
    )
