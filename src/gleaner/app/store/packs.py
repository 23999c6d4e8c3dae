"""Packs: the one place where captured bytes rest.

Invariants
- A pack is written once, whole, under a name never used before, and never changed (`pack_format` is its inside).
- Every pack has its own random data key, wrapped by the key-encryption key, inside the pack and in the table `pack`.
- A record counts when the metadata transaction that names it has committed; before that its pack is an *orphan*.
- Bytes are acknowledged only after pack and metadata are both on disk, in that order.

Layout: `data_dir/packs/<day>/<time>-<random>.pack`, or the same below `--store s3://…`; a day per folder so that folders stay small.
Writers: the ingest threads and the thumbnail thread. Deleters: `adopt_orphans` (at start, packs that hold nothing new) and
the cleaner (`store/cleaning.py`, packs no living record needs).
A crash leaves: files in `tmp/` (removed at start) or an orphan (adopted or removed at start). Nothing acknowledged is touched.
"""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gleaner.app.database import Database
from gleaner.app.keys import Keys
from gleaner.app.store import pack_format
from gleaner.app.store.object_store import Objects
from gleaner.app.store.pack_format import FoundRecord, Position, RecordWriter
from gleaner.app.store.payload import CHUNK_BYTES, SEGMENT_BYTES, Payload
from gleaner.app.store.tables import pack as pack_table

_PURPOSE = "pack"
# Of 3 KB each; looking one up again takes a tenth of a millisecond.
_OPEN_KEYS = 512


@dataclass(frozen=True)
class PackRecord:
    """What goes into a pack: `header` is JSON-able and holds all that the index needs."""

    header: dict[str, Any]
    payload: Payload


@dataclass(frozen=True)
class WrittenPack:
    """A durable pack that the metadata does not know yet. `positions` follows the order of the records."""

    name: str
    wrapped_key: bytes
    positions: tuple[Position, ...]
    created_ns: int


class PackStore:
    """Writes and reads packs. Thread-safe."""

    def __init__(self, objects: Objects, database: Database, keys: Keys) -> None:
        self.objects = objects
        self._database = database
        self._keys = keys
        self._open: OrderedDict[int, tuple[str, AESGCM]] = OrderedDict()
        self._lock = threading.Lock()

    def write(self, records: Sequence[PackRecord], now_ns: int, *, durable: bool = True) -> WrittenPack:
        """Writes one pack; with `durable` it survives a power cut once this returns. Raises OSError."""
        key = AESGCM.generate_key(256)
        wrapped = self._keys.wrap(key, _PURPOSE)
        writer = RecordWriter(key, pack_format.pack_start(wrapped))
        name = _new_name(now_ns)
        self.objects.put(name, _pieces(writer, records), durable=durable)
        return WrittenPack(name, wrapped, tuple(writer.positions), now_ns)

    def read(self, pack_id: int, position: Position, start: int = 0, length: int | None = None) -> bytes:
        """A range of a record's payload, `length` bytes from `start` (all by default, cut at the end)."""
        return b"".join(self.chunks(pack_id, position, start, length))

    def chunks(self, pack_id: int, position: Position, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """As `read`, in pieces of about 1 MiB. Raises FileNotFoundError, InvalidTag (the file was changed)."""
        end = position.size if length is None else min(position.size, start + length)
        if start >= end:
            return
        name, cipher = self._opened(pack_id)
        per_read = CHUNK_BYTES // SEGMENT_BYTES
        last = (end - 1) // SEGMENT_BYTES
        for first in range(start // SEGMENT_BYTES, last + 1, per_read):
            begin = first * SEGMENT_BYTES
            plain_size = min((min(first + per_read, last + 1)) * SEGMENT_BYTES, position.size) - begin
            offset = position.body_offset + first * (SEGMENT_BYTES + pack_format.TAG_BYTES)
            sealed = self.objects.read(name, offset, pack_format.sealed_size(plain_size))
            plain = pack_format.open_segments(cipher, position, first, sealed)
            yield plain[max(start - begin, 0) : end - begin]

    def scan(self, name: str, *, check_bodies: bool) -> tuple[bytes, list[FoundRecord]]:
        """The wrapped key and whole records of a pack; no records if it is torn from the start. Raises KeyProblem."""
        reader = _ObjectReader(self.objects, name)
        start = pack_format.read_pack_start(reader.read(0, min(reader.size, 1024)))
        if start is None:
            return b"", []
        wrapped, first = start
        cipher = AESGCM(self._keys.unwrap(wrapped, _PURPOSE))
        return wrapped, list(pack_format.scan_records(reader, cipher, first, check_bodies=check_bodies))

    def data_key(self, pack_id: int) -> tuple[str, bytes]:
        """A pack's name and its key, for a process that may read this pack and no other. Raises FileNotFoundError."""
        with self._database.read() as db:
            row = db.execute(
                sa.select(pack_table.c.name, pack_table.c.wrapped_key).where(pack_table.c.id == pack_id)
            ).one_or_none()
        if row is None:
            raise FileNotFoundError(f"pack {pack_id} is not known")
        return str(row.name), self._keys.unwrap(row.wrapped_key, _PURPOSE)

    def delete(self, name: str) -> None:
        self.objects.delete(name)

    def _opened(self, pack_id: int) -> tuple[str, AESGCM]:
        with self._lock:
            if found := self._open.get(pack_id):
                self._open.move_to_end(pack_id)
                return found
        name, key = self.data_key(pack_id)
        opened = (name, AESGCM(key))
        with self._lock:
            self._open[pack_id] = opened
            if len(self._open) > _OPEN_KEYS:
                self._open.popitem(last=False)
        return opened


def _pieces(writer: RecordWriter, records: Sequence[PackRecord]) -> Iterator[bytes]:
    yield writer.start()
    for record in records:
        yield from writer.record(record.header, record.payload)


def _new_name(now_ns: int) -> str:
    day = dt.datetime.fromtimestamp(now_ns / 1e9, dt.UTC).strftime("%Y-%m-%d")
    return f"{day}/{now_ns:016x}-{uuid.uuid4().hex[:12]}.pack"


class _ObjectReader(pack_format.RangeReader):
    """Reads small ranges of an object through a window, so that a scan asks the store for megabytes at a time."""

    def __init__(self, objects: Objects, name: str) -> None:
        super().__init__(objects.size(name))
        self._objects, self._name = objects, name
        self._start, self._window = 0, b""

    def read(self, start: int, length: int) -> bytes:
        if not self._start <= start <= start + length <= self._start + len(self._window):
            wanted = min(max(length, CHUNK_BYTES), self.size - start)
            self._start = start
            self._window = self._objects.read(self._name, start, wanted) if wanted > 0 else b""
        begin = start - self._start
        return self._window[begin : begin + length]
