"""Immutable dataset versions, and a version written out in Viam's export format for a training run."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.errors import InvalidInput, NotFound
from gleaner.app.services.datasets_values import DatasetType, DatasetVersion, Materialized
from gleaner.app.services.fleet_values import iso
from gleaner.app.store import sniff
from gleaner.app.store import tables as t
from gleaner.app.store.pack_format import Position
from gleaner.app.store.packs import PackStore
from gleaner.formats.values import Box, split_off
from gleaner.formats.viam import box_line

_MEMBER = t.dataset_item.c
COVERED = ("organization_id", "location_id", "machine_id", "part_id", "resources", "tags", "start_ns", "end_ns")
"""What a version keeps of a sequence."""


def create(db: sa.Connection, dataset: sa.RowMapping, now_ns: int) -> DatasetVersion:
    """Copies members and annotations, or what the sequences cover; the newest version again if its hash is the same."""
    digest = hashlib.sha256()
    if dataset["type"] == DatasetType.SEQUENCE:
        table, what, rows = t.dataset_version_sequence, "sequences", _sequences(db, dataset["id"])
        for row in rows:
            digest.update(json.dumps(row, sort_keys=True).encode())
    else:
        members = _members(db, dataset["id"])
        for _, content, notes in sorted(members, key=lambda one: one[1:]):
            digest.update(content + hashlib.sha256(notes.encode()).digest())
        table, what = t.dataset_version_item, "pictures"
        rows = [{"row": row, "annotations": notes} for row, _, notes in members]
    if not rows:
        raise InvalidInput(f"The dataset {dataset['name']} is empty", f"Add {what} to it first.")
    versions = sa.select(t.dataset_version).where(t.dataset_version.c.dataset_id == dataset["id"])
    newest = db.execute(versions.order_by(t.dataset_version.c.version.desc()).limit(1)).mappings().one_or_none()
    if newest is not None and newest["hash"] == digest.hexdigest():
        return DatasetVersion(**newest)
    made = DatasetVersion(
        id=str(uuid.uuid4()),
        dataset_id=dataset["id"],
        dataset_name=dataset["name"],
        organization_id=dataset["organization_id"],
        version=newest["version"] + 1 if newest is not None else 1,
        created_ns=now_ns,
        item_count=len(rows),
        hash=digest.hexdigest(),
    )
    db.execute(t.dataset_version.insert().values(**made.__dict__))
    db.execute(table.insert(), [{"version_id": made.id, **row} for row in rows])
    return made


def materialize(database: Database, packs: PackStore, version_id: str, directory: Path) -> Materialized:
    """Writes `dataset.jsonl` and `images/`, readable to this user only. Raises NotFound."""
    with database.read() as db:
        known = db.scalar(sa.select(t.dataset_version.c.id).where(t.dataset_version.c.id == version_id))
        if known is None:
            raise NotFound(f"There is no dataset version {version_id}", "Make a new one from the dataset.")
        members = t.dataset_version_item
        query = (
            sa.select(t.item, t.origin, members.c.annotations)
            .select_from(members)
            .join(t.item, t.item.c.row == members.c.row)
            .join(t.origin, t.origin.c.id == t.item.c.origin_id)
            .where(members.c.version_id == version_id)
            .order_by(members.c.row)
        )
        found = db.execute(query).mappings().all()
    images = directory / "images"
    images.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = 0
    with _private(directory / "dataset.jsonl") as lines:
        for one in found:
            # A picture deleted since is gone from old versions too: deleting means deleting.
            if one["pack_id"] is None or one["deleted_ns"] is not None:
                continue
            name = f"images/{one['file_id']}{sniff.extension_of(one['mime_type']) or one['file_ext']}"
            position = Position(one["record_offset"], one["body_offset"], one["size_bytes"])
            with _private(directory / name) as file:
                for chunk in packs.chunks(one["pack_id"], position):
                    file.write(chunk)
            lines.write(json.dumps(_line(name, one)).encode() + b"\n")
            written += 1
    return Materialized(written, len(found) - written)


def _line(name: str, one: sa.RowMapping) -> dict[str, Any]:
    """Viam's `dataset.jsonl`: labels for classification are the tags."""
    annotations = json.loads(one["annotations"])
    tags, split = split_off(annotations["tags"])
    return {
        "image_path": name,
        **({"split": split} if split else {}),
        "classification_annotations": [{"annotation_label": tag} for tag in tags],
        "bounding_box_annotations": [box_line(Box(*box)) for box in annotations["boxes"]],
        "timestamp": iso(one["captured_ns"]),
        "binary_data_id": f"{one['organization_id']}/{one['location_id']}/{one['file_id']}",
        "organization_id": one["organization_id"],
        "location_id": one["location_id"],
        "robot_id": one["machine_id"],
        "part_id": one["part_id"],
        "component_name": one["component_name"],
    }


def _members(db: sa.Connection, dataset_id: str) -> list[tuple[int, bytes, str]]:
    """(row, content digest, annotations as canonical JSON) of the pictures in a dataset."""
    query = (
        sa.select(t.item.c.row, t.item.c.digest)
        .join(_MEMBER.row.table, t.item.c.row == _MEMBER.row)
        .join(t.origin, t.origin.c.id == t.item.c.origin_id)
        .where(_MEMBER.dataset_id == dataset_id, t.item.c.deleted_ns.is_(None), t.origin.c.kind == sniff.IMAGE)
        .order_by(t.item.c.row)
    )
    items = db.execute(query).all()
    annotations = dict(_annotations(db, [row for row, _ in items]))
    return [(row, digest, annotations[row]) for row, digest in items]


def _sequences(db: sa.Connection, dataset_id: str) -> list[dict[str, Any]]:
    """As the version's table keeps them."""
    one, member = t.sequence.c, t.dataset_sequence.c
    query = sa.select(t.sequence).join(member.sequence_id.table, one.id == member.sequence_id)
    found = db.execute(query.where(member.dataset_id == dataset_id, one.deleted_ns.is_(None)).order_by(one.id))
    return [
        {"sequence_id": row["id"], "covers": json.dumps({name: row[name] for name in COVERED})}
        for row in found.mappings()
    ]


def _annotations(db: sa.Connection, rows: Sequence[int]) -> Iterator[tuple[int, str]]:
    wanted = t.rows_in(list(rows), db.dialect.name)
    tags: dict[int, list[str]] = {}
    boxes: dict[int, list[tuple[str | float, ...]]] = {}
    for row, tag in db.execute(sa.select(t.item_tag.c.row, t.item_tag.c.tag).where(t.item_tag.c.row.in_(wanted))):
        tags.setdefault(row, []).append(tag)
    for one in db.execute(sa.select(t.item_box).where(t.item_box.c.row.in_(wanted))):
        sure = () if one.confidence is None else (one.confidence,)
        boxes.setdefault(one.row, []).append((one.label, one.x_min, one.y_min, one.x_max, one.y_max, *sure))
    for row in rows:
        value = {"tags": sorted(tags.get(row, ())), "boxes": sorted(boxes.get(row, ()))}
        yield row, json.dumps(value, separators=(",", ":"))


def _private(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
