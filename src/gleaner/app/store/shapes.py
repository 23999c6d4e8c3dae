"""Readings decoded together: those whose `Struct` has the same keys, kinds and lengths become columns, by numpy.

Consecutive readings of a sensor hardly ever differ in more than their numbers. A *shape* is made from one of them: which
bytes all have in common, and where the numbers, truth values and texts lie between them. Who has the same length and the
same common bytes has that shape; a text of another length is another shape. What is left after MOST_SHAPES of them, or is
written as our encoder never would, is decoded one by one by protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from gleaner.app.store.structs import struct_to_dict
from gleaner.wire.sealed_run import Ints, Run, sealed_run

MOST_SHAPES = 32
_MOST_BYTES = 16 << 10
_MOST_LEAVES = 512
_DEEPEST = 24


class Kind(Enum):
    NUMBER = "number"
    BOOL = "bool"
    TEXT = "text"


@dataclass(frozen=True)
class Leaf:
    """`number` counts the columns of a shape; the value has `size` bytes from `at` in the Struct."""

    number: int
    kind: Kind
    at: int
    size: int


Node = Leaf | dict[str, Any] | list[Any] | str | None
"""Dictionaries and lists of Nodes; a text that all have in common; None is null."""


@dataclass(frozen=True)
class Shape:
    tree: dict[str, Node]
    leaves: tuple[Leaf, ...]
    common: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    """255 where `common` counts."""


@dataclass(frozen=True)
class Columns:
    """Readings of one shape: `rows` are their places in the run, `values` has an array for each leaf."""

    shape: Shape
    rows: Ints
    values: list[npt.NDArray[Any]]


@dataclass(frozen=True)
class Decoded:
    run: Run
    columns: list[Columns]
    others: list[tuple[int, dict[str, Any]]]
    """(place in the run, document)."""

    def document(self, row: int) -> dict[str, Any]:
        return struct_to_dict(Struct.FromString(struct_bytes(self.run, row)))

    def documents(self) -> list[dict[str, Any]]:
        """In the order of the run."""
        found: list[Any] = [None] * len(self.run)
        for one in self.columns:
            listed = [column.tolist() for column in one.values]
            for at, row in enumerate(one.rows.tolist()):
                found[row] = _document(one.shape.tree, listed, at)
        for row, document in self.others:
            found[row] = document
        return found


def decoded(data: bytes, at: int = 0) -> Decoded | None:
    """The sealed records from byte `at` on. None unless every one is whole and ours; see `sealed_run`."""
    run = sealed_run(data, at)
    if run is None:
        return None
    columns, left = _grouped(run)
    try:
        others = [(int(row), struct_to_dict(Struct.FromString(struct_bytes(run, int(row))))) for row in left]
    except DecodeError:
        return None
    return Decoded(run, columns, others)


def struct_bytes(run: Run, row: int) -> bytes:
    return run.data[run.starts[row] : run.ends[row]].tobytes()


def _grouped(run: Run) -> tuple[list[Columns], Ints]:
    """By shape, and the places of those that have none."""
    sizes = run.ends - run.starts
    order = np.argsort(sizes, kind="stable")
    borders = np.flatnonzero(np.diff(sizes[order])) + 1
    found: list[Columns] = []
    left: list[Ints] = []
    waiting = np.split(order, borders)[::-1]
    tries = 0
    while waiting:
        rows = waiting.pop()
        tries += 1
        shape = shape_of(struct_bytes(run, int(rows[0]))) if tries <= MOST_SHAPES else None
        columns = _of_shape(run, rows, shape) if shape is not None else None
        if columns is not None and len(columns.rows):
            found.append(columns)
            others = np.setdiff1d(rows, columns.rows, assume_unique=True)
        else:
            alone = len(rows) if tries > MOST_SHAPES else 1
            left.append(rows[:alone])
            others = rows[alone:]
        if len(others):
            waiting.append(others)
    return found, np.concatenate(left) if left else np.empty(0, np.int64)


def _of_shape(run: Run, rows: Ints, shape: Shape) -> Columns:
    """Those of the rows (all of the shape's length) that have it."""
    size = len(shape.common)
    table = np.lib.stride_tricks.sliding_window_view(run.data, size)[run.starts[rows]]
    fits = ~((table ^ shape.common) & shape.mask).any(axis=1)
    for leaf in shape.leaves:
        part = table[:, leaf.at : leaf.at + leaf.size]
        if leaf.kind is Kind.BOOL:
            fits &= part[:, 0] < 2
        elif leaf.kind is Kind.TEXT:
            fits &= ((part > 0) & (part < 128)).all(axis=1)
    if not fits.all():
        table, rows = table[fits], rows[fits]
    return Columns(shape, rows, [_column(table, leaf) for leaf in shape.leaves])


def _column(table: npt.NDArray[np.uint8], leaf: Leaf) -> npt.NDArray[Any]:
    part = np.ascontiguousarray(table[:, leaf.at : leaf.at + leaf.size])
    if leaf.kind is Kind.NUMBER:
        return part.view("<f8").ravel()
    if leaf.kind is Kind.BOOL:
        return part.view(np.bool_).ravel()
    return part.view(f"S{leaf.size}").ravel().astype(f"U{leaf.size}")


def _document(node: Node, columns: list[list[Any]], at: int) -> Any:
    if isinstance(node, Leaf):
        return columns[node.number][at]
    if isinstance(node, dict):
        return {key: _document(one, columns, at) for key, one in node.items()}
    if isinstance(node, list):
        return [_document(one, columns, at) for one in node]
    return node


class _NoShape(Exception):
    """It is not written as our encoder does, or too large to be worth it."""


def shape_of(body: bytes) -> Shape | None:
    """The shape of a serialized Struct; None if it has to be decoded by protobuf."""
    if not 0 < len(body) <= _MOST_BYTES:
        return None
    parser = _Parser(body)
    try:
        tree = parser.struct(0, len(body), 0)
    except (_NoShape, IndexError, UnicodeDecodeError):
        return None
    mask = np.full(len(body), 255, np.uint8)
    for leaf in parser.leaves:
        mask[leaf.at : leaf.at + leaf.size] = 0
    return Shape(tree, tuple(parser.leaves), np.frombuffer(body, np.uint8), mask)


class _Parser:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self.leaves: list[Leaf] = []

    def struct(self, at: int, end: int, depth: int) -> dict[str, Node]:
        fields: dict[str, Node] = {}
        for entry, entry_end in self._messages(at, end, depth):
            name, name_end = self._message(entry, entry_end, 0x0A)
            value, value_end = self._message(name_end, entry_end, 0x12)
            key = self._body[name:name_end].decode()
            if value_end != entry_end or key in fields or "\0" in key:
                raise _NoShape
            fields[key] = self._value(value, value_end, depth + 1)
        return fields

    def _value(self, at: int, end: int, depth: int) -> Node:
        key, size = self._body[at], end - at
        if key == 0x11 and size == 9:
            return self._leaf(Kind.NUMBER, at + 1, 8)
        if key == 0x20 and size == 2:
            return self._leaf(Kind.BOOL, at + 1, 1)
        if key == 0x08 and size == 2 and self._body[at + 1] == 0:
            return None
        if key not in (0x1A, 0x2A, 0x32):
            raise _NoShape
        start, inner_end = self._message(at, end, key)
        if inner_end != end:
            raise _NoShape
        if key == 0x1A:
            return self._text(start, end)
        if key == 0x2A:
            return self.struct(start, end, depth)
        return [self._value(*one, depth + 1) for one in self._messages(start, end, depth)]

    def _text(self, at: int, end: int) -> Node:
        """A column only for what is ASCII: numpy ends texts at their last zero byte, and UTF-8 would have to be judged."""
        text = self._body[at:end]
        if text and text.isascii() and 0 not in text:
            return self._leaf(Kind.TEXT, at, end - at)
        if 0 in text:
            raise _NoShape
        return text.decode()

    def _leaf(self, kind: Kind, at: int, size: int) -> Leaf:
        if len(self.leaves) >= _MOST_LEAVES:
            raise _NoShape
        self.leaves.append(Leaf(len(self.leaves), kind, at, size))
        return self.leaves[-1]

    def _messages(self, at: int, end: int, depth: int) -> Iterator[tuple[int, int]]:
        if depth > _DEEPEST:
            raise _NoShape
        while at < end:
            start, at = self._message(at, end, 0x0A)
            yield start, at

    def _message(self, at: int, end: int, key: int) -> tuple[int, int]:
        """(start, end) of the length-delimited field with this key at `at`."""
        if at >= end or self._body[at] != key:
            raise _NoShape
        size = shift = 0
        for start in range(at + 1, min(at + 5, end)):
            byte = self._body[start]
            size |= (byte & 127) << shift
            if byte < 128:
                if start + 1 + size > end:
                    raise _NoShape
                return start + 1, start + 1 + size
            shift += 7
        raise _NoShape
