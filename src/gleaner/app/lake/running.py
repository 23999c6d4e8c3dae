"""What happens to a query in the process that runs it (`worker.py`): planned first, then run on what it was given."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import bson
from cryptography.exceptions import InvalidTag

from gleaner.app.errors import AppError, DamagedReadings, InvalidInput, Stopped, TookTooLong, TooLarge
from gleaner.app.lake import engine, mql, pictures, sql, values, view
from gleaner.app.lake.batches import UnreadableBatch
from gleaner.app.lake.files import LakeFile
from gleaner.app.lake.pictures import Copied
from gleaner.app.lake.schema import Columns
from gleaner.app.lake.view import Source, Wanted
from gleaner.app.store.packs import PackStore

if TYPE_CHECKING:
    import duckdb

PAGE_ROWS = 1000
TABLES = frozenset((sql.READINGS, pictures.ITEMS, pictures.ANNOTATIONS))

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """`text` is SQL; without it `stages` (BSON documents) are a pipeline."""

    text: str
    stages: tuple[bytes, ...]
    seconds: float
    memory_mb: int


@dataclass(frozen=True)
class Material:
    """All that a query may read: lake files and batches with the keys of their packs, rows of the other tables."""

    source: Source
    copied: Copied
    address: str
    """Where the packs are."""
    keys: dict[int, tuple[str, bytes]] = field(repr=False)
    """Pack id → name and data key."""


@dataclass(frozen=True)
class Found:
    """`rows` are BSON documents; `columns` are SQL's, also where no row was found (a pipeline's documents differ: none)."""

    columns: list[str]
    rows: list[bytes]


def plan(packs: PackStore, asked: Question) -> dict[str, Wanted]:
    """By table that it reads: what it can use of it at most. Raises InvalidInput."""
    if not asked.text:
        stages = mql.checked([_decoded(one) for one in asked.stages])
        return {sql.READINGS: view.wanted_by_matches(mql.leading_matches(stages))}
    with _in_time(packs, asked) as duck:
        statement = sql.parse(duck, asked.text, TABLES)
        return {name: view.wanted_by(duck, found) for name, found in statement.conditions.items()}


def answer(packs: PackStore, asked: Question, given: Material) -> Iterator[Found]:
    """Page by page; SQL has one at least. Raises InvalidInput, TooLarge, TookTooLong."""
    with _in_time(packs, asked, given.source) as duck:
        columns = _load(duck, packs, given.source)
        if asked.text:
            statement = sql.parse(duck, asked.text, TABLES)
            query = sql.written(duck, statement, columns)
            view.make(duck, given.source, columns, statement.used)
            pictures.load(duck, given.copied)
            yield from _pages(duck, query)
            return
        stages = mql.checked([_decoded(one) for one in asked.stages])
        # By their exact names: Mongo's keys differ in case.
        used = {path: name for path, name in sql.used_columns(mql.fields(stages), columns).items() if path in columns}
        view.make(duck, given.source, columns, used)
        pipeline = mql.compiled(stages, columns, used)
        yield from _pages(duck, pipeline.text, pipeline.document)


def _load(duck: duckdb.DuckDBPyConnection, packs: PackStore, source: Source) -> Columns:
    while True:
        try:
            return view.load(duck, packs, source)
        except UnreadableBatch as err:
            log.error("A query goes on without %s. `gleaner app fsck` says what is damaged.", err)
            source = replace(source, waiting=[one for one in source.waiting if one.id != err.batch.id])
            duck.execute("DROP TABLE batch_rows")
            duck.execute("DROP TABLE batch_heads")


def _pages(
    duck: duckdb.DuckDBPyConnection, query: str, document: Callable[[list[Any]], dict[str, Any]] | None = None
) -> Iterator[Found]:
    """Without `document` a row's names are its columns."""
    cursor = duck.execute(query)
    described = cursor.description or []
    names = distinct([str(one[0]) for one in described])
    converters = [values.converter(one[1]) for one in described]
    if document is None:
        yield Found(names, [])
    made = document or (lambda row: dict(zip(names, row, strict=True)))
    while page := cursor.fetchmany(PAGE_ROWS):
        yield Found(
            [],
            [_encoded(made([convert(one) for convert, one in zip(converters, row, strict=True)])) for row in page],
        )


def distinct(names: Sequence[str]) -> list[str]:
    """A name that comes again gets a number, as DuckDB gives it in a subquery: a, a_1; a document has each name once."""
    found: dict[str, None] = {}
    for name in names:
        chosen, number = name, 0
        while chosen in found or (number and chosen in names):
            number += 1
            chosen = f"{name}_{number}"
        found[chosen] = None
    return list(found)


def _encoded(document: dict[str, Any]) -> bytes:
    try:
        return bson.encode(document)
    except bson.errors.InvalidDocument:  # of all that JSON can say, only a zero byte in a key cannot be said in BSON
        return bson.encode(values.with_plain_keys(document))


@contextmanager
def _in_time(packs: PackStore, asked: Question, source: Source | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    lake = source.lake if source else ()
    damaged: list[LakeFile] = []
    with (
        engine.caged(packs, lake, memory_mb=asked.memory_mb, on_damage=damaged.append) as duck,
        engine.limited(duck, asked.seconds) as is_over,
        _as_app_errors(is_over, asked, damaged),
    ):
        yield duck


@contextmanager
def _as_app_errors(is_over: threading.Event, asked: Question, damaged: Sequence[LakeFile]) -> Iterator[None]:
    import duckdb

    try:
        yield
    except (duckdb.OutOfMemoryException, MemoryError) as err:
        raise too_large(asked) from err
    except (duckdb.Error, InvalidTag, OSError) as err:
        if damaged:
            raise DamagedReadings("A file of readings is damaged", "It is made again; ask once more.") from err
        if not isinstance(err, duckdb.Error):
            raise
        if is_over.is_set():
            raise too_long(asked) from err
        raise _about_the_query(err) from err


def too_large(asked: Question) -> TooLarge:
    return TooLarge(
        f"The query needs more than its {asked.memory_mb} MB of memory",
        "Choose fewer columns or a shorter time, or aggregate over less.",
    )


def too_long(asked: Question) -> TookTooLong:
    return TookTooLong(
        f"The query was stopped after {asked.seconds:g} seconds",
        "Name a part, a component or a time range, so that less has to be read.",
    )


def stopped() -> Stopped:
    return Stopped("The query was stopped by who asked it", "Ask it again.")


def _about_the_query(err: Exception) -> AppError:
    message = str(err).strip().partition("\n\nLINE")[0].replace("\n", " ")
    return InvalidInput(
        f"The query cannot be run: {message}", "Keys are data.readings.<key>; times are UTC timestamps."
    )


def _decoded(stage: bytes) -> dict[str, Any]:
    try:
        return dict(bson.decode(stage))
    except bson.errors.InvalidBSON as err:
        raise InvalidInput(f"A stage is not BSON: {err}", "Encode each stage as one BSON document.") from err
