"""SQL and Mongo's pipelines over an organization's readings, pictures and what was seen in them.

A caller sees the rows of the places where it has a role, whatever the query says: it runs in a process of its own that is
given those alone (`app/lake/worker.py`), in a DuckDB that can reach nothing else (`app/lake/engine.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import bson

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import DamagedReadings, InvalidInput, PermissionDenied, TooLarge
from gleaner.app.lake import mending, pictures, sql, view
from gleaner.app.lake.running import Found, Material, Question
from gleaner.app.lake.view import Wanted
from gleaner.app.lake.workers import Pages, QueryWorkers
from gleaner.app.services.items_filter import origins_of, visible_origins
from gleaner.app.services.items_values import Origin
from gleaner.app.store import sniff
from gleaner.app.store.packs import PackStore

SINK = "gleaner:data-pipeline"
"""Kind and component type of what data pipelines found. No query of the readings sees it."""
MOST_ANSWER_BYTES = 64 << 20
_FOR_A_FILE = 10
_NEW_ROOT = bson.encode({"$replaceRoot": {"newRoot": "$data"}})


def _not_empty(text: str) -> str:
    if not text.strip():
        raise InvalidInput("The query is empty", "For example: SELECT * FROM readings LIMIT 10")
    return text


def sink_name(pipeline_id: str) -> str:
    return f"sink-{pipeline_id}"


class QueryService:
    def __init__(
        self, database: Database, packs: PackStore, *, seconds: float = 60.0, memory_mb: int = 512, at_once: int = 2
    ) -> None:
        """Each query may take so long and so much memory; more than `at_once` wait for their turn."""
        self._database = database
        self._packs = packs
        self.seconds = seconds
        self.memory_mb = memory_mb
        self._workers = QueryWorkers(at_once)

    def stop(self) -> None:
        """Ends the processes kept for the next query; a later query starts one again."""
        self._workers.stop()

    def sql(self, caller: Caller, organization_id: str, text: str, stop: threading.Event | None = None) -> Found:
        """Raises InvalidInput, PermissionDenied, TooLarge, TookTooLong, Unavailable, Stopped (`stop` was set)."""
        return self._ask(self._visible(caller, organization_id), text=_not_empty(text), stop=stop)

    def mql(
        self, caller: Caller, organization_id: str, pipeline: Sequence[bytes], stop: threading.Event | None = None
    ) -> list[bytes]:
        """A pipeline's stages (BSON documents) over the readings: its documents, in BSON. Raises as `sql`."""
        return self._ask(self._visible(caller, organization_id), stages=tuple(pipeline), stop=stop).rows

    def mql_of_sink(
        self,
        caller: Caller,
        organization_id: str,
        sink_of: str,
        pipeline: Sequence[bytes],
        stop: threading.Event | None = None,
    ) -> list[bytes]:
        """As `mql`, over what the data pipeline `sink_of` found: each document as it came out of the pipeline."""
        seen = _of_sink(self._visible(caller, organization_id), sink_of)
        return self._ask(seen, stages=(_NEW_ROOT, *pipeline), stop=stop).rows

    def pages(
        self,
        caller: Caller,
        organization_id: str,
        stop: threading.Event,
        *,
        text: str = "",
        pipeline: Sequence[bytes] | None = None,
        sink_of: str = "",
    ) -> Pages:
        """As `sql` (`text`; the first page has the columns), `mql` or `mql_of_sink`, page by page however much it is, in ten
        times the time."""
        seen = self._visible(caller, organization_id)
        slowly_s = _FOR_A_FILE * self.seconds
        if pipeline is None:
            return self._pages(seen, text=_not_empty(text), seconds=slowly_s, stop=stop)
        if sink_of:
            seen, pipeline = _of_sink(seen, sink_of), (_NEW_ROOT, *pipeline)
        return self._pages(seen, stages=tuple(pipeline), seconds=slowly_s, stop=stop)

    def mql_of_organization(self, organization_id: str, pipeline: Sequence[bytes], seconds: float) -> list[bytes]:
        """For the app's own work: over all readings of an organization."""
        with self._database.read() as db:
            everything = origins_of(db, organization_id)
        return self._ask(_sorted(everything), stages=tuple(pipeline), seconds=seconds).rows

    def _ask(
        self,
        seen: _Visible,
        *,
        text: str = "",
        stages: tuple[bytes, ...] = (),
        seconds: float = 0.0,
        stop: threading.Event | None = None,
    ) -> Found:
        found = Found([], [])
        size = 0
        with closing(self._pages(seen, text=text, stages=stages, seconds=seconds, stop=stop)) as pages:
            for page in pages:
                found.columns.extend(page.columns)
                found.rows.extend(page.rows)
                size += sum(map(len, page.rows))
                if size > MOST_ANSWER_BYTES:
                    raise TooLarge(
                        f"The answer has more than {MOST_ANSWER_BYTES >> 20} MB",
                        "Add a LIMIT, choose fewer columns, or download it as a file.",
                    )
        return found

    def _pages(
        self,
        seen: _Visible,
        *,
        text: str = "",
        stages: tuple[bytes, ...] = (),
        seconds: float = 0.0,
        stop: threading.Event | None = None,
    ) -> Pages:
        opened: list[int] = []
        has_begun = False

        def material(wanted: dict[str, Wanted]) -> Material:
            of_readings = wanted.pop(sql.READINGS, None)
            source = view.find(self._database, seen.readings if of_readings else [], of_readings or Wanted())
            opened[:] = [one.id for one in source.lake]
            copied = pictures.copied(self._database, seen.items, wanted)
            pack_ids = {one.pack_id for one in source.lake} | {one.pack_id for one in source.waiting}
            keys = {pack_id: self._packs.data_key(pack_id) for pack_id in pack_ids}
            return Material(source, copied, self._packs.objects.address, keys)

        question = Question(text, stages, seconds or self.seconds, self.memory_mb)
        try:
            for page in self._workers.pages(question, material, stop):
                has_begun = True
                yield page
            return
        except DamagedReadings:
            mending.mend(self._database, self._packs, opened)
            if has_begun:
                raise
        yield from self._workers.pages(question, material, stop)

    def _visible(self, caller: Caller, organization_id: str) -> _Visible:
        if organization_id not in caller.organization_ids():
            raise PermissionDenied(
                f"There is no organization {organization_id} whose data {caller.name or caller.id} may see",
                "Send the id of your organization.",
            )
        with self._database.read() as db:
            return _sorted(visible_origins(db, caller, [organization_id]))


@dataclass(frozen=True)
class _Visible:
    """Where readings, and where pictures and files come from that may be seen; and what pipelines found."""

    readings: list[Origin]
    items: list[Origin]
    sinks: list[Origin]


def _of_sink(seen: _Visible, pipeline_id: str) -> _Visible:
    return replace(seen, readings=[one for one in seen.sinks if one.component_name == sink_name(pipeline_id)])


def _sorted(origins: Sequence[Origin]) -> _Visible:
    readings = [one for one in origins if one.kind == sniff.READING]
    sinks = [one for one in origins if one.kind == SINK]
    return _Visible(readings, [one for one in origins if one.kind not in (sniff.READING, SINK)], sinks)
