"""SQLite's own connection inside a SQLAlchemy transaction, for the few statements that every group of uploads needs.

SQLAlchemy took longer for each of them than SQLite: 2 ms a group, and a group may be one picture. Errors are SQLAlchemy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

Values = Sequence[Any]
# Of some twenty columns each; SQLite takes 32,766 values.
_MOST_ROWS = 64


class SqliteDriver:
    def __init__(self, db: sa.Connection) -> None:
        self._connection: Any = db.connection.dbapi_connection
        self._dialect = db.dialect
        self._error: type[Exception] = getattr(db.dialect.dbapi, "Error")  # noqa: B009 - mypy knows no module there

    def rows(self, query: str, values: Values = ()) -> list[tuple[Any, ...]]:
        try:
            return list(self._connection.execute(query, values))
        except self._error as err:
            raise self._as_ours(query, err) from err

    def insert(self, table: sa.Table, row: dict[str, Any]) -> int:
        """Its row number."""
        statement = _insert(table, row)
        try:
            return int(self._connection.execute(statement, tuple(row.values())).lastrowid)
        except self._error as err:
            raise self._as_ours(statement, err) from err

    def insert_all(self, table: sa.Table, rows: Sequence[dict[str, Any]], *, ignoring: bool = False) -> None:
        """All with the same columns; with `ignoring`, what breaks a unique key is left out."""
        ending = " ON CONFLICT DO NOTHING" if ignoring else ""
        at = 0
        while at < len(rows):
            # Many rows a statement: Python's lock is given away with each one, and has to be fought for again.
            # Powers of two, so that few different statements have to be prepared.
            count = min(_MOST_ROWS, 1 << ((len(rows) - at).bit_length() - 1))
            statement = _insert(table, rows[0], count) + ending
            values = [value for row in rows[at : at + count] for value in row.values()]
            try:
                self._connection.execute(statement, values)
            except self._error as err:
                raise self._as_ours(statement, err) from err
            at += count

    def _as_ours(self, statement: str, err: Exception) -> sa.exc.StatementError | Exception:
        wrapped = sa.exc.DBAPIError.instance(statement, None, err, self._error, dialect=self._dialect)
        assert isinstance(wrapped, Exception)
        return wrapped


def driver_of(db: sa.Connection) -> SqliteDriver | None:
    """None for another database."""
    return SqliteDriver(db) if db.dialect.name == "sqlite" else None


def _insert(table: sa.Table, row: dict[str, Any], count: int = 1) -> str:
    return _insert_text(table.name, tuple(row), count)


@lru_cache(256)
def _insert_text(table: str, columns: tuple[str, ...], count: int) -> str:
    names, marks = ", ".join(f'"{name}"' for name in columns), ",".join("?" * len(columns))
    return f'INSERT INTO "{table}" ({names}) VALUES {",".join([f"({marks})"] * count)}'
