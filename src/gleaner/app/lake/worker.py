"""The process in which a user's query runs: `python -m gleaner.app.lake.worker <socket>`, started by `workers.py`.

A query that runs wild costs this process and nothing else: its memory is limited by the kernel, it may write no file, it
yields the processor to the app, and it ends with its parent. It holds the keys of the packs one query reads, no others.

Parent → worker: pickles of Question, then of Material. Worker → parent: BSON only, since what a query may have broken must
not choose what the parent runs: {"wanted"}, {"columns", "rows"}*, {"done"}; or {"error", "message", "hint"} at any point.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Mapping
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any, cast

import bson

from gleaner.app.errors import AppError, Unavailable
from gleaner.app.lake import running
from gleaner.app.lake.running import Material, Question
from gleaner.app.lake.view import Wanted
from gleaner.app.store.object_store import Objects, open_objects
from gleaner.app.store.packs import PackStore

OWN_MB = 1024
"""What Python, DuckDB's library and the documents of a page need beside the query's own memory."""

log = logging.getLogger(__name__)

IDLE_S = 120.0
"""It ends when nobody asked for so long."""


class GivenPacks(PackStore):
    """Packs whose keys were given; there are no others."""

    def __init__(self, given: Material | None = None) -> None:
        objects = _opened(given.address) if given else cast(Any, None)
        super().__init__(objects, cast(Any, None), cast(Any, None))
        self._given = given.keys if given else {}

    def data_key(self, pack_id: int) -> tuple[str, bytes]:
        try:
            return self._given[pack_id]
        except KeyError:
            raise FileNotFoundError(f"pack {pack_id} was not given") from None


@lru_cache(maxsize=1)
def _opened(address: str) -> Objects:
    """Kept for the next query: a connection to a far store takes longer than many queries."""
    return open_objects(address, os.environ)


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    os.nice(10)
    with Connection(int(sys.argv[1])) as parent:
        while parent.poll(IDLE_S):
            try:
                asked = parent.recv()
            except EOFError:
                return
            _limit(asked.memory_mb)
            try:
                _answer(parent, asked)
            except AppError as err:
                _refuse(parent, err)
            except MemoryError:
                _refuse(parent, running.too_large(asked))
            except Exception:
                log.exception("A query failed in a way that nobody thought of")
                _refuse(parent, Unavailable("The query failed in the app", "The app's log says why; ask it otherwise."))


def _answer(parent: Connection, asked: Question) -> None:
    wanted = running.plan(GivenPacks(), asked)
    _send(parent, {"wanted": {name: dumped(one) for name, one in wanted.items()}})
    given = parent.recv()
    for page in running.answer(GivenPacks(given), asked, given):
        _send(parent, {"columns": page.columns, "rows": page.rows})
    _send(parent, {"done": True})


def dumped(wanted: Wanted) -> dict[str, Any]:
    places = {name: sorted(values) for name, values in wanted.places.items()}
    return {"places": places, "start_ns": wanted.start_ns, "end_ns": wanted.end_ns}


def loaded(given: Mapping[str, Any]) -> Wanted:
    places = {str(name): frozenset(map(str, values)) for name, values in given["places"].items()}
    return Wanted(places, given["start_ns"], given["end_ns"])


def _limit(memory_mb: int) -> None:
    size = (memory_mb + OWN_MB) << 20
    resource.setrlimit(resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _refuse(parent: Connection, err: AppError) -> None:
    _send(parent, {"error": type(err).__name__, "message": err.message, "hint": err.hint})


def _send(parent: Connection, message: dict[str, Any]) -> None:
    parent.send_bytes(bson.encode(message))


if __name__ == "__main__":
    main()
