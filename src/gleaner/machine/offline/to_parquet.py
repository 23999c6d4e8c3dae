"""`<component>/<method>.parquet`: a row a record, a column a value. Nested readings are flattened with dots.

Columns of readings begin with `data.`, as in Viam's queries; a dot inside a key is written `\\.`. Types are found while
rows stream: numbers, booleans, text, lists of numbers; what is anything else, or changes its type, is text in JSON (its
field says `gleaner: json`). Rows go to pieces with one schema each; at the end pieces of one collector become one file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gleaner.machine.offline.export import Report
from gleaner.machine.offline.output import safe_name, to_json
from gleaner.machine.offline.reading import Opened, Record
from gleaner.machine.offline.to_folder import Blobs, write_manifest

_BATCH_ROWS = 20_000
_BATCH_BYTES = 16 * 1024 * 1024
_MOST_BUFFERED = 128 * 1024 * 1024
_JSON = {b"gleaner": b"json"}
_TYPES = {
    "null": pa.null(),
    "number": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
    "numbers": pa.list_(pa.float64()),
    "json": pa.string(),
}
_TIME = pa.timestamp("ns", tz="UTC")
_CONFIDENCE = pa.field("confidence", pa.float64())
_CLASS = pa.struct([pa.field("label", pa.string()), _CONFIDENCE])
_CORNERS = ("x_min_normalized", "y_min_normalized", "x_max_normalized", "y_max_normalized")
_BOX = pa.struct([pa.field("label", pa.string()), *(pa.field(name, pa.float64()) for name in _CORNERS), _CONFIDENCE])
_COMMON = [
    pa.field("time_requested", _TIME),
    pa.field("time_received", _TIME),
    pa.field("api", pa.string()),
    pa.field("tags", pa.list_(pa.string())),
    pa.field("additional_params", pa.string(), metadata=_JSON),
]
_OF_BLOBS = [
    pa.field("mime_type", pa.string()),
    pa.field("size_bytes", pa.int64()),
    pa.field("bboxes", pa.list_(_BOX)),
    pa.field("classifications", pa.list_(_CLASS)),
    pa.field("path", pa.string()),
    pa.field("payload", pa.binary()),
]


def kind_of(value: Any) -> str:
    """Which of the column types holds one value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list) and value and all(type(item) is float for item in value):
        return "numbers"
    return "json"


def common_kind(left: str, right: str) -> str:
    if right in (left, "null"):
        return left
    return right if left == "null" else "json"


def flatten(data: dict[str, Any], prefix: str = "data") -> dict[str, Any]:
    """Leaves by dotted path; an empty dictionary is a leaf."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{prefix}.{key.replace(chr(92), chr(92) * 2).replace('.', chr(92) + '.')}"
        if isinstance(value, dict) and value:
            flat.update(flatten(value, path))
        else:
            flat[path] = value
    return flat


@dataclass
class _Table:
    name: str
    is_binary: bool
    kinds: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    buffered: int = 0
    pieces: list[Path] = field(default_factory=list)

    def schema(self) -> pa.Schema:
        if self.is_binary:
            return pa.schema([*_COMMON, *_OF_BLOBS])
        found = [
            pa.field(name, _TYPES[kind], metadata=_JSON if kind == "json" else None)
            for name, kind in self.kinds.items()
        ]
        return pa.schema([*_COMMON, *found])


class ParquetSink:
    def __init__(self, path: Path, embed: bool) -> None:
        path.mkdir()
        self._path, self._embed = path, embed
        self._blobs = Blobs(path)
        self._tables: dict[tuple[str, bool], _Table] = {}
        self._buffered = self._pieces = 0

    def add(self, file: Opened, record: Record) -> None:
        name = f"{safe_name(file.component)}/{safe_name(file.method)}"
        table = self._tables.setdefault((name, file.is_binary), _Table(name, file.is_binary))
        row: dict[str, Any] = {
            "time_requested": record.requested_ns,
            "time_received": record.received_ns,
            "api": file.api,
            "tags": list(file.tags),
            "additional_params": to_json(dict(file.parameters)) if file.parameters else None,
        }
        size = 200
        if isinstance(record.data, bytes):
            row |= {"mime_type": file.mime_type, "size_bytes": len(record.data)}
            row |= {"bboxes": list(record.boxes), "classifications": list(record.classes)}
            if self._embed:
                row["payload"] = record.data
                size += len(record.data)
            else:
                row["path"] = self._blobs.write(file, record, record.data)
        else:
            flat = flatten(record.data)
            for key, value in flat.items():
                table.kinds[key] = common_kind(table.kinds.get(key, "null"), kind_of(value))
            row |= flat
            size += sum(64 + (len(v) * 8 if isinstance(v, (list, str)) else 0) for v in flat.values())
        table.rows.append(row)
        table.buffered += size
        self._buffered += size
        if len(table.rows) >= _BATCH_ROWS or table.buffered >= _BATCH_BYTES:
            self._flush(table)
        elif self._buffered >= _MOST_BUFFERED:
            self._flush(max(self._tables.values(), key=lambda each: each.buffered))

    def _flush(self, table: _Table) -> None:
        if not table.rows:
            return
        self._buffered -= table.buffered
        piece = self._path / f".{self._pieces}.piece"
        self._pieces += 1
        schema = table.schema()
        pq.write_table(_arrow(table.rows, schema), piece)
        table.pieces.append(piece)
        table.rows, table.buffered = [], 0

    def close(self, report: Report) -> None:
        for table in self._tables.values():
            self._flush(table)
            others = (table.name, not table.is_binary) in self._tables
            target = self._path / f"{table.name}{'.binary' if others and table.is_binary else ''}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            self._join(table, target)
        write_manifest(self._path, "parquet", report)

    def _join(self, table: _Table, target: Path) -> None:
        schema = table.schema()
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for piece in table.pieces:
                with pq.ParquetFile(piece) as read:
                    for batch in read.iter_batches(batch_size=_BATCH_ROWS):
                        found = pa.Table.from_batches([batch])
                        writer.write_table(
                            found if found.schema.equals(schema, check_metadata=True) else _cast(found, schema)
                        )
                piece.unlink()

    def abandon(self) -> None:
        self._tables.clear()


def _arrow(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = []
    for column in schema:
        values = [row.get(column.name) for row in rows]
        if column.metadata == _JSON and column.name != "additional_params":
            values = [None if value is None else to_json(value) for value in values]
        columns.append(pa.array(values, type=column.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """To the schema that all pieces share: columns that came later are null, those that changed their type JSON."""
    columns = []
    for column in schema:
        if column.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, column.type))
            continue
        found, was = table.column(column.name), table.schema.field(column.name)
        if column.metadata == _JSON and was.metadata != _JSON:
            texts = [None if value is None else to_json(value) for value in found.to_pylist()]
            found = pa.chunked_array([pa.array(texts, type=column.type)])
        columns.append(found.cast(column.type))
    return pa.Table.from_arrays(columns, schema=schema)
