"""Lake files: Parquet in packs, opened by DuckDB as `lake://<id>` through a file system that decrypts what is read.

DuckDB's own Parquet encryption fails on filtered reads (duckdb issue 24785) and would need keys outside of `keys.py`; here
only the 64 KiB segments that a query touches are opened, in memory. A file system knows the files it was given and no
others, so whoever reaches it, reaches no more than those.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from gleaner.app.lake import schema
from gleaner.app.lake.schema import Columns
from gleaner.app.store import tables as t
from gleaner.app.store.pack_format import Position
from gleaner.app.store.packs import PackStore

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PROTOCOL = "lake"
_LAKE = t.lake_file.c
_NEVER = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class LakeFile:
    """`deleted`: batches of it whose readings no longer count."""

    id: int
    origin_id: int
    pack_id: int
    position: Position
    count: int
    first_ns: int
    last_ns: int
    columns: Columns
    deleted: tuple[int, ...] = ()

    @property
    def address(self) -> str:
        return f"{PROTOCOL}://{self.id}"


def find(db: sa.Connection, *where: sa.ColumnElement[bool]) -> list[LakeFile]:
    """Oldest readings first."""
    rows = db.execute(sa.select(t.lake_file).where(*where).order_by(_LAKE.first_ns, _LAKE.id)).all()
    batch = t.readings_batch.c
    deleted: dict[int, list[int]] = {}
    gone = sa.select(batch.lake_id, batch.id).where(batch.lake_id.is_not(None), batch.deleted_ns.is_not(None))
    for lake_id, batch_id in db.execute(gone):
        deleted.setdefault(lake_id, []).append(batch_id)
    return [
        LakeFile(
            one.id,
            one.origin_id,
            one.pack_id,
            Position(one.record_offset, one.body_offset, one.size_bytes),
            one._mapping["count"],
            one.first_ns,
            one.last_ns,
            schema.loaded(one.columns),
            tuple(deleted.get(one.id, ())),
        )
        for one in rows
    ]


def file_system(
    packs: PackStore, files: Iterable[LakeFile], on_damage: Callable[[LakeFile], object] = lambda file: None
) -> AbstractFileSystem:
    """For `DuckDBPyConnection.register_filesystem`. `on_damage`: told of a file that cannot be read, before DuckDB is."""
    from fsspec import AbstractFileSystem

    known: Mapping[str, LakeFile] = {str(one.id): one for one in files}

    class LakeFileSystem(AbstractFileSystem):  # type: ignore[misc]
        protocol = PROTOCOL
        cachable = False

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            return {"name": path, "size": self._file(path).position.size, "type": "file"}

        def exists(self, path: str, **_: Any) -> bool:
            return path.removeprefix(f"{PROTOCOL}://") in known

        def glob(self, path: str, **_: Any) -> list[str]:
            return [path] if self.exists(path) else []

        def modified(self, path: str) -> dt.datetime:
            return _NEVER

        def _open(self, path: str, mode: str = "rb", **_: Any) -> _Opened:
            if mode != "rb":
                raise PermissionError("lake files are never changed")
            return _Opened(packs, self._file(path), on_damage)

        def _file(self, path: str) -> LakeFile:
            try:
                return known[path.removeprefix(f"{PROTOCOL}://")]
            except KeyError:
                raise FileNotFoundError(path) from None

    return LakeFileSystem()


class _Opened(io.RawIOBase):
    def __init__(self, packs: PackStore, file: LakeFile, on_damage: Callable[[LakeFile], object]) -> None:
        super().__init__()
        self._packs, self._file, self._at, self._on_damage = packs, file, 0, on_damage

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.position.size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        length = None if size is None or size < 0 else size
        try:
            data = self._packs.read(self._file.pack_id, self._file.position, self._at, length)
        except (InvalidTag, OSError):
            self._on_damage(self._file)
            raise
        self._at += len(data)
        return data
