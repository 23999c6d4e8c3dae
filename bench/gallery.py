"""The gallery at a million items, through HTTP, beside PostgreSQL asked for the same.

    make -s bench ONLY=gallery           # ARGS="--items 1000000 --repeat 15"

Items of 20 machines with 3 cameras each, 10 tags (half the items have one or more), boxes on a tenth, a dataset of a tenth.
- page: the first 60 items, asked for as soon as the first 1,000 of all matching rows are there, as the page does; whole_page:
  with all rows before them, as it did earlier;
- filter: the list of rows and all facets (counts beside every filter) for filters of every kind;
- jump: the 60 items at a place chosen at random in the whole list;
- tag: 10,000 items tagged at once;
- thumbnails: those that are stored, over 8 connections, by a client that is no more than TLS and sockets and by httpx; and what
  one costs the app of processor time.
PostgreSQL (Debian's, indexes on every column that is filtered by, not encrypted) answers count, facets and 60 rows over its own
socket, in the same Python. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import random
import ssl
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import sqlalchemy as sa

from gleaner.app.assembly import build_context
from gleaner.app.settings import Settings
from gleaner.app.store import tables as t
from gleaner.app.store.packs import PackRecord
from gleaner.app.store.payload import MemoryPayload
from rig.app import App, running_app

TAGS = [f"tag {n}" for n in range(10)]
MACHINES, CAMERAS = 20, 3
START_NS = 1_780_000_000 * 10**9
PERIOD_NS = 10**9
THUMBNAILS = 2000
FIRST_BYTES = 4000


def fill(data_dir: Path, count: int) -> str:
    """A store with `count` items; returns its organization. The bytes of all of them are one small record."""
    context = build_context(Settings(data_dir=data_dir))
    context.database.create_tables()
    context.auth.bootstrap("owner@localhost")
    [organization] = context.auth.first_owner().organization_ids()
    chance = random.Random(5)
    jpeg = MemoryPayload(b"\xff\xd8\xff" + chance.randbytes(6_000))
    pack = context.packs.write([PackRecord({"record": "bench"}, jpeg)], START_NS)
    [place] = pack.positions
    stored = {
        "pack_id": 1,
        "record_offset": place.record_offset,
        "body_offset": place.body_offset,
        "size_bytes": place.size,
    }
    with context.database.write() as db:
        db.execute(
            t.pack.insert().values(id=1, name=pack.name, wrapped_key=pack.wrapped_key, records=count, created_ns=1)
        )
        db.execute(t.origin.insert(), list(origins(organization)))
        db.execute(
            t.dataset.insert().values(id="d", organization_id=organization, name="tenth", created_ns=1, type="binary")
        )
    for start in range(0, count, 20_000):
        rows = range(start + 1, min(start + 20_000, count) + 1)
        with context.database.write() as db:
            db.execute(t.item.insert(), [item(row, chance, stored) for row in rows])
            tags = [(row, tag) for row in rows for tag in chance.sample(TAGS, chance.choice((0, 0, 1, 2)))]
            db.execute(t.item_tag.insert(), [{"row": row, "tag": tag} for row, tag in tags])
            db.execute(t.item_box.insert(), [box(row, chance) for row in rows[::10]])
            db.execute(t.dataset_item.insert(), [{"dataset_id": "d", "row": row} for row in rows[::10]])
            db.execute(t.item_hash.insert(), list(hashes(rows)))
            if start == 0:
                db.execute(t.thumbnail.insert(), [{"row": row} | stored for row in rows[:THUMBNAILS]])
    with context.database.write() as db:
        counted = sa.select(sa.func.count()).where(t.item_tag.c.row == t.item.c.row).scalar_subquery()
        db.execute(t.item.update().values(tag_count=counted))
    context.database.close()
    return organization


def hashes(rows: range) -> Iterator[dict[str, int]]:
    """Bursts of ten pictures that look the same, each burst like nothing else."""
    for row in rows:
        burst = (row - 1) // 10 * 10 + 1
        bits = random.Random(burst).getrandbits(64) ^ (1 << row % 3)
        yield {"row": row, "hash": bits - (1 << 63), "alike": burst}


def origins(organization: str) -> Any:
    for number in range(MACHINES * CAMERAS):
        machine, camera = divmod(number, CAMERAS)
        names = {"machine_name": f"rover {machine}", "part_name": "main", "location_name": f"Hall {machine % 4}"}
        yield names | {
            "id": number + 1,
            "organization_id": organization,
            "location_id": f"location-{machine % 4}",
            "machine_id": f"machine-{machine}",
            "part_id": f"part-{machine}",
            "component_type": "rdk:component:camera",
            "component_name": f"camera {camera}",
            "method": "ReadImage",
            "mime_type": "image/jpeg",
            "kind": "image",
        }


def item(row: int, chance: random.Random, stored: dict[str, int]) -> dict[str, Any]:
    time_ns = START_NS + row * PERIOD_NS
    return stored | {
        "row": row,
        "file_id": f"{row:032x}",
        "idempotency_key": row.to_bytes(16, "big"),
        "digest": b"",
        "origin_id": chance.randrange(MACHINES * CAMERAS) + 1,
        "synced_ns": time_ns,
        "method_parameters": "",
        "captured_ns": time_ns,
        "received_ns": time_ns,
        "width": 640,
        "height": 480,
        "file_name": "",
        "file_ext": ".jpg",
        "tag_count": 0,
        "classifications": "",
    }


def box(row: int, chance: random.Random) -> dict[str, Any]:
    corners = {"x_min": 0.1, "y_min": 0.1, "x_max": 0.5, "y_max": 0.5, "confidence": chance.random()}
    return corners | {"id": f"b{row}", "row": row, "label": chance.choice(("sign", "person", "car"))}


def filters(count: int) -> list[str]:
    """Query strings: one field alone, several, all, and none."""
    middle = dt.datetime.fromtimestamp(START_NS // 10**9 + count // 2, dt.UTC)
    day = f"start={middle:%Y-%m-%dT%H:%M:%SZ}&end={middle + dt.timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
    return [
        "",
        "tag=tag+3",
        "tagged=untagged",
        "machine_id=machine-7",
        "component_name=camera+1",
        "label=person",
        "dataset_id=d",
        day,
        "tag=tag+1&tag=tag+2&machine_id=machine-3&machine_id=machine-4",
        f"tagged=tagged&component_name=camera+0&label=sign&{day}",
        "search=rover+3",
        "search=tag+3",
        "once=true",
        f"near={count // 2}",
    ]


def p95_ms(times_s: list[float]) -> float:
    return round(statistics.quantiles(times_s, n=20)[18] * 1000, 1)


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def gleaner(app: App, organization: str, count: int, repeat: int) -> dict[str, float]:
    chance = random.Random(7)
    # As a browser does: one connection that stays.
    client = httpx.Client(
        base_url=f"{app.address}/api",
        cookies=app.client.cookies,
        headers={"Origin": app.address},
        verify=ssl.create_default_context(cadata=app.ca_certificate),
        timeout=60,
        trust_env=False,
    )
    query = f"organization_id={organization}"

    def get(path: str) -> bytes:
        return client.get(path).raise_for_status().content

    def post(path: str, body: object) -> Any:
        return client.post(path, json=body).raise_for_status().json()

    deadline = time.monotonic() + 120
    while len(get(f"/items/index?{query}")) != 4 * count and time.monotonic() < deadline:
        time.sleep(0.5)
    app.wait_idle()  # the columns are loaded

    def index(extra: str = "") -> bytes:
        return get(f"/items/index?{query}&{extra}")

    def show(rows: bytes, first: int) -> None:
        few = rows[4 * first : 4 * first + 240]
        found = post("/items/lookup", {"rows": list(struct.unpack(f"<{len(few) // 4}I", few))})["items"]
        assert len(found) == len(few) // 4

    everything = index()

    def first_page() -> float:
        """Seconds until it can be shown; the rest of the list comes afterwards."""
        began = time.perf_counter()
        with client.stream("GET", f"/items/index?{query}") as answer:
            parts, rows = answer.raise_for_status().iter_bytes(), b""
            while len(rows) < FIRST_BYTES and (part := next(parts, b"")):
                rows += part
            show(rows, 0)
            took_s = time.perf_counter() - began
            whole = len(rows) + sum(len(part) for part in parts)
        assert whole == 4 * count
        return took_s

    page = [first_page() for _ in range(repeat * 4)]
    whole_page = [timed(lambda: show(index(), 0)) for _ in range(repeat)]
    choices = filters(count)
    lists = {one: [timed(lambda one=one: index(one)) for _ in range(repeat)] for one in choices}
    facets = {
        one: [timed(lambda one=one: get(f"/items/facets?{query}&{one}")) for _ in range(repeat)] for one in choices
    }
    both = [a + b for one in choices for a, b in zip(lists[one], facets[one], strict=True)]
    jump = [timed(lambda: show(everything, chance.randrange(count - 60))) for _ in range(repeat * 4)]
    rows = list(struct.unpack("<10000I", everything[:40_000]))
    tag = [timed(lambda n=n: post("/items/tags", {"rows": rows, "add": [f"new {n}"], "remove": []})) for n in range(3)]
    with ThreadPoolExecutor(8) as pool:
        began = time.perf_counter()
        list(pool.map(lambda row: get(f"/items/{row}/thumb"), range(1, THUMBNAILS + 1)))
        by_httpx = THUMBNAILS / (time.perf_counter() - began)
    began, cpu_s = time.perf_counter(), app.cpu_s()
    asyncio.run(all_thumbnails(app))
    thumbs = THUMBNAILS / (time.perf_counter() - began)
    thumb_cpu_us = (app.cpu_s() - cpu_s) / THUMBNAILS * 1e6
    slowest = max(choices, key=lambda one: statistics.median(facets[one]))
    return {
        "page_p95_ms": p95_ms(page),
        "page_median_ms": round(statistics.median(page) * 1000, 1),
        "whole_page_p95_ms": p95_ms(whole_page),
        "filter_p95_ms": p95_ms(both),
        "filter_median_ms": round(statistics.median(both) * 1000, 1),
        "list_median_ms": round(statistics.median(list(chain(*lists.values()))) * 1000, 1),
        "facets_median_ms": round(statistics.median(list(chain(*facets.values()))) * 1000, 1),
        "slowest_facets_ms": round(statistics.median(facets[slowest]) * 1000, 1),
        "slowest_facets": slowest,  # type: ignore[dict-item]
        "jump_p95_ms": p95_ms(jump),
        "tag_10k_s": round(statistics.median(tag), 3),
        "thumbs_per_s": round(thumbs),
        "thumbs_per_s_httpx": round(by_httpx),
        "thumb_cpu_us": round(thumb_cpu_us),
        "rss_mb": round(int(Path(f"/proc/{app.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6),
    }


async def all_thumbnails(app: App) -> None:
    """Every stored thumbnail over 8 TLS connections that stay, each asked as soon as it has answered.

    Written out, since httpx takes more processor time for a request than the app for its answer, on the same cores.
    """
    address = urlsplit(app.address)
    cookies = "; ".join(f"{one.name}={one.value}" for one in app.client.cookies)
    behind = f"/thumb HTTP/1.1\r\nhost: {address.netloc}\r\ncookie: {cookies}\r\n\r\n".encode()
    tls = ssl.create_default_context(cadata=app.ca_certificate)
    rows = iter(range(1, THUMBNAILS + 1))

    async def one_connection() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port, ssl=tls)
        for row in rows:
            writer.write(b"GET /api/items/%d" % row + behind)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200") and b"content-type: image/jpeg" in head, head
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            assert (await reader.readexactly(length)).startswith(b"\xff\xd8\xff")
        writer.close()

    await asyncio.gather(*(one_connection() for _ in range(8)))


PG_WHERE = {
    "": "true",
    "tag=tag+3": "row IN (SELECT row FROM item_tag WHERE tag = 'tag 3')",
    "tagged=untagged": "tag_count = 0",
    "machine_id=machine-7": "origin_id IN (22, 23, 24)",
    "label=person": "row IN (SELECT row FROM item_box WHERE label = 'person')",
    "dataset_id=d": "row IN (SELECT row FROM dataset_item WHERE dataset_id = 'd')",
}


def postgresql(data_dir: Path, repeat: int) -> dict[str, float]:
    """The same tables and indexes as the app would have there, filled from its SQLite file."""
    from gleaner.app.database import Database

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from postgres import postgres_server

    context = build_context(Settings(data_dir=data_dir))
    with postgres_server() as server, server.database() as name:
        database = Database.from_url(server.url(name))
        database.create_tables()
        for table in (t.origin, t.pack, t.item, t.item_tag, t.item_box, t.dataset, t.dataset_item):
            names = [column.name for column in table.columns]
            with context.database.read() as source, database.engine.begin() as db:
                cursor: Any = db.connection.cursor()
                with cursor.copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy:
                    for row in source.execution_options(stream_results=True).execute(sa.select(table)):
                        copy.write_row(row)
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            db.exec_driver_sql("VACUUM ANALYZE")
        times = [
            timed(lambda where=where: ask(database.engine, where)) for where in PG_WHERE.values() for _ in range(repeat)
        ]
        database.close()
    context.database.close()
    return {"filter_p95_ms": p95_ms(times), "filter_median_ms": round(statistics.median(times) * 1000, 1)}


def ask(engine: sa.Engine, where: str) -> None:
    living = f"FROM item WHERE deleted_ns IS NULL AND {where}"
    with engine.connect() as db:
        run = db.exec_driver_sql
        run(
            f"SELECT origin_id, count(*), sum(size_bytes), count(*) FILTER (WHERE tag_count = 0) {living} GROUP BY origin_id"
        ).all()
        run(f"SELECT tag, count(*) FROM item_tag WHERE row IN (SELECT row {living}) GROUP BY tag").all()
        run(f"SELECT label, count(DISTINCT row) FROM item_box WHERE row IN (SELECT row {living}) GROUP BY label").all()
        run(
            f"SELECT dataset_id, count(*) FROM dataset_item WHERE row IN (SELECT row {living}) GROUP BY dataset_id"
        ).all()
        run(f"SELECT row {living} ORDER BY captured_ns DESC, row DESC LIMIT 60").all()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--no-peer", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filled = timed(lambda: fill(folder / "app", chosen.items))
        print(f"{chosen.items} items written in {filled:.0f} s", file=sys.stderr)
        with running_app(folder) as app:
            organization = app.client.get("/auth/me")["organizations"][0]["id"]
            ours = gleaner(app, organization, chosen.items, chosen.repeat)
        print(f"gleaner     {ours}")
        theirs = {} if chosen.no_peer else postgresql(folder / "app", chosen.repeat)
    answer: dict[str, Any] = {"items": chosen.items} | ours
    if theirs:
        print(f"postgresql  {theirs}")
        answer["x_postgres_filter"] = round(theirs["filter_median_ms"] / ours["filter_median_ms"], 2)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
