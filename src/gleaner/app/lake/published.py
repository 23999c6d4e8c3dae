"""The lake as plain Parquet in a folder, for programs that know nothing of packs and keys: DuckDB, Spark, Ray Data, pandas.

Layout: `<folder>/<part>/<component>/<method>/<file>-<batches deleted>.parquet`. Run again, it writes what is new and removes what
the lake has no more (merged or deleted readings), and touches nothing else. A file appears under its name once it is whole.
In the clear: whoever may read the folder reads the readings. Readings that are in no lake file yet (at most some minutes old)
come with a later run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.lake import files, schema
from gleaner.app.lake.engine import caged
from gleaner.app.lake.files import LakeFile
from gleaner.app.store import tables as t
from gleaner.app.store.packs import PackStore

_MEMORY_MB = 512
_UNFINISHED = ".part"


@dataclass(frozen=True)
class Published:
    files: int
    written: int
    removed: int
    rows: int


def publish(
    packs: PackStore, database: Database, folder: Path, progress: Callable[[int, int], None] = lambda *_: None
) -> Published:
    """Makes the folder what the lake is now. `progress` is told files done and files in all. Raises OSError."""
    with database.read() as db:
        there = files.find(db)
        origins = {one.id: one for one in db.execute(sa.select(t.origin))}
    wanted: dict[Path, LakeFile] = {}
    for one in there:
        origin = origins[one.origin_id]
        names = (origin.part_id, origin.component_name, origin.method)
        series = folder.joinpath(*(quote(name, safe=" ").replace(".", "%2E") or "-" for name in names))
        wanted[series / f"{one.id:012d}-{len(one.deleted)}.parquet"] = one
    written = 0
    for done, (path, one) in enumerate(wanted.items()):
        if not path.exists():
            _write(packs, one, path)
            written += 1
        progress(done + 1, len(wanted))
    outdated = [path for path in folder.glob("*/*/*/*.parquet") if path not in wanted]
    for path in outdated:
        path.unlink()
    return Published(len(wanted), written, len(outdated), sum(one.count for one in there))


def _write(packs: PackStore, file: LakeFile, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_suffix(_UNFINISHED)
    try:
        if file.deleted:
            kept = (
                f"SELECT * FROM read_parquet('{file.address}') WHERE batch NOT IN ({', '.join(map(str, file.deleted))})"
            )
            with caged(packs, [file], memory_mb=_MEMORY_MB, written=[str(unfinished)]) as duck:
                target = schema.literal(str(unfinished))
                duck.execute(f"COPY ({kept}) TO {target} (FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false)")
        else:
            with unfinished.open("wb") as opened:
                for piece in packs.chunks(file.pack_id, file.position):
                    opened.write(piece)
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
