"""Small pictures for the gallery: made behind the acknowledgement, kept encrypted in packs, made again when missing.

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
from collections.abc import Callable

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import AppError, InvalidInput
from gleaner.app.services.items_read import ItemReader
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
# Larger files are not read whole for a small picture.
_MOST_BYTES = 64 << 20

log = logging.getLogger(__name__)


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
        self._clock_ns = clock_ns
        self._is_busy = is_busy
        self._waiting: queue.Queue[tuple[int, str] | None] = queue.Queue(_MOST_QUEUED)
        self._made: OrderedDict[int, bytes] = OrderedDict()  # newest last; b"" for pictures that cannot be shown
        self._unsaved: dict[int, tuple[str, bytes]] = {}  # row → (file id, JPEG)
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
                log.debug("too many pictures at once: the thumbnail of %d is made on demand", row)

    def get(self, caller: Caller, row: int) -> bytes:
        """The thumbnail as JPEG. Raises NotFound, and InvalidInput if the item cannot be shown as a picture."""
        file_id, origin = self._items.seen(caller, row)
        if origin.kind != sniff.IMAGE:
            raise InvalidInput(f"Item {row} is not a picture", "Download it instead.")
        jpeg = self._remembered(row)
        if jpeg is None:
            jpeg = self._saved(row) or self._make(row, file_id)
        if not jpeg:
            raise InvalidInput(
                f"Item {row} cannot be shown as a picture", "The file may be damaged; download it to look."
            )
        return jpeg

    def _remembered(self, row: int) -> bytes | None:
        with self._lock:
            return self._made.get(row)

    def _saved(self, row: int) -> bytes | None:
        with self._database.read() as db:
            found = db.execute(sa.select(t.thumbnail).where(t.thumbnail.c.row == row)).one_or_none()
        if found is None:
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
            jpeg = draw(self._packs.read(pack_id, position))
        except CannotDraw as err:
            log.info("Item %d has no thumbnail: %s", row, err)
            jpeg = b""
        with self._lock:
            self._made[row] = jpeg
            while len(self._made) > _MOST_REMEMBERED:
                self._made.popitem(last=False)
            if jpeg:
                self._unsaved[row] = (file_id, jpeg)
        return jpeg

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                waiting = self._waiting.get(timeout=_FLUSH_AFTER_S)
            except queue.Empty:
                waiting = None
            self._give_way()
            try:
                if waiting is not None and self._remembered(waiting[0]) is None:
                    self._make(*waiting)
                if len(self._unsaved) >= _PER_PACK or waiting is None:
                    self._save()
            except AppError:
                continue  # deleted meanwhile
            except Exception:
                log.exception("Making thumbnails failed; they are made on demand")
        self._save()

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
