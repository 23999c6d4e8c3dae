"""Pictures and annotations of another program into a dataset: what cannot be read is named, and the rest stored.

Exactly once: a picture of the same name and bytes, or one that this app exported, is the item it was; it gets the tags
and boxes it lacks. So an import that was cut is simply sent again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from viam.proto.app.datasync import DataType, UploadMetadata

from gleaner.app.caller import Caller
from gleaner.app.errors import AppError, InvalidInput, NotFound
from gleaner.app.services.datasets import DatasetService, require_maker
from gleaner.app.services.items import ItemService, checked_box, checked_tags
from gleaner.app.services.items_upload import FileUploads, NewFile, Target, refuse_false_pictures
from gleaner.app.services.items_values import Item, Selection
from gleaner.app.store import sniff
from gleaner.app.store.ingest import Ingest, Receipt
from gleaner.app.store.payload import MemoryPayload
from gleaner.app.store.places import Place
from gleaner.app.store.records import Box
from gleaner.app.store.uploads import from_file
from gleaner.formats.registry import Format, detect, read
from gleaner.formats.sources import Source
from gleaner.formats.values import SPLIT_TAG, FormatProblem, Picture, Problem

_IN_FLIGHT = 32
_IN_FLIGHT_BYTES = 32 << 20
_COMMIT_S = 300.0
_MOST_NAMED = 200
_SAME_EDGE = 1e-6


@dataclass
class Imported:
    """`problem_count` is of all, `problems` names the first 200."""

    format: Format
    added: int = 0
    known: int = 0
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)

    def note(self, problem: Problem) -> None:
        self.problem_count += 1
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(problem)


class DatasetImports:
    def __init__(
        self,
        ingest: Ingest,
        items: ItemService,
        datasets: DatasetService,
        uploads: FileUploads,
        clock_ns: Callable[[], int],
    ) -> None:
        self._ingest = ingest
        self._items = items
        self._datasets = datasets
        self._uploads = uploads
        self._clock_ns = clock_ns

    def store(self, caller: Caller, dataset_id: str, source: Source, format_: Format | None = None) -> Imported:
        """Raises InvalidInput (no known format), NotFound, PermissionDenied."""
        dataset = self._datasets.get(caller, dataset_id)
        require_maker(caller, dataset.organization_id)
        place = self._uploads.place(caller, Target(organization_id=dataset.organization_id, dataset_id=dataset_id))
        try:
            chosen = format_ or detect(source)
            done = Imported(chosen)
            for batch in _batches(read(chosen, source), done):
                self._store_batch(caller, dataset_id, place, batch, done)
        except FormatProblem as problem:
            message, _, hint = str(problem).partition(". ")
            raise InvalidInput(message, f"{hint}." if hint else "") from problem
        return done

    def _store_batch(self, caller: Caller, dataset_id: str, place: Place, batch: list[Picture], done: Imported) -> None:
        waiting: list[tuple[Picture, Future[Receipt]]] = []
        known: list[tuple[Picture, int]] = []
        for picture in batch:
            try:
                picture = self._checked(picture, done)  # noqa: PLW2901 - the rest is about what is left of it
                content = picture.read()
                if (earlier := self._exported_before(caller, picture, content)) is not None:
                    known.append((picture, earlier.row))
                else:
                    waiting.append((picture, self._submit(picture, content, place, dataset_id)))
            except AppError as err:
                done.note(Problem(picture.name, err.message, err.hint))
            except FormatProblem as problem:
                done.note(Problem(picture.name, str(problem), ""))
        for picture, future in waiting:
            try:
                receipt = future.result(_COMMIT_S)
            except AppError as err:
                done.note(Problem(picture.name, err.message, err.hint))
            else:
                done.added += not receipt.is_duplicate
                if receipt.is_duplicate:
                    known.append((picture, receipt.row))
        for picture, row in known:
            self._complete(caller, dataset_id, picture, row)
        done.known += len(known)

    def _submit(self, picture: Picture, content: bytes, place: Place, dataset_id: str) -> Future[Receipt]:
        payload = MemoryPayload(content)
        refuse_false_pictures(NewFile(picture.name, payload))
        metadata = UploadMetadata(
            type=DataType.DATA_TYPE_FILE, file_name=picture.name, tags=picture.tags, dataset_ids=[dataset_id]
        )
        upload = from_file(metadata, payload, place, self._clock_ns(), revive=True)
        if upload.info.kind != sniff.IMAGE:
            raise InvalidInput(f"{picture.name} is no picture", "Convert it to JPEG or PNG, or leave it out.")
        captured_ns = _time_ns(picture.capture.captured_at) or upload.info.captured_ns
        boxes = tuple(Box(**vars(one)) for one in picture.boxes)
        return self._ingest.submit(replace(upload, info=replace(upload.info, boxes=boxes, captured_ns=captured_ns)))

    def _checked(self, picture: Picture, done: Imported) -> Picture:
        """Without the tags and boxes that cannot be stored; with its split as a tag."""
        tags: list[str] = []
        for tag in picture.tags:
            try:
                tags += checked_tags([tag])
            except InvalidInput as err:
                done.note(Problem(picture.name, err.message, err.hint))
        boxes = []
        for one in picture.boxes:
            try:
                checked_box(Box(**vars(one)))
                boxes.append(one)
            except InvalidInput as err:
                done.note(Problem(picture.name, err.message, err.hint))
        tags += [f"{SPLIT_TAG}{picture.split}"] if picture.split else []
        return replace(picture, tags=tuple(dict.fromkeys(tags)), boxes=tuple(boxes))

    def _exported_before(self, caller: Caller, picture: Picture, content: bytes) -> Item | None:
        """The item that this picture was exported from, if its bytes are still the same."""
        if not picture.capture.binary_data_id:
            return None
        try:
            (item,) = self._items.by_ids(caller, [picture.capture.binary_data_id])
        except (InvalidInput, NotFound):
            return None
        return item if hashlib.sha256(content).digest() == self._items.digest_of(item.row) else None

    def _complete(self, caller: Caller, dataset_id: str, picture: Picture, row: int) -> None:
        item = self._items.get(caller, row)
        lacking = [tag for tag in picture.tags if tag not in item.tags]
        if lacking:
            self._items.change_tags(caller, Selection(rows=(row,)), lacking)
        have = [one.box for one in item.boxes]
        for drawn in picture.boxes:
            box = Box(**vars(drawn))
            if not any(_is_same(box, one) for one in have):
                self._items.add_box(caller, row, box)
        if all(known != dataset_id for known, _ in item.datasets):
            self._datasets.add_items(caller, dataset_id, Selection(rows=(row,)))


def _batches(found: Iterator[Picture | Problem], done: Imported) -> Iterator[list[Picture]]:
    """So many that the store commits them together, so few that they fit in memory."""
    batch: list[Picture] = []
    size = 0
    for one in found:
        if isinstance(one, Problem):
            done.note(one)
            continue
        batch.append(one)
        size += one.size
        if len(batch) >= _IN_FLIGHT or size >= _IN_FLIGHT_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _is_same(one: Box, other: Box) -> bool:
    pairs = zip(_edges(one), _edges(other), strict=True)
    return one.label == other.label and all(abs(a - b) <= _SAME_EDGE for a, b in pairs)


def _edges(box: Box) -> tuple[float, float, float, float]:
    return box.x_min, box.y_min, box.x_max, box.y_max


def _time_ns(text: str) -> int:
    """0 for what is no time after 1970."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return 0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return max((since.days * 86400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000, 0)
