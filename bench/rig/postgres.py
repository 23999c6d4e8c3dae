"""PostgreSQL as people use it for pictures: a table with metadata and a `bytea`, inserted through psycopg, fsync on.

A server of its own, with Debian's defaults, on a unix socket; each of the senders has a connection and commits each picture.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg

from rig.peers import NoPeers

_TABLE = """CREATE TABLE picture (
    row bigserial PRIMARY KEY, idempotency_key bytea NOT NULL UNIQUE, captured_ns bigint NOT NULL, part_id text NOT NULL,
    component_name text NOT NULL, method text NOT NULL, mime_type text NOT NULL, size_bytes int NOT NULL, tags text[],
    data bytea NOT NULL)"""
_EXTERNAL = "ALTER TABLE picture ALTER data SET STORAGE EXTERNAL"  # JPEGs do not compress; spares it the attempt
_INSERT = (
    "INSERT INTO picture (idempotency_key, captured_ns, part_id, component_name, method, mime_type, size_bytes, tags, data) "
    "VALUES (%b, %b, 'part', 'cam', 'ReadImage', 'image/jpeg', %b, '{bench}', %b) ON CONFLICT DO NOTHING"
)


class Postgres:
    def __init__(self, sockets: Path, pid: int) -> None:
        self._sockets, self._pid = sockets, pid

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self._sockets), user="postgres", dbname="postgres", autocommit=True)

    def url(self, name: str) -> str:
        """As `GLEANER_DATABASE_URL` takes it."""
        return f"postgresql+psycopg://postgres@/{name}?host={self._sockets}"

    def make_table(self) -> None:
        with self.connect() as db:
            db.execute("DROP TABLE IF EXISTS picture")
            db.execute(_TABLE)
            db.execute(_EXTERNAL)
            db.execute("CHECKPOINT")

    def sender(self) -> tuple[Callable[[int, bytes], None], Callable[[], None]]:
        """Stores one picture durably; closes."""
        db = self.connect()
        cursor = db.cursor()

        def store(number: int, data: bytes) -> None:
            cursor.execute(_INSERT, (number.to_bytes(32, "big"), 1_700_000_000 + number, len(data), data))

        return store, db.close

    def cpu_s(self) -> float:
        """Of the server's processes so far, also of those that have ended."""
        server = psutil.Process(self._pid)
        own = server.cpu_times()
        total = own.user + own.system + own.children_user + own.children_system
        for child in server.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                total += times.user + times.system
        return float(total)


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Raises NoPeers."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        raise NoPeers("PostgreSQL is not installed: apt-get install postgresql")
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    data, sockets = folder / "data", folder / "sockets"
    for path in (data, sockets):
        path.mkdir(parents=True)
        if as_user:
            shutil.chown(path, "postgres")
    for parent in (folder, *folder.parents):
        if as_user and not parent.stat().st_mode & 0o001 and parent.stat().st_uid == os.geteuid():
            raise NoPeers(f"{parent} cannot be entered by the postgres user")

    def run(name: str, *arguments: str | Path) -> None:
        subprocess.run([*as_user, str(binaries[-1] / name), *map(str, arguments)], capture_output=True, check=True)

    run("initdb", "-D", data, "-U", "postgres", "-A", "trust")
    options = f"-c listen_addresses='' -c max_connections=200 -k {sockets}"
    run("pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start")
    try:
        yield Postgres(sockets, int((data / "postmaster.pid").read_text().split("\n", 1)[0]))
    finally:
        run("pg_ctl", "-D", data, "-m", "fast", "stop")
