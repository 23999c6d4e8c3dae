"""Checks that what the metadata promises is on the disk and opens. Changes nothing; may run beside a running app.

Quick: every record's place is read from its pack's headers. Deep: every byte is opened as well; the seal of each 64 KiB
segment (AES-GCM) notices any change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from gleaner.app.database import Database
from gleaner.app.keys import KeyProblem
from gleaner.app.store import tables as t
from gleaner.app.store.pack_format import FoundRecord, Position
from gleaner.app.store.packs import PackStore

MOST_NAMED = 20
_HARMLESS = {
    "thumbnail": "thumbnails: {}; they are made again",
    "lake": "lake files: {}; they are made again",
    "deletions": "what was deleted lately: {}; a rebuild would bring it back",
}
"""The first two from items, and from batches of readings (`app/lake/mending.py`), by a running app."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    problem: str
    where: str
    ids: tuple[str, ...] = ()
    """Items (binary data ids) that are affected; readings and thumbnails are only counted."""
    records: int = 0
    is_harmless: bool = False
    """Mended by itself; nothing is lost."""


@dataclass
class Report:
    packs: int = 0
    records: int = 0
    bytes_opened: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_healthy(self) -> bool:
        return all(finding.is_harmless for finding in self.findings)


@dataclass(frozen=True)
class _Held:
    """A record some row names. `name` is the file id of the item or batch, or of what a thumbnail shows."""

    kind: str
    name: str
    position: Position


def check(
    packs: PackStore, database: Database, *, deep: bool, progress: Callable[[float], None] = lambda done: None
) -> Report:
    """`progress` is told the fraction done."""
    report = Report()
    report.findings += database_findings(database)
    there = list(packs.objects.names())
    with database.read() as db:
        known = [(int(i), str(n)) for i, n in db.execute(sa.select(t.pack.c.id, t.pack.c.name).order_by(t.pack.c.id))]
    for done, (pack_id, name) in enumerate(known, 1):
        _check_pack(packs, database, pack_id, name, report, deep=deep)
        progress(done / len(known))
    report.findings += _orphans(packs, database, there)
    report.findings += _lost(database)
    return report


def database_findings(database: Database) -> list[Finding]:
    """What the database itself says about its file."""
    if database.engine.dialect.name != "sqlite":
        return []
    with database.read() as db:
        said = [str(row[0]) for row in db.exec_driver_sql("PRAGMA cipher_integrity_check")]
        said += [str(row[0]) for row in db.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
        loose = db.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    found = [Finding(line, "metadata.db") for line in said[:MOST_NAMED]]
    return found + [Finding(f"a row of {row[0]} names a row of {row[2]} that is gone", "metadata.db") for row in loose]


def _check_pack(packs: PackStore, database: Database, pack_id: int, name: str, report: Report, *, deep: bool) -> None:
    held = _held(database, pack_id)
    problems = list(_problems(packs, pack_id, name, held, report, deep=deep))
    if problems:
        # The cleaner of a running app may have moved records meanwhile; those are no concern of this pack any more.
        still = set(_held(database, pack_id))
        problems = [(one, problem) for one, problem in problems if one in still]
    report.packs += 1
    report.records += len(held)
    groups: dict[tuple[str, str], list[str]] = {}
    for one, problem in problems:
        groups.setdefault((one.kind, problem), []).append(one.name)
    for (kind, problem), names in groups.items():
        if said := _HARMLESS.get(kind):
            report.findings.append(Finding(said.format(problem), name, (), len(names), True))
        else:
            report.findings.append(
                Finding(f"{kind}: {problem}", name, tuple(names) if kind == "item" else (), len(names))
            )


def _problems(
    packs: PackStore, pack_id: int, name: str, held: list[_Held], report: Report, *, deep: bool
) -> Iterator[tuple[_Held, str]]:
    try:
        by_offset = {record.position.record_offset: record for record in packs.scan(name, check_bodies=False)[1]}
    except FileNotFoundError:
        yield from ((one, "the pack's file is missing") for one in held)
        return
    except KeyProblem:
        yield from ((one, "the pack was written under another key-encryption key") for one in held)
        return
    except OSError as err:
        yield from ((one, f"the pack cannot be read: {err.strerror or err}") for one in held)
        return
    for one in held:
        has_header = _is_same(one, by_offset.get(one.position.record_offset))
        if (deep or not has_header) and not _opens(packs, pack_id, one, report):
            yield one, "the bytes were changed or cut"
        elif not has_header:
            yield one, "the bytes are whole, but a damaged header before them would hide them from a rebuild"


def _is_same(held: _Held, found: FoundRecord | None) -> bool:
    if found is None or found.position != held.position:
        return False
    return held.kind != "thumbnail" or bool(found.header.get("of") == held.name)


def _opens(packs: PackStore, pack_id: int, held: _Held, report: Report) -> bool:
    try:
        for chunk in packs.chunks(pack_id, held.position):
            report.bytes_opened += len(chunk)
    except (InvalidTag, OSError):
        return False
    return True


def _held(database: Database, pack_id: int) -> list[_Held]:
    with database.read() as db:
        return list(_rows(db, pack_id))


def _rows(db: sa.Connection, pack_id: int) -> Iterable[_Held]:
    for kind, table in (("item", t.item), ("readings", t.readings_batch)):
        for row in db.execute(sa.select(table.c.file_id, *_place(table)).where(table.c.pack_id == pack_id)):
            yield _Held(kind, str(row[0]), Position(*row[1:]))
    for kind, table in (("lake", t.lake_file), ("deletions", t.deletion)):
        for row in db.execute(sa.select(table.c.id, *_place(table)).where(table.c.pack_id == pack_id)):
            yield _Held(kind, str(row[0]), Position(*row[1:]))
    thumbnails = sa.select(t.item.c.file_id, *_place(t.thumbnail)).join(t.item, t.item.c.row == t.thumbnail.c.row)
    for row in db.execute(thumbnails.where(t.thumbnail.c.pack_id == pack_id)):
        yield _Held("thumbnail", str(row[0]), Position(*row[1:]))


def _place(table: sa.Table) -> tuple[sa.Column[Any], ...]:
    return table.c.record_offset, table.c.body_offset, table.c.size_bytes


def _orphans(packs: PackStore, database: Database, there: Iterable[str]) -> Iterator[Finding]:
    """Packs that were there when the check began, still are, and that the metadata does not know."""
    with database.read() as db:
        known = set(db.scalars(sa.select(t.pack.c.name)))
    if orphans := sorted(name for name in there if name not in known and packs.objects.exists(name)):
        problem = f"{len(orphans)} packs are not in the metadata; the next start takes in what they hold"
        yield Finding(problem, ", ".join(orphans[:MOST_NAMED]), is_harmless=True)


def _lost(database: Database) -> Iterator[Finding]:
    with database.read() as db:
        lost = sa.select(t.item.c.file_id).where(t.item.c.pack_id.is_(None), t.item.c.deleted_ns.is_(None))
        ids = tuple(str(one) for one in db.scalars(lost))
    if ids:
        yield Finding("items have no bytes and were not deleted", "metadata.db", ids, len(ids))
