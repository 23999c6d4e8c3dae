"""Keeps what pictures look like to the backbone (`item_embedding`): what instant models and similar pictures are made of.

Pictures are embedded from their thumbnails, behind them: a picture's hash is saved when its thumbnail was drawn, and those are
told here. At start all that lack a vector of this version are looked for, the newest first, so what was cut off goes on.
Writer: the thread of this class, and whoever asks for vectors that are not there yet. Of several apps on one database the one
with the lease works in the background.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.errors import AppError, Unavailable
from gleaner.app.leases import alone
from gleaner.app.repeating import Repeating
from gleaner.app.services.thumbnails import Thumbnails
from gleaner.app.store import sniff
from gleaner.app.store import tables as t
from gleaner.learn import embed
from gleaner.wire.picture import PictureProblem, read_rgb

LEASE = "embeddings"
_EVERY_S = 20.0
_AT_ONCE = 32
_REST_SHARE = 3.0  # a quarter of a core, in short turns, as the thumbnails of older pictures
_GIVES_WAY_S = 30.0
_MOST_TOLD = 100_000
_BUILDING_S = 120.0
_VECTOR = t.item_embedding.c
_NOTHING = np.zeros(embed.FEATURES, np.float32)
"""Of a picture that cannot be decoded: it is like no other."""

log = logging.getLogger(__name__)


class Embeddings:
    """start() → running → stop()."""

    def __init__(
        self,
        database: Database,
        thumbnails: Thumbnails,
        folder: Path,
        is_busy: Callable[[], bool] = lambda: False,
        holding: Callable[[str], AbstractContextManager[bool]] = alone,
    ) -> None:
        """`folder`: where the backbone's graph is kept, written at the first picture."""
        self._database = database
        self._thumbnails = thumbnails
        self._folder = folder
        self._is_busy = is_busy
        self._holding = holding
        self._one_at_a_time = threading.Lock()
        self._embedder: embed.Embedder | None = None
        self._told: set[int] = set()
        self._looks_at_all = True
        self._below: int | None = None
        self._lock = threading.Lock()
        self._is_off = False
        self._stopping = threading.Event()
        self._repeating = Repeating("embeddings", self._take_turn, _EVERY_S, at_start=False, what="Embedding pictures")

    @cached_property
    def version(self) -> int:
        return embed.version()

    def start(self) -> None:
        self._stopping.clear()
        self._repeating.start()

    def stop(self) -> None:
        self._stopping.set()
        self._repeating.stop()

    def seen(self, rows: Iterable[int]) -> None:
        """Told of pictures whose thumbnails were drawn."""
        with self._lock:
            self._told.update(rows)
            if len(self._told) > _MOST_TOLD:
                self._told.clear()
                self._looks_at_all = True

    def known(self, rows: Sequence[int]) -> dict[int, embed.Vectors]:
        """The vectors that are there already."""
        with self._database.read() as db:
            wanted = sa.select(_VECTOR.row, _VECTOR.vector).where(
                _VECTOR.row.in_(t.rows_in(list(rows), db.dialect.name)), _VECTOR.version == self.version
            )
            return {row: unpacked(vector) for row, vector in db.execute(wanted)}

    def vectors(self, rows: Sequence[int], seconds: float) -> dict[int, embed.Vectors]:
        """Of these rows, in their order; those that are missing are made until the time is up.

        Raises Unavailable when this app cannot embed.
        """
        deadline = time.monotonic() + seconds
        found = self.known(rows)
        missing = [row for row in rows if row not in found]
        for start in range(0, len(missing), _AT_ONCE):
            if time.monotonic() >= deadline or self._stopping.is_set():
                break
            found |= self._embed(missing[start : start + _AT_ONCE])
        return {row: found[row] for row in rows if row in found}

    def look_at_older(self) -> bool:
        """A few of the pictures that lack a vector. False: there are none left."""
        with self._lock:
            chosen = sorted(self._told, reverse=True)[:_AT_ONCE]
            self._told.difference_update(chosen)
        if not chosen and self._looks_at_all:
            chosen = self._unknown()
            self._looks_at_all = bool(chosen)
        if chosen:
            known = self.known(chosen)
            self._embed([row for row in chosen if row not in known])
        return bool(chosen)

    def _take_turn(self) -> None:
        if self._is_off:
            return
        with self._holding(LEASE) as is_ours:
            while is_ours and not self._stopping.is_set():
                self._give_way()
                began_s = time.monotonic()
                try:
                    if not self.look_at_older():
                        return
                except Unavailable as err:
                    self._is_off = True  # said once; whoever asks for vectors is told
                    log.warning("Pictures are not compared by what they show: %s", err)
                    return
                self._stopping.wait(_REST_SHARE * (time.monotonic() - began_s))

    def _give_way(self) -> None:
        deadline = time.monotonic() + _GIVES_WAY_S
        while self._is_busy() and time.monotonic() < deadline and not self._stopping.is_set():
            self._stopping.wait(0.2)

    def _unknown(self) -> list[int]:
        """Rows of pictures with a thumbnail and without a vector, the newest first; each call goes on where the last ended."""
        item, hashed = t.item.c, t.item_hash.c
        has_vector = sa.and_(_VECTOR.row == item.row, _VECTOR.version == self.version)
        query = (
            sa.select(item.row)
            .join(t.origin, t.origin.c.id == item.origin_id)
            .join(t.item_hash, hashed.row == item.row)
            .outerjoin(t.item_embedding, has_vector)
            .where(t.origin.c.kind == sniff.IMAGE, item.deleted_ns.is_(None), item.pack_id.is_not(None))
            .where(hashed.alike != 0, _VECTOR.row.is_(None))
            .where(*([item.row < self._below] if self._below is not None else []))
            .order_by(item.row.desc())
            .limit(_AT_ONCE)
        )
        with self._database.read() as db:
            found = [int(row) for row in db.scalars(query)]
        self._below = found[-1] if found else None
        return found

    def _embed(self, rows: Sequence[int]) -> dict[int, embed.Vectors]:
        """Makes and saves them. Left out is what was deleted meanwhile or cannot be read now."""
        if not rows:
            return {}
        found: dict[int, embed.Vectors] = {}
        with self._one_at_a_time:
            embedder = self._opened()
            for row in rows:
                try:
                    found[row] = embedder.vector(read_rgb(self._thumbnails.jpeg_of(row)))
                except PictureProblem:
                    found[row] = _NOTHING
                except AppError:
                    continue
        return self._saved(found)

    def _saved(self, found: dict[int, embed.Vectors]) -> dict[int, embed.Vectors]:
        """Those whose pictures are still there."""
        with self._database.write() as db:
            rows = t.rows_in(list(found), db.dialect.name)
            living = sa.select(t.item.c.row).where(t.item.c.row.in_(rows), t.item.c.deleted_ns.is_(None))
            alive = list(db.scalars(living))
            values = [{"row": row, "version": self.version, "vector": packed(found[row])} for row in alive]
            db.execute(t.item_embedding.delete().where(_VECTOR.row.in_(rows)))
            if values:
                db.execute(t.item_embedding.insert(), values)
        return {row: found[row] for row in alive}

    def _opened(self) -> embed.Embedder:
        if self._embedder is None:
            path = self._folder / f"backbone-{self.version:08x}.onnx"
            if not path.is_file():
                self._build(path)
            self._embedder = embed.Embedder(path)
        return self._embedder

    def _build(self, path: Path) -> None:
        """In a process of its own: writing the graph takes torch, which would stay in this one's memory."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in self._folder.glob("backbone-*"):
            old.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GLEANER_")}
        command = [sys.executable, "-m", "gleaner.learn.embed", str(path)]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as child:
            deadline = time.monotonic() + _BUILDING_S
            while True:
                try:
                    _, said = child.communicate(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    if self._stopping.is_set() or time.monotonic() > deadline:
                        child.kill()
        if child.returncode or not path.is_file():
            lines = said.strip().splitlines()
            raise Unavailable(
                f"The backbone's graph was not written: {lines[-1] if lines else 'the process was ended'}",
                "It needs the training extra: pip install 'gleaner[train]', then start the app again.",
            )


def packed(vector: embed.Vectors) -> bytes:
    return vector.astype("<f2").tobytes()


def unpacked(blob: bytes) -> embed.Vectors:
    return np.frombuffer(blob, "<f2").astype(np.float32)
