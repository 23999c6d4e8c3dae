"""Looks at a dataset the way training will, and says what would make a poor model.

Limits are Viam's documented ones: 15 pictures, 80 % of them labelled, 10 per label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from gleaner.app.services.datasets_values import BoxLabel
from gleaner.app.store import tables as t

FEWEST_ITEMS = 15
FEWEST_PER_LABEL = 10
LABELLED_SHARE = 0.8
_DETECTION = "object_detection"


def tag_counts(db: sa.Connection, dataset_id: str) -> list[tuple[str, int]]:
    return _counts(db, _members(dataset_id), t.item_tag, t.item_tag.c.tag)


def box_labels(db: sa.Connection, dataset_id: str) -> list[BoxLabel]:
    box = t.item_box.c
    suggested = sa.func.sum(sa.case((box.confidence.is_not(None), 1), else_=0))
    number = sa.func.count()
    query = sa.select(box.label, sa.func.count(sa.distinct(box.row)), number, suggested)
    found = db.execute(query.where(box.row.in_(_members(dataset_id))).group_by(box.label))
    return [
        BoxLabel(label, int(p), int(n), int(s)) for label, p, n, s in sorted(found, key=lambda one: (-one[2], one[0]))
    ]


def boxed_count(db: sa.Connection, dataset_id: str) -> int:
    """How many of its items have a box."""
    rows = t.item_box.c.row
    return int(db.scalar(sa.select(sa.func.count(sa.distinct(rows))).where(rows.in_(_members(dataset_id)))) or 0)


def check(db: sa.Connection, dataset_id: str, labels: Sequence[str], model_type: str) -> dict[str, Any]:
    """`labels` are those to be learned; all of the dataset's if empty."""
    detection = model_type.lower().endswith(_DETECTION)
    table, column = (t.item_box, t.item_box.c.label) if detection else (t.item_tag, t.item_tag.c.tag)
    members = _members(dataset_id)
    chosen = list(labels) or [label for label, _ in _counts(db, members, table, column)]
    # Training leaves such pictures out whole: without those boxes their things would be taught to be background.
    waiting, boxes = _waiting(db, members, chosen) if detection else (0, 0)
    if waiting:
        members = members.where(t.dataset_item.c.row.not_in(_suggested_rows(chosen)))
    counts = dict(_counts(db, members, table, column))
    total = db.scalar(sa.select(sa.func.count()).select_from(members.subquery())) or 0
    having = sa.select(sa.func.count(sa.distinct(table.c.row)))
    labelled = db.scalar(having.where(table.c.row.in_(members), column.in_(chosen))) or 0
    warnings = _warnings(total, labelled, {label: counts.get(label, 0) for label in chosen}, detection)
    if waiting:
        warnings.insert(0, _not_accepted(waiting, boxes))
    return {
        "warnings": warnings,
        "counts": [{"label": label, "count": counts.get(label, 0)} for label in chosen],
        "untagged": total - labelled,
        "waiting": waiting,
    }


def _warnings(total: int, labelled: int, counts: dict[str, int], detection: bool) -> list[dict[str, str]]:
    what, how = ("boxes", "draw") if detection else ("tags", "tag")
    found = []
    if total < FEWEST_ITEMS:
        few = "1 picture is little" if total == 1 else f"{total} pictures are few"
        found.append(_warning(f"{few}: {FEWEST_ITEMS} or more work better.", "Add more pictures."))
    if total and labelled < LABELLED_SHARE * total:
        found.append(
            _warning(
                f"{total - labelled} of {total} pictures have none of the chosen {what}.",
                "They teach the model what is none of these. If you did not mean that, label or remove them.",
            )
        )
    for label, count in counts.items():
        if count < FEWEST_PER_LABEL:
            hint = f"Aim for {FEWEST_PER_LABEL} or more: {how} {FEWEST_PER_LABEL - count} more."
            found.append(_warning(f"{label}: {count} picture{'' if count == 1 else 's'}.", hint))
    if len(counts) == 1 and labelled == total and total:
        found.append(
            _warning(
                f"Every picture is {next(iter(counts))}: there is nothing to tell it apart from.",
                "Add some pictures without it, or with something else.",
            )
        )
    return found


def _suggested_rows(labels: Sequence[str]) -> sa.Select[tuple[int]]:
    box = t.item_box.c
    return sa.select(box.row).where(box.confidence.is_not(None), box.label.in_(labels))


def _waiting(db: sa.Connection, members: sa.Select[tuple[int]], labels: Sequence[str]) -> tuple[int, int]:
    """(pictures, boxes) that wait for somebody to accept what a model has drawn."""
    found = _suggested_rows(labels).where(t.item_box.c.row.in_(members)).subquery()
    pictures, boxes = db.execute(sa.select(sa.func.count(sa.distinct(found.c.row)), sa.func.count())).one()
    return int(pictures), int(boxes)


def _not_accepted(pictures: int, boxes: int) -> dict[str, str]:
    where = "1 picture is" if pictures == 1 else f"{pictures} pictures are"
    what = "a box of it is a model's that" if boxes == 1 else f"{boxes} boxes in them are a model's that"
    hint = "Accept the right ones: press B in a picture, or accept the surest in the dataset's panel."
    return _warning(f"{where} left out: {what} nobody has accepted.", hint)


def _warning(message: str, hint: str) -> dict[str, str]:
    return {"message": message, "hint": hint}


def _members(dataset_id: str) -> sa.Select[tuple[int]]:
    member = t.dataset_item.c
    return (
        sa.select(member.row)
        .join(t.item, t.item.c.row == member.row)
        .where(member.dataset_id == dataset_id, t.item.c.deleted_ns.is_(None))
    )


def _counts(
    db: sa.Connection, members: sa.Select[tuple[int]], table: sa.Table, column: sa.Column[str]
) -> list[tuple[str, int]]:
    number = sa.func.count(sa.distinct(table.c.row))
    query = sa.select(column, number).where(table.c.row.in_(members)).group_by(column)
    return [(value, count) for value, count in db.execute(query.order_by(number.desc(), column))]
