"""`gleaner data`: looks into a capture directory and takes data out of it, without an app and without a running machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gleaner.cli.words import counted, output
from gleaner.machine.offline.export import Format

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from gleaner.machine.capture.at_rest import Keyring
    from gleaner.machine.offline.reading import Opened
    from gleaner.machine.offline.selection import Selection

app = typer.Typer(
    help="Look into a capture directory and export from it (ls, show, export); send to an app, tag, delete, download.",
    no_args_is_help=True,
)

FAILED = 1
NOT_USABLE = 2
KEY_ENV = "GLEANER_CAPTURE_KEY"
_NARROW = 50

Directory = Annotated[Path, typer.Argument(help="Capture directory, also of Viam's server; or one capture file.")]
Component = Annotated[str, typer.Option(help="Only this component.")]
Method = Annotated[str, typer.Option(help="Only this method, like GetImages.")]
Since = Annotated[str, typer.Option(help="From this time on: 2026-05-01T12:00 (local time), or ago: 90s, 15m, 2h, 7d.")]
Until = Annotated[str, typer.Option(help="Before this time.")]
Tag = Annotated[list[str], typer.Option(help="Only what has this tag; may be repeated: any of them is enough.")]
KeyFile = Annotated[str, typer.Option(help=f"Key of encrypted captures; else ${KEY_ENV}.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("ls")
def list_captures(
    directory: Directory,
    component: Component = "",
    method: Method = "",
    since: Since = "",
    until: Until = "",
    tag: Tag = [],  # noqa: B006
    key_file: KeyFile = "",
    as_json: AsJson = False,
) -> None:
    """What each component and method has there. Changes nothing."""
    from gleaner.machine.offline.summary import summarize

    with _usable():
        root, selection, keyring = _asked(directory, component, method, since, until, tag, key_file)
        with _progress("reading", root, as_json) as seen:
            found = summarize(root, selection, keyring, seen)
    if as_json:
        typer.echo(json.dumps([summary.as_json() for summary in found], indent=1))
        return
    from rich.table import Table

    table = Table(box=None)
    for name in ("Component", "Method", "Files", "Records", "Bytes", "First", "Last", "Damaged", "Tags"):
        # In a narrow terminal words go on in the next line: nothing is cut off, numbers least of all.
        table.add_column(name, overflow="fold", no_wrap=name in ("Files", "Records", "Bytes"))
    for each in found:
        table.add_row(
            each.component or "?",
            each.method or "?",
            f"{each.files:,}" + (f" ({each.unfinished} being written)" if each.unfinished else ""),
            f"{each.records:,}",
            f"{each.size_bytes:,}",
            *((text or "–")[:19].replace("T", " ") for text in (each.first, each.last)),
            str(each.damaged or "–"),
            ", ".join(each.tags) or "–",
        )
    output().print(table if found else "no captures there that fit")


@app.command("show")
def show(
    path: Directory,
    component: Component = "",
    method: Method = "",
    since: Since = "",
    until: Until = "",
    tag: Tag = [],  # noqa: B006
    key_file: KeyFile = "",
    limit: Annotated[int, typer.Option(min=0, help="Records at most; 0 is all.")] = 20,
    picture: Annotated[
        Path | None, typer.Option(help="Write the first picture (or other payload) to this file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --picture.")] = False,
    as_json: AsJson = False,
) -> None:
    """The records of one file or of a selection: readings, sizes of pictures, annotations, damage. Times are UTC."""
    from gleaner.machine.offline.selection import selected

    shown, is_written = 0, False
    with _usable():
        root, selection, keyring = _asked(path, component, method, since, until, tag, key_file)
        for file in selected(root, selection, keyring):
            wanted = [record for record in file.records() if selection.wants_record(record)]
            if file.record_count and not wanted:
                continue
            _say_file(file, as_json)
            for record in wanted:
                if picture is not None and not is_written and isinstance(record.data, bytes):
                    _write(picture, record.data, force)
                    is_written = True
                _say_record(file, record, as_json)
                shown += 1
                if limit and shown >= limit:
                    break
            if limit and shown >= limit:
                break
    if picture is not None and not is_written:
        _stop("there is no picture among these captures: nothing was written", FAILED)
    if limit and shown >= limit and not as_json:
        typer.secho(f"… stopped after {limit} records: --limit 0 shows all", dim=True, err=True)


@app.command("export")
def export_captures(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="What to make: a folder (folder, parquet) or a file (mcap).")],
    format: Annotated[Format, typer.Option(help="folder: pictures and JSON lines; parquet; mcap: opens in Foxglove.")],
    component: Component = "",
    method: Method = "",
    since: Since = "",
    until: Until = "",
    tag: Tag = [],  # noqa: B006
    key_file: KeyFile = "",
    embed: Annotated[
        bool, typer.Option("--embed", help="Parquet: pictures in the rows instead of beside them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: AsJson = False,
) -> None:
    """Everything that fits, as a folder, Parquet or MCAP. Whole or not at all; damaged files are named and the others exported."""
    from gleaner.machine.offline.export import MissingLibrary, export
    from gleaner.machine.offline.output import OutputProblem

    with _usable():
        root, selection, keyring = _asked(directory, component, method, since, until, tag, key_file)
        if out.absolute().is_relative_to(root.absolute()):
            _stop(
                f"{out} lies inside the capture directory, which export never changes: choose another --out", NOT_USABLE
            )
        try:
            with _progress("exporting", root, as_json) as seen:
                report = export(root, out, format, selection, keyring, force=force, embed=embed, seen=seen)
        except (OutputProblem, MissingLibrary) as problem:
            _stop(str(problem), NOT_USABLE)
        except KeyboardInterrupt:
            _stop(f"interrupted: nothing was written to {out}", 130)
    if as_json:
        from dataclasses import asdict

        typer.echo(json.dumps({"out": str(out), **asdict(report)}, indent=1))
        return
    typer.echo(f"{report.records:,} records of {report.files:,} files, {report.pictures:,} of them binary → {out}")
    for each in report.damaged[:20]:
        typer.secho(f"damaged: {each['file']}: {each['why']}", fg="yellow", err=True)
    if len(report.damaged) > 20:
        typer.secho(f"… {len(report.damaged)} damaged files in all (see --json)", fg="yellow", err=True)


def _asked(
    path: Path, component: str, method: str, since: str, until: str, tag: list[str], key_file: str
) -> tuple[Path, Selection, Keyring]:
    from gleaner.machine.capture.keys import KeySource, load_keyring
    from gleaner.machine.offline.reading import capture_directory
    from gleaner.machine.offline.selection import Selection, parse_time

    root = capture_directory(path.expanduser())
    now_ns = time.time_ns()
    source = KeySource(key_file=key_file) if key_file else KeySource(key_env=KEY_ENV if os.environ.get(KEY_ENV) else "")
    keyring = load_keyring(source, os.environ)
    times = [parse_time(text, now_ns) if text else None for text in (since, until)]
    return root, Selection(component, method, times[0], times[1], tuple(tag)), keyring


@contextmanager
def _usable() -> Iterator[None]:
    """Bad input is one line."""
    from gleaner.machine.capture.errors import BadCaptureKey
    from gleaner.machine.offline.output import OutputProblem
    from gleaner.machine.offline.reading import NotACaptureDirectory

    try:
        yield
    except (NotACaptureDirectory, BadCaptureKey, OutputProblem, ValueError) as problem:
        _stop(str(problem), NOT_USABLE)


def _stop(message: str, code: int) -> None:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(code)


def progress_columns(width: int) -> tuple[ProgressColumn, ...]:
    """Of a bar in a terminal of so many columns: a narrow one has no room for the numbers of a million files."""
    from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    said = TextColumn("{task.description}")
    if width < _NARROW:
        return said, TaskProgressColumn()
    return said, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()


@contextmanager
def _progress(verb: str, root: Path, as_json: bool) -> Iterator[Callable[[], None]]:
    """A bar on the terminal once a second has passed; nothing when the output is piped."""
    from rich.console import Console
    from rich.progress import Progress

    from gleaner.machine.offline.reading import capture_paths

    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda: None
        return
    progress = Progress(*progress_columns(console.width), console=console, transient=True)
    started, total = time.monotonic(), sum(1 for _ in capture_paths(root))
    task = progress.add_task(verb, total=total)

    def seen() -> None:
        if not progress.live.is_started and time.monotonic() - started > 1.0:
            progress.start()
        progress.advance(task)

    try:
        yield seen
    finally:
        progress.stop()


def _write(path: Path, payload: bytes, force: bool) -> None:
    from gleaner.machine.offline.output import atomic_output

    with atomic_output(path, force) as temporary:
        temporary.write_bytes(payload)


def _say_file(file: Opened, as_json: bool) -> None:
    from gleaner.machine.offline.output import to_json

    if as_json:
        said: dict[str, Any] = {"file": str(file.path), "size_bytes": file.size_bytes, "complete": file.is_complete}
        said |= {"api": file.api, "component": file.component, "method": file.method, "tags": list(file.tags)}
        said |= {"records": file.record_count, "encrypted": file.is_encrypted, "checksums": file.is_sealed}
        typer.echo(to_json({**said, "additional_params": dict(file.parameters), "damage": file.damage}))
        return
    typer.secho(str(file.path), bold=True)
    state = "complete" if file.is_complete else "being written"
    kind = "encrypted, " if file.is_encrypted else ""
    seals = "checksums" if file.is_sealed else "no checksums (as Viam's server writes)"
    typer.echo(
        f"  {file.component} {file.method} ({file.api}), {counted(file.record_count, 'record')}, {counted(file.size_bytes, 'byte')}, {kind}{state}, {seals}"
    )
    if file.tags:
        typer.echo(f"  tags: {', '.join(file.tags)}")
    if file.parameters:
        typer.echo(f"  additional_params: {to_json(dict(file.parameters))}")
    if file.damage:
        typer.secho(f"  {file.damage}", fg="yellow")


def _say_record(file: Opened, record: Any, as_json: bool) -> None:
    from gleaner.machine.offline.output import to_json
    from gleaner.machine.offline.reading import iso_ns
    from gleaner.machine.offline.to_folder import described
    from gleaner.wire.picture import PictureProblem, picture_size

    said = described(file, record)
    if isinstance(record.data, bytes):
        said["size_bytes"] = len(record.data)
        if file.mime_type.startswith("image/"):
            try:
                said["height"], said["width"] = picture_size(record.data)
            except PictureProblem as problem:
                said["problem"] = str(problem)
    else:
        said["data"] = record.data
    if as_json:
        typer.echo(to_json(said))
        return
    size = f"{said['width']}×{said['height']}, " if "width" in said else ""
    if isinstance(record.data, bytes):
        typer.echo(f"  {iso_ns(record.requested_ns)}  {file.mime_type}, {size}{len(record.data):,} bytes")
    else:
        typer.echo(f"  {iso_ns(record.requested_ns)}  {to_json(record.data)}")
    for name in ("bboxes", "classifications"):
        for each in said.get("annotations", {}).get(name, []):
            typer.echo(f"    {to_json(each)}")
    if "problem" in said:
        typer.secho(f"    {said['problem']}", fg="yellow")
