"""Readings stored and asked, beside InfluxDB in the same run, on the same disk, taking turns in nothing else.

    make -s bench ONLY=readings          # ROWS=20000000 in the environment for the size that is promised

Eight parts say {temp, hum, ok, state, n, mix} every ten seconds; one `mix` in a thousand is text (InfluxDB refuses it, so
there it is left out). Both get batches of 2,500 readings, a sender for each part, and acknowledge after fsync.
- ingest: our door takes capture files as machines send them; InfluxDB takes its line protocol. Making both is not counted.
  `compact_s` is what the background then needs for Parquet (in the app it happens meanwhile).
- hourly: mean, largest and count per part and hour over everything; full_scan: one aggregate over everything;
  part_2d: hourly values of one part over two days. Ours by the SQL service, encrypted, with its checks; theirs by HTTP.
The last line is JSON; `x_…` is ours over theirs, above 1 is better. Without InfluxDB (Debian: influxdb) SQLite stands in.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.app.caller import Caller, CallerKind, Grant, Role
from gleaner.app.database import Database
from gleaner.app.events import EventBus
from gleaner.app.keys import Keys
from gleaner.app.lake.compaction import Compactor
from gleaner.app.services.fleet_values import Place
from gleaner.app.services.queries import QueryService
from gleaner.app.store.ingest import Ingest
from gleaner.app.store.objects import LocalObjects
from gleaner.app.store.packs import PackStore
from gleaner.app.store.records import derived_key
from gleaner.app.store.uploads import from_capture_file
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import ReadingEncoder

ROWS = int(os.environ.get("ROWS", "200000"))
PARTS, BATCH, STEP_S, ROUNDS = 8, 2_500, 10, 3
SENDERS = PARTS
START_S = 1_700_000_000
OWNER = Caller(CallerKind.USER, "u", "Bench", (Grant("organization", "org", Role.OWNER, "org"),))
HEADER = encode_header(
    DataCaptureMetadata(
        component_type="rdk:component:sensor",
        component_name="sensor",
        method_name="Readings",
        type=DataType.DATA_TYPE_TABULAR_SENSOR,
    )
)
Rows = list[tuple[int, dict[str, object]]]


class Peer(Protocol):
    name: str

    def send(self, part: int, body: bytes) -> None: ...
    def encode(self, part: int, rows: Rows) -> bytes: ...
    def hourly(self) -> int: ...
    def part_two_days(self) -> int: ...


def batches() -> Iterator[tuple[int, Rows]]:
    noise = random.Random(7)
    for number in range(max(ROWS // BATCH, PARTS)):
        part, first = number % PARTS, number // PARTS * BATCH
        yield (
            part,
            [
                (
                    (START_S + at * STEP_S) * 10**9,
                    {
                        "temp": round(20 + 5 * noise.random(), 2),
                        "hum": noise.random(),
                        "ok": at % 7 > 0,
                        "state": "idle" if at % 3 else "busy",
                        "n": float(at),
                        "mix": "n/a" if at % 1000 == 0 else 3.0,
                    },
                )
                for at in range(first, first + BATCH)
            ],
        )


class Gleaner:
    name = "gleaner"

    def __init__(self, folder: Path) -> None:
        keys = Keys.open(folder, {})
        self.database = Database.sqlite(folder / "metadata.db", keys.database)
        self.database.create_tables()
        self.packs = PackStore(LocalObjects(folder / "packs"), self.database, keys)
        self.ingest = Ingest(self.packs, self.database, EventBus())
        self.ingest.start()
        self.queries = QueryService(self.database, self.packs, seconds=600)
        self._encoder = ReadingEncoder()

    def close(self) -> None:
        self.queries.stop()
        self.ingest.stop()
        self.database.close()

    def encode(self, part: int, rows: Rows) -> bytes:
        records = [encode_record(self._encoder.encode(at, at, {"readings": data})) for at, data in rows]
        return b"".join([HEADER, *records])

    def send(self, part: int, body: bytes) -> None:
        place = Place(f"part-{part}", "main", f"machine-{part}", "rover", "location", "Lab", "org")
        upload = from_capture_file(body, place, derived_key(part, body), time.time_ns())
        assert upload is not None
        self.ingest.submit(upload).result()

    def ask(self, text: str) -> int:
        return len(self.queries.sql(OWNER, "org", text).rows)

    def hourly(self) -> int:
        return self.ask(
            "SELECT part_id, date_trunc('hour', time_requested) AS hour, avg(data.readings.temp) AS mean, "
            "max(data.readings.hum) AS top, count(*) AS n FROM readings GROUP BY ALL"
        )

    def full_scan(self) -> int:
        return self.ask(
            "SELECT count(*), avg(data.readings.temp), max(data.readings.hum), sum(data.readings.mix) FROM readings"
        )

    def part_two_days(self) -> int:
        return self.ask(
            "SELECT date_trunc('hour', time_requested) AS hour, avg(data.readings.temp) AS mean FROM readings "
            f"WHERE part_id = 'part-1' AND time_requested >= make_timestamp({START_S * 10**6}::BIGINT) "
            f"AND time_requested < make_timestamp({(START_S + 2 * 86_400) * 10**6}::BIGINT) GROUP BY 1"
        )


class Influx:
    name = "influxdb"

    def __init__(self, port: int) -> None:
        self._port = port
        self._local = threading.local()
        self._call("POST", "/query?" + urllib.parse.urlencode({"q": "CREATE DATABASE bench"}), b"")

    def encode(self, part: int, rows: Rows) -> bytes:
        return "\n".join(f"readings,part=part-{part} {_line_fields(data)} {at}" for at, data in rows).encode()

    def send(self, part: int, body: bytes) -> None:
        self._call("POST", "/write?db=bench&precision=ns", body)

    def _ask(self, query: str) -> int:
        answer = json.loads(self._call("GET", "/query?" + urllib.parse.urlencode({"db": "bench", "q": query}), b""))
        return sum(len(one["values"]) for one in answer["results"][0].get("series", ()))

    def hourly(self) -> int:
        end_s = START_S + (ROWS // PARTS + BATCH) * STEP_S
        return self._ask(
            "SELECT mean(temp), max(hum), count(temp) FROM readings "
            f"WHERE time >= {START_S}s AND time < {end_s}s GROUP BY part, time(1h) fill(none)"
        )

    def part_two_days(self) -> int:
        return self._ask(
            f"SELECT mean(temp) FROM readings WHERE part = 'part-1' AND time >= {START_S}s "
            f"AND time < {START_S + 2 * 86_400}s GROUP BY time(1h) fill(none)"
        )

    def _call(self, method: str, path: str, body: bytes) -> bytes:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
        self._local.connection.request(method, path, body)
        answer = self._local.connection.getresponse()
        text: bytes = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"InfluxDB said {answer.status}: {text[:300]!r}")
        return text


class Sqlite:
    name = "sqlite"

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE r (part INT, at INT, temp REAL, hum REAL, whole TEXT, PRIMARY KEY (part, at)) WITHOUT ROWID"
        )

    def encode(self, part: int, rows: Rows) -> bytes:
        return json.dumps(rows).encode()

    def send(self, part: int, body: bytes) -> None:
        rows = [(part, at // 10**9, one["temp"], one["hum"], json.dumps(one)) for at, one in json.loads(body)]
        with self._lock:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO r VALUES (?, ?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")

    def hourly(self) -> int:
        return len(
            self._db.execute("SELECT part, at / 3600, avg(temp), max(hum), count(*) FROM r GROUP BY 1, 2").fetchall()
        )

    def part_two_days(self) -> int:
        query = "SELECT at / 3600, avg(temp) FROM r WHERE part = 1 AND at >= ? AND at < ? GROUP BY 1"
        return len(self._db.execute(query, (START_S, START_S + 2 * 86_400)).fetchall())


def _line_fields(data: dict[str, object]) -> str:
    words = []
    for key, value in data.items():
        if key == "mix" and isinstance(value, str):
            continue
        words.append(f'{key}="{value}"' if isinstance(value, str) else f"{key}={str(value).lower()}")
    return ",".join(words)


def ingested(stores: list[Peer]) -> dict[str, float]:
    """Seconds each store took, batches in chunks so that what waits to be sent stays small."""
    seconds = dict.fromkeys((one.name for one in stores), 0.0)
    waiting: list[tuple[int, Rows]] = []

    def flush() -> None:
        for store in stores:
            bodies = iter([(part, store.encode(part, rows)) for part, rows in waiting])
            seconds[store.name] += _sent(store, bodies)
        waiting.clear()

    for batch in batches():
        waiting.append(batch)
        if len(waiting) == 40:
            flush()
    flush()
    return seconds


def _sent(store: Peer, bodies: Iterator[tuple[int, bytes]]) -> float:
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                one = next(bodies, None)
            if one is None:
                return
            store.send(*one)

    threads = [threading.Thread(target=work) for _ in range(SENDERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def median_s(ask: Callable[[], int], expected: int | None = None) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = ask()
        times.append(time.perf_counter() - began)
        if expected is not None and found != expected:
            raise SystemExit(f"{found} rows were answered, expected {expected}")
    return statistics.median(times)


@contextmanager
def influxdb(folder: Path) -> Iterator[Influx | None]:
    program = shutil.which("influxd")
    if program is None:
        yield None
        return
    http_port, rpc_port = _free_port(), _free_port()
    config = folder / "influxdb.conf"
    config.write_text(
        f'reporting-disabled = true\nbind-address = "127.0.0.1:{rpc_port}"\n[meta]\ndir = "{folder}/meta"\n'
        f'[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\nquery-log-enabled = false\n'
        f'[monitor]\nstore-enabled = false\n[http]\nbind-address = "127.0.0.1:{http_port}"\nlog-enabled = false\n'
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-config", str(config)], stdout=log, stderr=log)
    try:
        _wait_for(http_port)
        yield Influx(http_port)
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("InfluxDB did not start")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gleaner-bench-", dir=os.environ.get("FOLDER")) as name:
        folder = Path(name)
        (folder / "peer").mkdir()
        (folder / "ours").mkdir()
        ours = Gleaner(folder / "ours")
        with closing(ours), influxdb(folder / "peer") as influx:
            peer: Peer = influx or Sqlite(folder / "peer" / "r.db")
            seconds = ingested([ours, peer])
            began = time.perf_counter()
            Compactor(ours.database, ours.packs).compact(everything=True)
            compact_s = time.perf_counter() - began
            rows = max(ROWS // BATCH, PARTS) * BATCH
            hourly_s, full_s, part_s = median_s(ours.hourly), median_s(ours.full_scan, 1), median_s(ours.part_two_days)
            their_hourly_s, their_part_s = median_s(peer.hourly, ours.hourly()), median_s(peer.part_two_days)
        print(
            json.dumps(
                {
                    "bench": "readings",
                    "rows": rows,
                    "peer": peer.name,
                    "readings_per_s": round(rows / seconds["gleaner"]),
                    "peer_readings_per_s": round(rows / seconds[peer.name]),
                    "x_influx_ingest": round(seconds[peer.name] / seconds["gleaner"], 2),
                    "compact_s": round(compact_s, 1),
                    "hourly_s": round(hourly_s, 3),
                    "peer_hourly_s": round(their_hourly_s, 3),
                    "x_influx_query": round(their_hourly_s / hourly_s, 2),
                    "full_scan_s": round(full_s, 3),
                    "part_2d_ms": round(part_s * 1000, 1),
                    "peer_part_2d_ms": round(their_part_s * 1000, 1),
                }
            )
        )


if __name__ == "__main__":
    main()
