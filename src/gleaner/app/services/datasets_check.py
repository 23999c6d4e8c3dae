"""Looks at a dataset the way training will, and says what would make a poor model.

Limits are Viam's documented ones: 15 pictures, 80 % of them labelled, 10 per label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from gleaner.app.store import tables as t

FEWEST_ITEMS = 15
FEWEST_PER_LABEL = 10
LABELLED_SHARE = 0.8
_DETECTION = "object_detection"


def tag_counts(db: sa.Connection, dataset_id: str) -> list[tuple[str, int]]:
    return _counts(db, dataset_id, t.item_tag, t.item_tag.c.tag)


def check(db: sa.Connection, dataset_id: str, labels: Sequence[str], model_type: str) -> dict[str, Any]:
    """`labels` are those to be learned; all of the dataset's if empty."""
    detection = model_type.lower().endswith(_DETECTION)
    table, column = (t.item_box, t.item_box.c.label) if detection else (t.item_tag, t.item_tag.c.tag)
    counts = dict(_counts(db, dataset_id, table, column))
    chosen = list(labels) or list(counts)
    members = _members(dataset_id)
    total = db.scalar(sa.select(sa.func.count()).select_from(members.subquery())) or 0
    having = sa.select(sa.func.count(sa.distinct(table.c.row)))
    labelled = db.scalar(having.where(table.c.row.in_(members), column.in_(chosen))) or 0
    return {
        "warnings": _warnings(total, labelled, {label: counts.get(label, 0) for label in chosen}, detection),
        "counts": [{"label": label, "count": counts.get(label, 0)} for label in chosen],
        "untagged": total - labelled,
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


def _warning(message: str, hint: str) -> dict[str, str]:
    return {"message": message, "hint": hint}


def _members(dataset_id: str) -> sa.Select[tuple[int]]:
    member = t.dataset_item.c
    return (
        sa.select(member.row)
        .join(t.item, t.item.c.row == member.row)
        .where(member.dataset_id == dataset_id, t.item.c.deleted_ns.is_(None))
    )


def _counts(db: sa.Connection, dataset_id: str, table: sa.Table, column: sa.Column[str]) -> list[tuple[str, int]]:
    number = sa.func.count(sa.distinct(table.c.row))
    query = sa.select(column, number).where(table.c.row.in_(_members(dataset_id))).group_by(column)
    return [(value, count) for value, count in db.execute(query.order_by(number.desc(), column))]
