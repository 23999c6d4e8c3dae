"""Files a person drops on the page (or a program posts), each judged and stored alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from viam.proto.app.datasync import DataType, UploadMetadata

from gleaner.app.caller import Caller, CallerKind
from gleaner.app.errors import AppError, InvalidInput, NotFound, PermissionDenied
from gleaner.app.services.datasets import DatasetService
from gleaner.app.services.items import ItemService
from gleaner.app.services.items_values import Selection
from gleaner.app.store import sniff
from gleaner.app.store.cut_off import is_cut_off
from gleaner.app.store.ingest import Ingest, Receipt
from gleaner.app.store.payload import Payload
from gleaner.app.store.places import PartLookup, Place, organization_place
from gleaner.app.store.uploads import from_file

_COMMIT_S = 300.0
_CUT_OFF = "The picture ends too early: it was stored as it is, and cannot be shown or learned from whole"


@dataclass(frozen=True)
class NewFile:
    name: str
    payload: Payload


@dataclass(frozen=True)
class Stored:
    row: int
    binary_data_id: str
    name: str
    is_duplicate: bool
    warning: str = ""
    """What is wrong with the file although it is stored."""


@dataclass(frozen=True)
class Failed:
    name: str
    message: str
    hint: str


@dataclass(frozen=True)
class Target:
    """Where files go: a part, or an organization (the caller's only one if none is named); their tags and dataset."""

    part_id: str = ""
    organization_id: str = ""
    tags: tuple[str, ...] = ()
    dataset_id: str = ""


class FileUploads:
    def __init__(
        self,
        ingest: Ingest,
        items: ItemService,
        datasets: DatasetService,
        parts: PartLookup,
        clock_ns: Callable[[], int],
    ) -> None:
        self._ingest = ingest
        self._items = items
        self._datasets = datasets
        self._parts = parts
        self._clock_ns = clock_ns

    def place(self, caller: Caller, target: Target) -> Place:
        """Where the caller's files would go. Raises NotFound, InvalidInput, PermissionDenied."""
        if target.part_id:
            place = self._parts.place(target.part_id)
            if place is None or place.organization_id not in caller.organization_ids():
                raise NotFound(f"There is no part {target.part_id}", "Choose one of your machines.")
        else:
            place = organization_place(_organization(caller, target.organization_id))
        if caller.kind is CallerKind.PART:
            if place.part_id != caller.part_id:
                raise PermissionDenied("A machine may only upload as itself", "Use its own part id.")
        else:
            caller.require(
                place.organization_id, place.location_id, place.machine_id, owner=True, what="uploads to this place"
            )
        if target.dataset_id and caller.kind is not CallerKind.PART:
            dataset = self._datasets.get(caller, target.dataset_id)
            if dataset.organization_id != place.organization_id:
                raise InvalidInput(f"The dataset {dataset.name} belongs to another organization", "Choose another one.")
        return place

    def store(self, caller: Caller, files: Sequence[NewFile], target: Target) -> tuple[list[Stored], list[Failed]]:
        """Stores what can be stored and says of each other file why not. Takes over the payloads."""
        try:
            place = self.place(caller, target)
        except AppError:
            for file in files:
                file.payload.discard()
            raise
        failed: list[Failed] = []
        waiting: list[tuple[NewFile, str, Future[Receipt]]] = []
        for file in files:
            try:
                warning = _CUT_OFF if is_cut_off(file.payload) else ""
                waiting.append((file, warning, self._submit(file, place, target)))
            except AppError as err:
                file.payload.discard()
                failed.append(Failed(file.name, err.message, err.hint))
        stored: list[Stored] = []
        for file, warning, future in waiting:
            try:
                receipt = future.result(_COMMIT_S)
            except AppError as err:
                failed.append(Failed(file.name, err.message, err.hint))
            else:
                stored.append(Stored(receipt.row, receipt.binary_data_id, file.name, receipt.is_duplicate, warning))
        self._complete_duplicates(caller, [one.row for one in stored if one.is_duplicate], target)
        return stored, failed

    def _submit(self, file: NewFile, place: Place, target: Target) -> Future[Receipt]:
        refuse_false_pictures(file)
        metadata = UploadMetadata(
            part_id=place.part_id,
            type=DataType.DATA_TYPE_FILE,
            file_name=file.name,
            tags=target.tags,
            dataset_ids=[target.dataset_id] if target.dataset_id else [],
        )
        return self._ingest.submit(from_file(metadata, file.payload, place, self._clock_ns(), revive=True))

    def _complete_duplicates(self, caller: Caller, rows: list[int], target: Target) -> None:
        """A picture that was here already still gets the tags and the dataset it was dropped with."""
        if rows and target.tags and caller.kind is not CallerKind.PART:
            self._items.change_tags(caller, Selection(rows=tuple(rows)), target.tags)
        if rows and target.dataset_id and caller.kind is not CallerKind.PART:
            self._datasets.add_items(caller, target.dataset_id, Selection(rows=tuple(rows)))


def _organization(caller: Caller, organization_id: str) -> str:
    own = sorted(caller.organization_ids())
    if organization_id in own:
        return organization_id
    if organization_id or len(own) != 1:
        raise InvalidInput(
            "The upload names no organization of yours", f"Send organization_id, one of: {', '.join(own)}."
        )
    return own[0]


def refuse_false_pictures(file: NewFile) -> None:
    """Raises InvalidInput for what is called a picture and is none that a browser shows."""
    extension = "." + file.name.rpartition(".")[2]
    named = sniff.mime_of_extension(extension)
    head = file.payload.head(64)
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        raise InvalidInput(f"{file.name} is a HEIC picture", "Save it as JPEG or PNG and add that.")
    common = ("image/jpeg", "image/png", "image/gif", "image/webp")
    if named in common and not sniff.sniff(head).mime_type.startswith("image/"):
        raise InvalidInput(f"{file.name} is not a picture, whatever its name says", "Check the file, or rename it.")
