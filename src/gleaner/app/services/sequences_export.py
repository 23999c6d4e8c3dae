"""A dataset of sequences as three Parquet files: `sequences`, `binary_data` and `tabular_data`; rows of the two data files name
their sequence.

A download is a zip of them, made while it is taken: a job is a signed note of what was asked, done as soon as it is made, and
nothing of it is kept. A training run has them in its folder.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gleaner.app.caller import Caller, CallerKind, Grant, Role
from gleaner.app.errors import InvalidInput
from gleaner.app.services.fleet_values import iso
from gleaner.app.services.items_read import ItemReader
from gleaner.app.services.items_values import Item
from gleaner.app.services.readings import Reading, ReadingService
from gleaner.app.services.sequences import SequenceService
from gleaner.app.services.sequences_values import CapturedSequence
from gleaner.formats.archive import Archive, packed
from gleaner.formats.parquet import require_library
from gleaner.formats.values import CHUNK_BYTES, Entry

_GROUP_ROWS, _GROUP_BYTES = 5_000, 16 << 20
_IN_MEMORY_BYTES = 8 << 20
_PAGE = 500
Row = dict[str, Any]


@dataclass(frozen=True)
class Download:
    file_name: str
    stream: Callable[[], Iterator[bytes]]


class SequenceExports:
    def __init__(self, sequences: SequenceService, items: ItemReader, readings: ReadingService) -> None:
        self._sequences = sequences
        self._items = items
        self._readings = readings

    def check(self, caller: Caller, dataset_id: str) -> None:
        """Raises NotFound, InvalidInput for a dataset of pictures, or one without sequences."""
        require_library()
        self._sequences.require_dataset(caller, dataset_id)
        if not self._sequences.count_in_dataset(caller, dataset_id):
            raise InvalidInput("The dataset holds no sequences that you may see", "Add some first.")

    def organization_of(self, caller: Caller, dataset_id: str) -> str:
        return self._sequences.require_dataset(caller, dataset_id)

    def prepare(self, caller: Caller, dataset_id: str) -> Download:
        return Download(f"sequences-{dataset_id}.zip", lambda: self._zip(caller, dataset_id))

    def write_version(self, version_id: str, folder: Path) -> int:
        """The three files of a dataset version, readable to this user only, and how many sequences it has; none of
        pictures. For code that has already checked its caller."""
        found = self._sequences.of_version(version_id)
        if found:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(found[0].organization_id, found, folder)
        return len(found)

    def _write(self, organization_id: str, sequences: list[CapturedSequence], folder: Path) -> None:
        grant = Grant("organization", organization_id, Role.OPERATOR, organization_id)
        reader = Caller(CallerKind.API_KEY, "training", grants=(grant,))
        for entry in self._files(reader, sequences):
            with os.fdopen(os.open(folder / entry.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.writelines(entry.open())

    def _zip(self, caller: Caller, dataset_id: str) -> Iterator[bytes]:
        found = list(self._all(caller, dataset_id))
        yield from packed(self._files(caller, found), Archive.ZIP)

    def _files(self, caller: Caller, found: list[CapturedSequence]) -> Iterator[Entry]:
        """Each file is written when the one before was taken, and gone when the next is asked for."""
        parts = (
            ("sequences", _SEQUENCES, map(_sequence, found)),
            ("binary_data", _BINARY, self._binary(caller, found)),
            ("tabular_data", _TABULAR, self._tabular(caller, found)),
        )
        for name, columns, rows in parts:
            with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
                _write(file, columns, rows)
                size = file.tell()
                yield Entry(f"{name}.parquet", size, lambda file=file: _chunks(file))  # type: ignore[misc]

    def _all(self, caller: Caller, dataset_id: str) -> Iterator[CapturedSequence]:
        token = ""
        while True:
            page = self._sequences.page_of_dataset(caller, dataset_id, 1000, token)
            yield from page.sequences
            token = page.next_token
            if not token:
                return

    def _binary(self, caller: Caller, found: list[CapturedSequence]) -> Iterator[Row]:
        for one in found:
            last, wanted = "", one.item_filter()
            while (page := self._items.page(caller, wanted, _PAGE, last, ascending=True)).items:
                for item in page.items:
                    yield _item(one, item, self._items.content(caller, item.row).all())
                last = page.last

    def _tabular(self, caller: Caller, found: list[CapturedSequence]) -> Iterator[Row]:
        for one in found:
            for reading in self._readings.export(caller, one.item_filter()):
                yield _reading(one, reading)


_SEQUENCES = {
    **dict.fromkeys(("sequence_id", "organization_id", "location_id", "robot_id", "part_id"), "string"),
    **dict.fromkeys(("start_time", "end_time"), "string"),
    "tags": "strings",
    "resources": "string",
}
_PLACE = ("sequence_id", "organization_id", "location_id", "robot_id", "part_id")
_SOURCE = ("component_type", "component_name", "method_name")
_BINARY = {
    **dict.fromkeys((*_PLACE, "binary_data_id", *_SOURCE, "file_name", "mime_type"), "string"),
    **dict.fromkeys(("time_requested", "time_received"), "string"),
    "tags": "strings",
    "boxes": "string",
    "data": "binary",
}
_TABULAR = {
    **dict.fromkeys((*_PLACE, *_SOURCE, "time_requested", "time_received"), "string"),
    "tags": "strings",
    "data": "string",
}


def _write(file: IO[bytes], columns: dict[str, str], rows: Iterable[Row]) -> None:
    pa = require_library()
    import pyarrow.parquet as pq

    types = {"string": pa.string(), "strings": pa.list_(pa.string()), "binary": pa.binary()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    with pq.ParquetWriter(file, schema) as writer:
        group: list[Row] = []
        size = 0
        for row in rows:
            group.append(row)
            size += len(row.get("data") or ())
            if len(group) >= _GROUP_ROWS or size >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group, size = [], 0
        writer.write_table(pa.Table.from_pylist(group, schema))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _place(one: CapturedSequence) -> Row:
    return {
        "sequence_id": one.id,
        "organization_id": one.organization_id,
        "location_id": one.location_id,
        "robot_id": one.machine_id,
        "part_id": one.part_id,
    }


def _sequence(one: CapturedSequence) -> Row:
    resources = [{"resource_name": name, "method_name": method} for name, method in one.covers.resources]
    times = {"start_time": iso(one.covers.start_ns), "end_time": iso(one.covers.end_ns)}
    return _place(one) | times | {"tags": list(one.covers.tags), "resources": json.dumps(resources)}


def _item(one: CapturedSequence, item: Item, content: bytes) -> Row:
    drawn = [one.box for one in item.boxes]
    boxes = [[box.label, box.x_min, box.y_min, box.x_max, box.y_max, box.confidence] for box in drawn]
    return _place(one) | {
        "binary_data_id": item.binary_data_id,
        "component_type": item.origin.component_type,
        "component_name": item.origin.component_name,
        "method_name": item.origin.method,
        "file_name": item.file_name,
        "mime_type": item.origin.mime_type,
        "time_requested": iso(item.captured_ns),
        "time_received": iso(item.received_ns),
        "tags": list(item.tags),
        "boxes": json.dumps(boxes),
        "data": content,
    }


def _reading(one: CapturedSequence, reading: Reading) -> Row:
    return _place(one) | {
        "component_type": reading.origin.component_type,
        "component_name": reading.origin.component_name,
        "method_name": reading.origin.method,
        "time_requested": iso(reading.requested_ns),
        "time_received": iso(reading.received_ns),
        "tags": list(reading.tags),
        "data": json.dumps(reading.data, ensure_ascii=False, default=str),
    }
