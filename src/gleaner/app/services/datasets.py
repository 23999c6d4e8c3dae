"""Datasets: named sets of items, references only. Versions of them are `datasets_versions.py`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gleaner.app.caller import Caller, Role
from gleaner.app.database import Database
from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.events import Event, EventBus
from gleaner.app.services import datasets_check, datasets_versions
from gleaner.app.services.datasets_values import Dataset, DatasetType, DatasetVersion, Materialized
from gleaner.app.services.items import publish_changed, selected
from gleaner.app.services.items_values import FacetValue, Selection
from gleaner.app.store import tables as t
from gleaner.app.store.packs import PackStore

_COVERS = 4
_LONGEST_NAME = 100
_MEMBER = t.dataset_item.c
_ALIVE = t.item.c.deleted_ns.is_(None)
_SEQUENCES_OF = (
    sa.select(sa.func.count())
    .select_from(t.dataset_sequence.join(t.sequence, t.sequence.c.id == t.dataset_sequence.c.sequence_id))
    .where(t.dataset_sequence.c.dataset_id == sa.bindparam("dataset"), t.sequence.c.deleted_ns.is_(None))
)


class DatasetService:
    def __init__(
        self,
        database: Database,
        packs: PackStore,
        events: EventBus,
        write_sequences: Callable[[str, Path], int],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`write_sequences(version_id, folder)`: writes what a version of sequences holds and counts them."""
        self._database = database
        self._packs = packs
        self._events = events
        self._write_sequences = write_sequences
        self._clock_ns = clock_ns

    def of_organization(self, caller: Caller, organization_id: str) -> list[Dataset]:
        """By name."""
        _require_seen(caller, organization_id)
        with self._database.read() as db:
            wanted = sa.select(t.dataset).where(t.dataset.c.organization_id == organization_id)
            return [self._described(db, row) for row in db.execute(wanted.order_by(t.dataset.c.name)).mappings().all()]

    def by_ids(self, caller: Caller, dataset_ids: Sequence[str]) -> list[Dataset]:
        return [self.get(caller, dataset_id) for dataset_id in dataset_ids]

    def get(self, caller: Caller, dataset_id: str) -> Dataset:
        """Raises NotFound."""
        with self._database.read() as db:
            return self._described(db, dataset_row(db, caller, dataset_id))

    def create(
        self, caller: Caller, organization_id: str, name: str, type_: DatasetType = DatasetType.BINARY
    ) -> Dataset:
        """Raises Conflict if the organization has a dataset of that name."""
        require_maker(caller, organization_id)
        name = _checked(name)
        made = Dataset(str(uuid.uuid4()), organization_id, name, self._clock_ns(), type=type_)
        with self._database.write() as db:
            _require_free(db, organization_id, name)
            values = {"organization_id": organization_id, "name": name, "created_ns": made.created_ns, "type": type_}
            db.execute(t.dataset.insert().values(id=made.id, **values))
        self._changed(organization_id, made.id)
        return made

    def rename(self, caller: Caller, dataset_id: str, name: str) -> Dataset:
        name = _checked(name)
        with self._database.write() as db:
            row = dataset_row(db, caller, dataset_id)
            caller.require(row["organization_id"], owner=True, what=f"the dataset {row['name']}")
            if name != row["name"]:
                _require_free(db, row["organization_id"], name)
            db.execute(t.dataset.update().where(t.dataset.c.id == dataset_id).values(name=name))
        self._changed(row["organization_id"], dataset_id)
        return self.get(caller, dataset_id)

    def delete(self, caller: Caller, dataset_id: str) -> None:
        """The items stay, and so do versions, because models name them."""
        with self._database.write() as db:
            row = dataset_row(db, caller, dataset_id)
            caller.require(row["organization_id"], owner=True, what=f"the dataset {row['name']}")
            db.execute(t.dataset_item.delete().where(_MEMBER.dataset_id == dataset_id))
            db.execute(t.dataset_sequence.delete().where(t.dataset_sequence.c.dataset_id == dataset_id))
            db.execute(t.dataset.delete().where(t.dataset.c.id == dataset_id))
        self._changed(row["organization_id"], dataset_id)

    def merge(self, caller: Caller, dataset_ids: Sequence[str], organization_id: str, name: str) -> Dataset:
        """A new dataset with the items of all the given ones."""
        if not dataset_ids:
            raise InvalidInput("No datasets were given to merge", "Name at least one.")
        for one in self.by_ids(caller, dataset_ids):
            if one.organization_id != organization_id:
                raise InvalidInput(f"The dataset {one.name} belongs to another organization", "Leave it out.")
            if one.type is not DatasetType.BINARY:
                raise InvalidInput(f"The dataset {one.name} holds sequences", "Merge datasets of pictures and files.")
        made = self.create(caller, organization_id, name)
        members = sa.select(sa.literal(made.id), _MEMBER.row).where(_MEMBER.dataset_id.in_(dataset_ids)).distinct()
        with self._database.write() as db:
            db.execute(t.dataset_item.insert().from_select(["dataset_id", "row"], members))
        self._changed(organization_id, made.id)
        return self.get(caller, made.id)

    def add_items(self, caller: Caller, dataset_id: str, selection: Selection) -> int:
        """The answer counts items that were not in it yet."""
        with self._database.write() as db:
            dataset, rows = self._chosen(db, caller, dataset_id, selection)
            have = set(db.scalars(sa.select(_MEMBER.row).where(_MEMBER.dataset_id == dataset_id)))
            new = [row for row in rows if row not in have]
            if new:
                db.execute(t.dataset_item.insert(), [{"dataset_id": dataset_id, "row": row} for row in new])
        self._changed(dataset["organization_id"], dataset_id, new)
        return len(new)

    def remove_items(self, caller: Caller, dataset_id: str, selection: Selection) -> int:
        with self._database.write() as db:
            dataset, rows = self._chosen(db, caller, dataset_id, selection)
            same = _MEMBER.dataset_id == dataset_id, _MEMBER.row.in_(t.rows_in(rows, db.dialect.name))
            removed = list(db.scalars(t.dataset_item.delete().where(*same).returning(_MEMBER.row)))
        self._changed(dataset["organization_id"], dataset_id, removed)
        return len(removed)

    def check(
        self, caller: Caller, dataset_id: str, labels: Sequence[str] = (), model_type: str = ""
    ) -> dict[str, Any]:
        """What may make a poor model: `{warnings:[{message,hint}], counts:[{label,count}], untagged}`. Raises InvalidInput
        for a dataset of sequences."""
        with self._database.read() as db:
            row = dataset_row(db, caller, dataset_id)
            require_pictures(row["type"], row["name"], "Run a training script of your own on it.")
            return datasets_check.check(db, dataset_id, labels, model_type)

    def create_version(self, caller: Caller, dataset_id: str) -> DatasetVersion:
        """Freezes the dataset as it is now; the newest version again if nothing has changed since."""
        with self._database.write() as db:
            row = dataset_row(db, caller, dataset_id)
            require_maker(caller, row["organization_id"])
            version = datasets_versions.create(db, row, self._clock_ns())
        self._changed(version.organization_id, dataset_id)
        return version

    def materialize_version(self, version_id: str, directory: Path) -> Materialized:
        """Writes `dataset.jsonl` and the pictures, or the three files of sequences, for a training run. For code that has
        already checked its caller."""
        if sequences := self._write_sequences(version_id, directory):
            return Materialized(sequences, 0)
        return datasets_versions.materialize(self._database, self._packs, version_id, directory)

    def _chosen(
        self, db: sa.Connection, caller: Caller, dataset_id: str, selection: Selection
    ) -> tuple[sa.RowMapping, list[int]]:
        dataset = dataset_row(db, caller, dataset_id)
        require_maker(caller, dataset["organization_id"])
        require_pictures(dataset["type"], dataset["name"], "Choose another, or make one.")
        rows, origins = selected(db, caller, selection)
        if any(one.organization_id != dataset["organization_id"] for one in origins):
            raise InvalidInput(
                "Some items belong to another organization", "Choose items of the dataset's organization."
            )
        return dataset, rows

    def _described(self, db: sa.Connection, row: sa.RowMapping) -> Dataset:
        member = t.dataset_item.join(t.item, t.item.c.row == _MEMBER.row)
        mine = (_MEMBER.dataset_id == row["id"], _ALIVE)
        bare = sa.func.coalesce(sa.func.sum(sa.case((t.item.c.tag_count == 0, 1), else_=0)), 0)
        count, untagged = db.execute(sa.select(sa.func.count(), bare).select_from(member).where(*mine)).one()
        covers = sa.select(_MEMBER.row).select_from(member).where(*mine).order_by(_MEMBER.row.desc()).limit(_COVERS)
        versions = sa.select(t.dataset_version).where(t.dataset_version.c.dataset_id == row["id"])
        return Dataset(
            row["id"],
            row["organization_id"],
            row["name"],
            row["created_ns"],
            int(count),
            int(untagged),
            tuple(FacetValue(tag, tag, n) for tag, n in datasets_check.tag_counts(db, row["id"])),
            tuple(datasets_check.box_labels(db, row["id"])),
            int(count) - datasets_check.boxed_count(db, row["id"]),
            tuple(db.scalars(covers)),
            tuple(
                DatasetVersion(**one)
                for one in db.execute(versions.order_by(t.dataset_version.c.version.desc())).mappings()
            ),
            DatasetType(row["type"]),
            int(db.scalar(_SEQUENCES_OF, {"dataset": row["id"]}) or 0) if row["type"] == DatasetType.SEQUENCE else 0,
        )

    def _changed(self, organization_id: str, dataset_id: str, rows: Sequence[int] = ()) -> None:
        self._events.publish(Event("dataset_changed", organization_id, {"id": dataset_id}))
        if rows:
            publish_changed(self._events, [organization_id], rows)


def dataset_row(db: sa.Connection, caller: Caller, dataset_id: str) -> sa.RowMapping:
    """Raises NotFound, also for a dataset of an organization that the caller has nothing to do with."""
    row = db.execute(sa.select(t.dataset).where(t.dataset.c.id == dataset_id)).mappings().one_or_none()
    if row is None or row["organization_id"] not in caller.organization_ids():
        raise NotFound(f"There is no dataset {dataset_id}", "List the datasets to see its id.")
    return row


def require_pictures(type_: str, name: str, hint: str) -> None:
    """Raises InvalidInput for a dataset of sequences."""
    if type_ != DatasetType.BINARY:
        raise InvalidInput(f"The dataset {name} holds sequences, not pictures", hint)


def _require_seen(caller: Caller, organization_id: str) -> None:
    if organization_id not in caller.organization_ids():
        raise NotFound(f"There is no organization {organization_id}", "List the organizations to see its id.")


def require_maker(caller: Caller, organization_id: str) -> None:
    """Owners of the organization or of a location or machine in it may make and fill datasets."""
    owns = any(g.organization_id == organization_id and g.role is Role.OWNER for g in caller.grants)
    if not owns:
        _require_seen(caller, organization_id)
        caller.require(organization_id, owner=True, what="datasets")


def _require_free(db: sa.Connection, organization_id: str, name: str) -> None:
    same = t.dataset.c.organization_id == organization_id, t.dataset.c.name == name
    if db.scalar(sa.select(t.dataset.c.id).where(*same)):
        raise Conflict(
            f"There is a dataset called {name} already", "Choose another name, or add the items to that one."
        )


def _checked(name: str) -> str:
    name = name.strip()
    if not name or len(name) > _LONGEST_NAME or any(ord(c) < 32 for c in name):
        raise InvalidInput(f"{name[:40]!r} cannot name a dataset", f"Use 1 to {_LONGEST_NAME} characters.")
    return name
