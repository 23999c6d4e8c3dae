"""The gallery's filter as options of a command."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from gleaner.cli.app_access import NOT_USABLE, App, dataset_named, stop


@dataclass(frozen=True)
class GalleryFilter:
    """For `option_groups.spread`."""

    tags: Annotated[list[str], typer.Option("--tag", help="With this tag; repeated: any of them.")] = field(
        default_factory=list
    )
    labels: Annotated[list[str], typer.Option("--label", help="With a box of this label; repeated: any of them.")] = (
        field(default_factory=list)
    )
    datasets: Annotated[list[str], typer.Option("--dataset", help="In this dataset (name or id).")] = field(
        default_factory=list
    )
    machines: Annotated[list[str], typer.Option("--machine", help="Of this machine (its id).")] = field(
        default_factory=list
    )
    components: Annotated[list[str], typer.Option("--component", help="Of this component.")] = field(
        default_factory=list
    )
    tagged: Annotated[bool | None, typer.Option("--tagged/--untagged", help="With any tag, or with none.")] = None
    boxed: Annotated[bool | None, typer.Option("--boxed/--unboxed", help="With any box, or with none.")] = None
    since: Annotated[
        str, typer.Option(help="Captured from this time on: 2026-05-01T12:00 (local time), or 90s, 15m, 2h, 7d ago.")
    ] = ""
    until: Annotated[str, typer.Option(help="Captured before this time.")] = ""
    search: Annotated[str, typer.Option(help="Words in names and tags, as in the gallery.")] = ""
    near: Annotated[
        int | None, typer.Option(help="Near-duplicates of this picture (the number behind item= in its address).")
    ] = None
    once: Annotated[bool, typer.Option("--once", help="Of pictures that look the same only the newest.")] = False

    def body(self, app: App) -> dict[str, Any]:
        """As REST's `filter` has it; empty but for the organization if nothing was asked for. Ends the program for bad input."""
        said: dict[str, Any] = {
            "organization_id": app.organization_id,
            "tag": self.tags,
            "label": self.labels,
            "dataset_id": [str(dataset_named(app, one)["id"]) for one in self.datasets],
            "machine_id": self.machines,
            "component_name": self.components,
            "tagged": None if self.tagged is None else "tagged" if self.tagged else "untagged",
            "boxed": None if self.boxed is None else "boxed" if self.boxed else "unboxed",
            "start": _iso(self.since),
            "end": _iso(self.until),
            "search": self.search,
            "near": self.near,
            "once": self.once,
        }
        return {name: value for name, value in said.items() if value}

    def body_of_some(self, app: App, everything: bool) -> dict[str, Any]:
        """As `body`, for what changes things: all of them only when that was said."""
        if self == GalleryFilter() and not everything:
            stop("no filter was given: say which items, or --all for every one", NOT_USABLE)
        return self.body(app)

    def query(self, app: App) -> str:
        said = {name: str(value).lower() if value is True else value for name, value in self.body(app).items()}
        return urlencode(said, doseq=True)


def _iso(text: str) -> str:
    from gleaner.machine.offline.selection import parse_time

    if not text:
        return ""
    try:
        time_ns = parse_time(text, time.time_ns())
    except ValueError as problem:
        stop(str(problem), NOT_USABLE)
    return dt.datetime.fromtimestamp(time_ns / 1e9, dt.UTC).isoformat()
