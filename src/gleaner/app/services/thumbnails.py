"""Small pictures for the gallery: made behind the acknowledgement, kept encrypted in packs, made again when missing.

The same decoding says what the picture looks like (`picture_hashes`); pictures that were stored before that was kept, or while
too many came in, are looked at when nothing else is to do, the newest first.

A thumbnail lost in a crash costs nothing but the time to make it again, so these packs are not synced to disk.
Writer: the one thread of this class. A picture that cannot be decoded is remembered as such until the app restarts.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import AppError, InvalidInput, NotFound
from gleaner.app.services.items_read import ItemReader
from gleaner.app.services.picture_hashes import PictureHashes
from gleaner.app.services.thumbnails_draw import CannotDraw, draw
from gleaner.app.store import sniff
from gleaner.app.store import tables as t
from gleaner.app.store.pack_format import FoundRecord, Position
from gleaner.app.store.packs import PackRecord, PackStore
from gleaner.app.store.payload import MemoryPayload
from gleaner.app.store.records import RecordInfo
from gleaner.app.store.recovery import insert_thumbnails

_MOST_QUEUED = 10_000
_MOST_REMEMBERED = 2000
_PER_PACK = 128
_FLUSH_AFTER_S = 10.0
_GIVES_WAY_S = 0.5
# Older pictures take a quarter of a core, in short turns: what is new comes in between.
_OLDER_AT_ONCE = 16
_REST_SHARE = 3.0
# Larger files are not read whole for a small picture.
_MOST_BYTES = 64 << 20

_SEEN = (
    sa.select(
        t.item.c.file_id, *(t.origin.c[name] for name in ("organization_id", "location_id", "machine_id", "kind"))
    )
    .add_columns(*(t.thumbnail.c[name] for name in ("pack_id", "record_offset", "body_offset", "size_bytes")))
    .join(t.origin, t.origin.c.id == t.item.c.origin_id)
    .outerjoin(t.thumbnail, t.thumbnail.c.row == t.item.c.row)
    .where(t.item.c.row == sa.bindparam("wanted"), t.item.c.deleted_ns.is_(None))
)

log = logging.getLogger(__name__)


class _Found(NamedTuple):
    """The columns of `_SEEN`. Those of the thumbnail are None together, when there is none."""

    file_id: str
    organization_id: str
    location_id: str
    machine_id: str
    kind: str
    pack_id: int | None
    record_offset: int
    body_offset: int
    size_bytes: int


class Thumbnails:
    """start() → running → stop()."""

    def __init__(
        self,
        database: Database,
        packs: PackStore,
        items: ItemReader,
        clock_ns: Callable[[], int] = time.time_ns,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_busy`: something more urgent wants the processor; thumbnails then take what is left of it."""
        self._database = database
        self._packs = packs
        self._items = items
        self._seen_sql = _SEEN.compile(dialect=database.engine.dialect)
        self._clock_ns = clock_ns
        self._is_busy = is_busy
        self._waiting: queue.Queue[tuple[int, str] | None] = queue.Queue(_MOST_QUEUED)
        self._made: OrderedDict[int, bytes] = OrderedDict()  # newest last; b"" for pictures that cannot be shown
        self._unsaved: dict[int, tuple[str, bytes]] = {}  # row → (file id, JPEG)
        self._seen: dict[int, int | None] = {}  # row → hash, not saved yet; None for pictures that cannot be shown
        self._hashes = PictureHashes(database)
        self._has_older = True  # there may be pictures without a hash that nobody will name
        self.on_seen: Callable[[Iterable[int]], None] = lambda rows: None
        """Told the rows of pictures whose thumbnails were drawn, from this class's thread."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="thumbnails")
            self._thread.start()

    def stop(self) -> None:
        """Saves what is made; what still waits is made when somebody asks for it."""
        if self._thread is not None:
            self._stopping.set()
            with contextlib.suppress(queue.Full):  # then the thread is busy, and looks at _stopping after each picture
                self._waiting.put_nowait(None)
            self._thread.join()
            self._thread = None

    def stored(self, row: int, info: RecordInfo) -> None:
        """Told by the ingest of every new item. Never blocks: beyond the queue, thumbnails are made on demand."""
        if info.kind == sniff.IMAGE:
            try:
                self._waiting.put_nowait((row, info.file_id))
            except queue.Full:
                self._has_older = True
                log.debug("too many pictures at once: the thumbnail of %d is made on demand", row)

    def get(self, caller: Caller, row: int) -> bytes:
        """The thumbnail as JPEG. Raises NotFound, and InvalidInput if the item cannot be shown as a picture."""
        found = self._find(row)  # one query: a page asks for a hundred at once
        if found is None or caller.role_on(found.organization_id, found.location_id, found.machine_id) is None:
            raise NotFound(f"There is no item {row}", "It may have been deleted; reload the page.")
        if found.kind != sniff.IMAGE:
            raise InvalidInput(f"Item {row} is not a picture", "Download it instead.")
        jpeg = self._remembered(row)
        if jpeg is None:
            jpeg = self._read(found) or self._make(row, found.file_id)
        if not jpeg:
            raise InvalidInput(
                f"Item {row} cannot be shown as a picture", "The file may be damaged; download it to look."
            )
        return jpeg

    def jpeg_of(self, row: int) -> bytes:
        """The thumbnail, for the app itself; b"" if the item cannot be shown. Raises NotFound."""
        jpeg = self._remembered(row)
        if jpeg is None:
            found = self._find(row)
            if found is None:
                raise NotFound(f"There is no item {row}", "It may have been deleted.")
            jpeg = self._read(found) or self._make(row, found.file_id)
        return jpeg

    def _find(self, row: int) -> _Found | None:
        """Straight through the driver: a transaction and SQLAlchemy's rows took longer than the query."""
        wanted: Any = (row,) if self._seen_sql.positional else {"wanted": row}
        connection = self._database.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(str(self._seen_sql), wanted)
            found = cursor.fetchone()
            cursor.close()
        finally:
            connection.close()  # back into the pool, which ends the transaction that a driver may have begun
        return None if found is None else _Found(*found)

    def _remembered(self, row: int) -> bytes | None:
        with self._lock:
            return self._made.get(row)

    def _saved(self, row: int) -> bytes | None:
        with self._database.read() as db:
            found = db.execute(sa.select(t.thumbnail).where(t.thumbnail.c.row == row)).one_or_none()
        return self._read(found)

    def _read(self, found: sa.Row[Any] | _Found | None) -> bytes | None:
        """What the columns of `thumbnail` say. None: there is none."""
        if found is None or found.pack_id is None:
            return None
        try:
            return self._packs.read(found.pack_id, Position(found.record_offset, found.body_offset, found.size_bytes))
        except FileNotFoundError:
            return None  # a pack that was never synced and did not survive a power cut: made again

    def _make(self, row: int, file_id: str) -> bytes:
        """b"" if the picture cannot be decoded."""
        pack_id, position = self._items.position(row)
        try:
            if position.size > _MOST_BYTES:
                raise CannotDraw(f"{position.size} bytes are too many")
            jpeg, looks = draw(self._packs.read(pack_id, position))
        except CannotDraw as err:
            log.info("Item %d has no thumbnail: %s", row, err)
            jpeg, looks = b"", None
        with self._lock:
            self._seen[row] = looks
            self._made[row] = jpeg
            while len(self._made) > _MOST_REMEMBERED:
                self._made.popitem(last=False)
            if jpeg:
                self._unsaved[row] = (file_id, jpeg)
        return jpeg

    def _run(self) -> None:
        rest_s, saved_s = 0.0, time.monotonic()
        while not self._stopping.is_set():
            try:
                waiting = self._waiting.get(timeout=min(rest_s, _FLUSH_AFTER_S) if self._has_older else _FLUSH_AFTER_S)
            except queue.Empty:
                waiting = None
            self._give_way()
            try:
                began_s = time.monotonic()
                if waiting is not None and self._remembered(waiting[0]) is None:
                    self._make(*waiting)
                elif waiting is None and self._has_older and not self._stopping.is_set():
                    self._has_older = self.look_at_older()
                    rest_s = _REST_SHARE * (time.monotonic() - began_s)
                if len(self._unsaved) >= _PER_PACK or (waiting is None and not self._has_older):
                    self._save()
                if len(self._seen) >= _PER_PACK or time.monotonic() - saved_s > _FLUSH_AFTER_S:
                    self._save_hashes()
                    saved_s = time.monotonic()
            except AppError:
                continue  # deleted meanwhile
            except Exception:
                log.exception("Making thumbnails failed; they are made on demand")
        self._save()
        self._save_hashes()

    def look_at_older(self) -> bool:
        """A few of the pictures that have no hash yet. False: there are none left."""
        found = self._hashes.unknown(_OLDER_AT_ONCE)
        for row, file_id in found:
            if self._stopping.is_set():
                break
            with self._lock:
                is_known = row in self._seen
            if not is_known:
                self._look_at(row, file_id)
        return bool(found)

    def _look_at(self, row: int, file_id: str) -> None:
        try:
            small = self._saved(row)
            if small is None:
                self._make(row, file_id)
                return
            looks = draw(small).hash
        except NotFound:
            return  # deleted meanwhile
        except CannotDraw:
            looks = None
        with self._lock:
            self._seen[row] = looks

    def _give_way(self) -> None:
        """A picture every _GIVES_WAY_S is made also while a backlog comes in: the newest are looked at first."""
        deadline = time.monotonic() + _GIVES_WAY_S
        while self._is_busy() and time.monotonic() < deadline and not self._stopping.is_set():
            self._stopping.wait(0.05)

    def _save(self) -> None:
        with self._lock:
            chosen, self._unsaved = self._unsaved, {}
        if not chosen:
            return
        records = [
            PackRecord({"record": "thumbnail", "of": file_id}, MemoryPayload(jpeg)) for file_id, jpeg in chosen.values()
        ]
        pack = self._packs.write(records, self._clock_ns(), durable=False)
        found = [FoundRecord(r.header, position) for r, position in zip(records, pack.positions, strict=True)]
        with self._database.write() as db:
            added = insert_thumbnails(db, pack, found)
        if not added:
            self._packs.delete(pack.name)

    def _save_hashes(self) -> None:
        with self._lock:
            seen, self._seen = self._seen, {}
        self._hashes.save(seen)
        self.on_seen(row for row, looks in seen.items() if looks is not None)
