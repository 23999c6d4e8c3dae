"""A pipeline of Mongo's while it becomes SQL: what its documents hold by now, and the steps made so far. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gleaner.app.errors import InvalidInput
from gleaner.app.lake import sql
from gleaner.app.lake.documents import Data, Document, Leaf, assembled, mapped, shown_leaves

_MOST_ROWS = 2**31


@dataclass(frozen=True)
class Compiled:
    """`text` answers rows of values, `document(row)` makes each a document."""

    text: str
    shape: Document | Data

    def document(self, row: Sequence[Any]) -> dict[str, Any]:
        made: dict[str, Any] = assembled(self.shape, iter(row))
        return made


@dataclass
class Pipeline:
    document: Document | Data
    source: str = sql.READINGS
    order: list[tuple[str, str]] = field(default_factory=list)
    """(column, ASC or DESC)."""
    parts: list[str] = field(default_factory=list)

    def select(self, document: Document | Data, *, rest: str = "", is_grouped: bool = False) -> None:
        """The next step: these fields of the last one."""
        columns: list[str] = []

        def place(one: Leaf) -> Leaf:
            names = []
            for text in (one.sql, one.whole):
                if text and text not in columns:
                    columns.append(text)
                names.append(f"c{columns.index(text)}" if text else "")
            return Leaf(names[0], one.kind, names[1], one.is_kept)

        self.document = mapped(document, place)
        if is_grouped:
            self.order = []
        for number, (text, direction) in enumerate(self.order):
            if text not in columns:
                columns.append(text)
            self.order[number] = (f"c{columns.index(text)}", direction)
        listed = ", ".join(f"{text} AS c{number}" for number, text in enumerate(columns or ["1"]))
        name = f"s{len(self.parts)}"
        self.parts.append(f"{name} AS (SELECT {listed} FROM {self.source}{rest})")
        self.source = name

    def ordered(self) -> str:
        listed = ", ".join(
            f"{text} {direction} NULLS {'FIRST' if direction == 'ASC' else 'LAST'}" for text, direction in self.order
        )
        return f" ORDER BY {listed}" if listed else ""

    def done(self) -> Compiled:
        leaves = list(shown_leaves(self.document))
        listed = ", ".join(f"{one.sql} AS c{number}" for number, one in enumerate(leaves)) or "1"
        with_parts = f"WITH {', '.join(self.parts)} " if self.parts else ""
        return Compiled(f"{with_parts}SELECT {listed} FROM {self.source}{self.ordered()}", self.document)


def as_document(name: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or not given:
        raise InvalidInput(f"{name} takes a document", f'For example {{"{name}": {{…}}}}.')
    return given


def whole_number(name: str, given: Any, least: int) -> int:
    if (
        isinstance(given, bool)
        or not isinstance(given, (int, float))
        or given != int(given)
        or not least <= given < _MOST_ROWS
    ):
        raise InvalidInput(f"{given!r} is no number of documents", f"{name} takes a whole number from {least} on.")
    return int(given)
