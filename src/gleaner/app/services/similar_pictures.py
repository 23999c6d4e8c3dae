"""Pictures that show something similar: the nearest by what they look like to the backbone (`embeddings.py`).

All vectors are kept in memory as 64 signed bytes, a random projection of what sets a picture apart from the others (72 bytes
a picture, read at the first question: some seconds for a million). The best of those are compared exactly by their stored
vectors. Not by any index of graphs: a million take 0.1 s this way, and a picture is found as soon as it is stored.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import InvalidInput, Unavailable
from gleaner.app.services.embeddings import Embeddings, unpacked
from gleaner.app.services.items_filter import visible_origins
from gleaner.app.services.items_read import ItemReader
from gleaner.app.store import sniff
from gleaner.app.store import tables as t
from gleaner.learn.embed import FEATURES

MOST = 200
_COMPARED = 2000
"""Exactly, of the best by their codes. With 64 numbers the cosine is known to about an eighth."""
_CODE = 64
_CHUNK = 20_000
_SETTLED, _FEW = 1000, 20
_LOOKING_S = 10.0
_FRESH_S = 2.0
_VECTOR = t.item_embedding.c


class SimilarPictures:
    """Thread-safe; nothing is read before the first question."""

    def __init__(
        self, database: Database, items: ItemReader, embeddings: Embeddings, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._items = items
        self._embeddings = embeddings
        self._now = now
        self._lock = threading.Lock()
        self._rows = np.empty(0, np.int64)
        self._origins = np.empty(0, np.int64)
        self._codes = np.empty((0, _CODE), np.int8)
        self._middle = np.zeros(FEATURES, np.float32)
        """What all pictures have in common, of the first SETTLED of them; of few, a part of it."""
        self._settled = False
        self._next_look_s = 0.0
        basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(FEATURES, _CODE)))
        self._basis = basis.astype(np.float32)

    def rows(self, caller: Caller, row: int) -> list[int]:
        """Up to MOST of what the caller may see, the most similar first, the picture itself before all.

        Raises NotFound, InvalidInput for what is no picture, Unavailable when this app cannot embed.
        """
        item = self._items.get(caller, row)
        if item.origin.kind != sniff.IMAGE:
            raise InvalidInput(f"Item {row} is no picture", "Choose a picture to compare with.")
        asked = self._embeddings.vectors([row], _LOOKING_S).get(row)
        if asked is None:
            raise Unavailable("The picture has not been looked at yet", "Ask again in a few seconds.")
        if not asked.any():
            raise InvalidInput(f"Picture {row} cannot be decoded", "Choose another picture.")
        with self._database.read() as db:
            seen = {one.id for one in visible_origins(db, caller) if one.kind == sniff.IMAGE}
        with self._lock:
            self._look(row)
            middle = self._middle
            best = self._best(self._code(asked[None])[0], seen)
        if row not in best:
            best.append(row)
        found = self._embeddings.known(best)
        vectors = _directions(np.stack([found[one] for one in best if one in found]) - middle)
        known = np.array([one for one in best if one in found])
        how_near = vectors @ _directions((asked - middle)[None])[0]
        how_near[known == row] = 2.0
        order = np.argsort(-how_near, kind="stable")[:MOST]
        return [int(known[i]) for i in order if how_near[i] > 0]

    def _best(self, code: NDArray[np.int8], origin_ids: Collection[int]) -> list[int]:
        allowed = np.flatnonzero(np.isin(self._origins, np.fromiter(origin_ids, np.int64, len(origin_ids))))
        near = np.empty(len(allowed), np.float32)
        for start in range(0, len(allowed), _CHUNK):
            part = allowed[start : start + _CHUNK]
            near[start : start + _CHUNK] = self._codes[part].astype(np.float32) @ code.astype(np.float32)
        if len(allowed) > _COMPARED:
            allowed = allowed[np.argpartition(-near, _COMPARED)[:_COMPARED]]
        return [int(one) for one in self._rows[allowed]]

    def _look(self, asked: int) -> None:
        """Takes in what was embedded since the last time, and leaves out what is gone."""
        if self._now() < self._next_look_s and asked in self._rows:
            return
        began_s = self._now()
        with self._database.read() as db:
            wanted = sa.select(_VECTOR.row).where(_VECTOR.version == self._embeddings.version).order_by(_VECTOR.row)
            there = np.fromiter(db.scalars(wanted), np.int64)
            if not self._settled:
                self._settle(db, there)
            kept = np.isin(self._rows, there, assume_unique=True)
            self._rows, self._origins, self._codes = self._rows[kept], self._origins[kept], self._codes[kept]
            new = np.setdiff1d(there, self._rows, assume_unique=True)
            parts = [self._read(db, new[start : start + _CHUNK].tolist()) for start in range(0, len(new), _CHUNK)]
        if parts:
            self._rows = np.concatenate([self._rows, *(rows for rows, _, _ in parts)])
            self._origins = np.concatenate([self._origins, *(origins for _, origins, _ in parts)])
            self._codes = np.concatenate([self._codes, *(codes for _, _, codes in parts)])
        took_s = self._now() - began_s
        self._next_look_s = self._now() + max(_FRESH_S, 20 * took_s)

    def _settle(self, db: sa.Connection, there: NDArray[np.int64]) -> None:
        query = sa.select(_VECTOR.vector).where(_VECTOR.row.in_(t.rows_in(there[:_SETTLED].tolist(), db.dialect.name)))
        vectors = [vector for one in db.scalars(query) if (vector := unpacked(one)).any()]
        if vectors:
            self._middle = np.asarray(np.mean(vectors, 0) * len(vectors) / (len(vectors) + _FEW), np.float32)
        self._settled = len(vectors) >= _SETTLED // 2
        self._rows, self._origins, self._codes = self._rows[:0], self._origins[:0], self._codes[:0]

    def _read(
        self, db: sa.Connection, rows: list[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
        query = sa.select(_VECTOR.row, t.item.c.origin_id, _VECTOR.vector).join(t.item, t.item.c.row == _VECTOR.row)
        found = db.execute(query.where(_VECTOR.row.in_(t.rows_in(rows, db.dialect.name)))).all()
        vectors = np.array([unpacked(one.vector) for one in found], np.float32).reshape(-1, FEATURES)
        numbers = np.array([(one.row, one.origin_id) for one in found], np.int64).reshape(-1, 2)
        return numbers[:, 0], numbers[:, 1], self._code(vectors)

    def _code(self, vectors: NDArray[np.float32]) -> NDArray[np.int8]:
        """(n, 512) → (n, 64): a direction's projection, scaled so that its numbers fill a byte."""
        short = _directions(_directions(vectors - self._middle) @ self._basis)
        return np.asarray(np.clip(np.rint(short * 254), -127, 127), np.int8)


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-6), np.float32)
