"""Pictures stored a second by one and by two ingest processes that share a PostgreSQL and a folder of packs.

    make -s bench ONLY=ingest_processes  # ARGS="--pictures … --kilobytes … --in-flight … --rounds … --folder …"

Beside them one process on SQLite, which has one writer and therefore one process. Each process has so many pictures in
flight and stores its own; then all of them must be there once. Medians of the rounds; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.events import EventBus
from gleaner.app.keys import Keys
from gleaner.app.store import tables as t
from gleaner.app.store.ingest import Ingest
from gleaner.app.store.objects import LocalObjects
from gleaner.app.store.packs import PackStore
from gleaner.wire.memory import collect_rarely, keep_memory
from ingest import KEPT_BYTES, Pictures, in_flight
from rig.peers import NoPeers
from rig.postgres import Postgres, postgres


def opened(folder: Path, url: str) -> Database:
    keys = Keys.open(folder, {})
    return Database.from_url(url) if url else Database.sqlite(folder / "metadata.db", keys.database)


def work(folder: Path, url: str, numbers: range, chosen: argparse.Namespace, together: Barrier) -> None:
    keep_memory(KEPT_BYTES)
    collect_rarely()
    pictures, database = Pictures(chosen.kilobytes * 1000), opened(folder, url)
    ingest = Ingest(PackStore(LocalObjects(folder / "packs"), database, Keys.open(folder, {})), database, EventBus())
    ingest.start()
    together.wait()
    try:
        in_flight(ingest, pictures, iter(numbers), chosen.in_flight)
        together.wait()
    finally:
        ingest.stop()
        database.close()


def rate(folder: Path, url: str, processes: int, chosen: argparse.Namespace) -> float:
    folder.mkdir()
    database = opened(folder, url)
    database.create_tables()
    # Not forked: threads and connections do not survive it.
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(processes + 1)
    ranges = [range(n * chosen.pictures, (n + 1) * chosen.pictures) for n in range(processes)]
    workers = [context.Process(target=work, args=(folder, url, one, chosen, together)) for one in ranges]
    for worker in workers:
        worker.start()
    together.wait()
    began = time.perf_counter()
    together.wait()
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    with database.read() as db:
        stored = db.scalar(sa.select(sa.func.count()).select_from(t.item))
    database.close()
    shutil.rmtree(folder)
    if stored != processes * chosen.pictures:
        raise RuntimeError(f"{stored} of {processes * chosen.pictures} pictures are stored")
    return float(processes * chosen.pictures / seconds)


def fresh(server: Postgres) -> str:
    """An empty database of its own."""
    name = f"bench{time.monotonic_ns()}"
    with server.connect() as db:
        db.execute(f"CREATE DATABASE {name}".encode())
    return server.url(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000, help="of each process")
    parser.add_argument("--kilobytes", type=int, default=30)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to be measured")
    chosen = parser.parse_args()
    found: dict[str, list[float]] = {"sqlite_1": [], "postgresql_1": [], "postgresql_2": []}
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=chosen.folder) as made:
        base = Path(made)
        base.chmod(0o755)
        try:
            with postgres(base / "postgres") as server:
                for number in range(chosen.rounds):
                    found["sqlite_1"].append(rate(base / f"{number}-sqlite", "", 1, chosen))
                    for count in (1, 2):
                        folder = base / f"{number}-{count}"
                        found[f"postgresql_{count}"].append(rate(folder, fresh(server), count, chosen))
        except NoPeers as why:
            raise SystemExit(f"There is nothing to share: {why}") from None
    report = {f"{name}_per_s": round(statistics.median(rates), 1) for name, rates in found.items()}
    pairs = zip(found["postgresql_2"], found["postgresql_1"], strict=True)
    print(json.dumps(report | {"x_two_processes": round(statistics.median(two / one for two, one in pairs), 2)}))


if __name__ == "__main__":
    main()
