"""A PostgreSQL server of the tests' own, in a folder of theirs: started when the first test wants it, gone with the run."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg

USER = "postgres"


def programs() -> Path | None:
    """Where `initdb` is: the newest of Debian's, or the one in PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if debian:
        return debian[-1]
    found = shutil.which("initdb")
    return Path(found).parent if found else None


class Server:
    """Listens on a socket file only."""

    def __init__(self, folder: Path, user: str) -> None:
        self._folder = folder
        self._user = user

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The name of a new database, a copy of the template; gone at the end."""
        name = f"test_{uuid.uuid4().hex}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield name
        finally:
            self._run(f'DROP DATABASE "{name}" WITH (FORCE)')

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://{self._user}@/{name}?host={self._folder}"

    def _run(self, statement: str) -> None:
        with psycopg.connect(host=str(self._folder), user=self._user, dbname="postgres", autocommit=True) as db:
            db.execute(statement.encode())


@contextlib.contextmanager
def postgres_server() -> Iterator[Server]:
    found = programs()
    assert found is not None, "PostgreSQL is not installed: apt-get install -y postgresql"
    # Not below the tests' own folder: a socket's path must be short, and the server's user must be able to reach it.
    folder = Path(tempfile.mkdtemp(prefix="gleaner-pg-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, USER)
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]

    def run(program: str, *arguments: str) -> None:
        subprocess.run([*as_user, str(found / program), *arguments], check=True, capture_output=True, cwd=folder)

    data = folder / "data"
    try:
        run("initdb", "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        run(
            "pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", f"-k {folder} -h '' -c fsync=off", "start"
        )
        try:
            yield Server(folder, USER)
        finally:
            run("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
