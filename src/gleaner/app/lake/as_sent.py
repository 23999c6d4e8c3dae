"""Batches that hold a capture file's records (`store/uploads.py`) as rows in DuckDB: shape by shape, from numpy's columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gleaner.app.lake import schema
from gleaner.app.store.shapes import Decoded, Leaf, Node, decoded
from gleaner.app.store.uploads import AS_SENT

if TYPE_CHECKING:
    import duckdb

_ROWS = "as_sent"


def is_as_sent(payload: bytes) -> bool:
    return payload.startswith(AS_SENT)


def is_whole(payload: bytes) -> bool:
    return decoded(payload, len(AS_SENT)) is not None


def load(connection: duckdb.DuckDBPyConnection, payloads: Sequence[tuple[int, bytes]]) -> None:
    """Adds the readings of (batch, payload) to `batch_rows`; what the batches say is in `batch_heads`.

    Raises ValueError for a payload that is none.
    """
    joined = b"".join(payload[len(AS_SENT) :] for _, payload in payloads)
    found = decoded(joined)
    if found is None:
        raise ValueError("a stored batch of readings is none")
    sizes = [len(payload) - len(AS_SENT) for _, payload in payloads]
    which = np.searchsorted(np.cumsum(sizes), found.run.starts, side="right")
    batches = np.array([batch for batch, _ in payloads], np.int64)[which]
    for rows, values, document in _selections(found):
        frame = {
            "batch": batches[rows],
            "requested": found.run.requested_ns[rows] // 1000,
            "received": found.run.received_ns[rows] // 1000,
            **{f"v{number}": one for number, one in enumerate(values)},
        }
        connection.register(_ROWS, frame)
        try:
            connection.execute(
                "INSERT INTO batch_rows SELECT id, origin, make_timestamp(requested), make_timestamp(received), "
                f"tags, parameters, {document} FROM {_ROWS} JOIN batch_heads ON batch_heads.id = {_ROWS}.batch"
            )
        finally:
            connection.unregister(_ROWS)


def _selections(found: Decoded) -> Iterator[tuple[Any, list[Any], str]]:
    """(places in the run, columns, SQL of the document made of them)."""
    for one in found.columns:
        yield one.rows, one.values, f"{_sql(one.shape.tree)}::JSON"
    if found.others:
        rows = np.array([row for row, _ in found.others], np.int64)
        texts = np.array([json.dumps(document) for _, document in found.others], object)
        yield rows, [texts], "v0::JSON"


def _sql(node: Node) -> str:
    if isinstance(node, Leaf):
        return f"v{node.number}"
    if isinstance(node, dict):
        return f"json_object({', '.join(f'{schema.literal(key)}, {_sql(one)}' for key, one in node.items())})"
    if isinstance(node, list):
        return f"json_array({', '.join(map(_sql, node))})"
    return "NULL" if node is None else schema.literal(node)
