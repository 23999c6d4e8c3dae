"""A dataset version as files of another program: streamed, and the same bytes again when a cut download goes on.

Items have no field for a split: the tags `split:train`, `split:val` and `split:test` are it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import InvalidInput, NotFound, PermissionDenied
from gleaner.app.services.datasets import DatasetService, require_pictures
from gleaner.app.services.datasets_values import DatasetVersion
from gleaner.app.services.fleet_values import iso
from gleaner.app.services.items_filter import visible_origins
from gleaner.app.services.items_read import ItemReader
from gleaner.app.store import sniff
from gleaner.app.store import tables as t
from gleaner.formats.archive import Archive, packed
from gleaner.formats.parquet import require_library
from gleaner.formats.registry import CODECS, Format
from gleaner.formats.scratch import Spooled
from gleaner.formats.values import Box, Capture, Entry, FormatProblem, Picture, Problem, split_off

MOST_ZIPPED = 200_000
"""A zip's table of contents, about 1 KB a picture, is written last. A tar has none."""
_PAGE = 500
_CHUNK_BYTES = 1 << 20
_MEMBER = t.dataset_version_item.c


@dataclass(frozen=True)
class Export:
    """`tag` is the same as long as `stream` would give the same bytes. `pictures` leaves out deleted ones."""

    file_name: str
    tag: str
    version: DatasetVersion
    pictures: int
    stream: Callable[[int], Iterator[bytes]]
    """The archive from this byte on."""


class DatasetExports:
    def __init__(self, database: Database, datasets: DatasetService, items: ItemReader) -> None:
        self._database = database
        self._datasets = datasets
        self._items = items

    def prepare(self, caller: Caller, dataset_id: str, format_: Format, archive: Archive, version: int = 0) -> Export:
        """Of the dataset as it is now (which freezes it as a version), or of one version. Raises NotFound, InvalidInput."""
        if format_ is Format.PARQUET:
            _require_parquet()
        chosen = self._version(caller, dataset_id, version)
        with self._database.read() as db:
            origins = [one.id for one in visible_origins(db, caller, [chosen.organization_id])]
            there = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(t.item.c.row), 0))
            count, total = db.execute(there.select_from(_joined()).where(*_of(chosen, origins))).one()
        if not count:
            raise InvalidInput(
                f"Version {chosen.version} of {chosen.dataset_name} has no pictures that you may see",
                "They may have been deleted: choose another version.",
            )
        if archive is Archive.ZIP and count > MOST_ZIPPED:
            raise InvalidInput(
                f"A zip of {count:,} pictures would keep its table of contents in memory while it is made",
                "Take it as tar, or with `gleaner dataset export --out <folder>`.",
            )
        made_of = f"{chosen.id}/{chosen.hash}/{count}/{total}/{format_}/{archive}"
        return Export(
            f"{chosen.dataset_name}-v{chosen.version}-{format_}.{archive}",
            hashlib.blake2b(made_of.encode(), digest_size=16).hexdigest(),
            chosen,
            int(count),
            lambda start: _gathered(packed(self._entries(chosen, origins, format_), archive, start)),
        )

    def _version(self, caller: Caller, dataset_id: str, version: int) -> DatasetVersion:
        dataset = self._datasets.get(caller, dataset_id)
        require_pictures(dataset.type, dataset.name, "Export it with StartSequenceDatasetExport.")
        if not version:
            try:
                return self._datasets.create_version(caller, dataset_id)
            except PermissionDenied:
                if not dataset.versions:
                    raise
                return dataset.versions[0]
        found = next((one for one in dataset.versions if one.version == version), None)
        if found is None:
            known = ", ".join(str(one.version) for one in dataset.versions) or "none yet"
            raise NotFound(f"{dataset.name} has no version {version}", f"It has: {known}.")
        return found

    def _entries(self, version: DatasetVersion, origins: list[int], format_: Format) -> Iterator[Entry]:
        with closing(Spooled()) as skipped:

            def report(problem: Problem) -> None:
                skipped.write(f"{problem}\n")

            try:
                yield from CODECS[format_].write(self._pictures(version, origins), report)
            except FormatProblem as problem:
                raise InvalidInput(str(problem)) from problem
            if skipped.size:
                yield skipped.entry("skipped.txt")

    def _pictures(self, version: DatasetVersion, origins: list[int]) -> Iterator[Picture]:
        last = 0
        query = sa.select(t.item, t.origin, _MEMBER.annotations).select_from(_joined()).order_by(_MEMBER.row)
        while True:
            with self._database.read() as db:
                page = query.where(*_of(version, origins), _MEMBER.row > last).limit(_PAGE)
                found = db.execute(page).mappings().all()
            yield from (self._picture(one) for one in found)
            if len(found) < _PAGE:
                return
            last = found[-1]["row"]

    def _picture(self, one: sa.RowMapping) -> Picture:
        notes = json.loads(one["annotations"])
        tags, split = split_off(notes["tags"])
        ending = sniff.extension_of(one["mime_type"]) or one["file_ext"]
        name = one["file_name"] or f"{one['file_id']}{ending}"
        capture = Capture(
            iso(one["captured_ns"]) or "",
            f"{one['organization_id']}/{one['location_id']}/{one['file_id']}",
            one["organization_id"],
            one["location_id"],
            one["machine_id"],
            one["part_id"],
            one["component_name"],
        )
        # As stored, before EXIF turns it; boxes are drawn on what is shown. JPEGs are measured when a format needs it.
        is_turned = one["mime_type"] == "image/jpeg"
        width, height = (0, 0) if is_turned else (one["width"], one["height"])
        boxes = tuple(Box(*box) for box in notes["boxes"])
        read = _Once(lambda: self._items.content_of(one["row"]))
        return Picture(name, one["size_bytes"], read, width, height, tags, boxes, split, capture)


class _Once:
    """A picture's bytes, read once however often they are asked for while the picture is at hand."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._content = b""

    def __call__(self) -> bytes:
        self._content = self._content or self._read()
        return self._content


def _require_parquet() -> None:
    """Before the answer begins: a stream cannot be refused any more."""
    try:
        require_library()
    except FormatProblem as problem:
        raise InvalidInput(
            "This app cannot write Parquet: pyarrow is not installed there",
            "Install it where the app runs (pip install 'gleaner[export]'), or choose another format.",
        ) from problem


def _joined() -> sa.Join:
    members = t.dataset_version_item.join(t.item, t.item.c.row == _MEMBER.row)
    return members.join(t.origin, t.origin.c.id == t.item.c.origin_id)


def _of(version: DatasetVersion, origins: list[int]) -> tuple[sa.ColumnElement[bool], ...]:
    """A picture deleted since is gone from old versions too: deleting means deleting."""
    alive = t.item.c.deleted_ns.is_(None), t.item.c.pack_id.is_not(None)
    return _MEMBER.version_id == version.id, t.item.c.origin_id.in_(origins), *alive


def _gathered(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """In pieces of about 1 MiB: each costs the server a change of thread."""
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        if len(pending) >= _CHUNK_BYTES:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)
