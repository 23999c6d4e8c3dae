"""`gleaner dataset`: lists an app's datasets, and takes them out and in, in the formats of other programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gleaner.cli.app_access import FAILED, NOT_USABLE, AppAccess, dataset_named, explained, stop
from gleaner.cli.option_groups import spread

app = typer.Typer(help="The datasets of an app: list, export, import.", no_args_is_help=True)

_FORMATS = "viam, huggingface, parquet, yolo, coco, voc or folders"
_MOST_SAID = 50

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
@spread
def list_datasets(as_json: AsJson = False, *, access: AppAccess) -> None:
    """The datasets of the API key's organization."""
    with explained():
        reached = access.connect()
        found = reached.client.get(f"/datasets?organization_id={reached.organization_id}")
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for one in found:
        newest = f"v{one['versions'][0]['version']}" if one["versions"] else "no version"
        typer.echo(f"{one['name']}  {one['item_count']:,} pictures  {newest}  {one['id']}")
    if not found:
        typer.echo("there are no datasets yet")


@app.command("export")
@spread
def export_dataset(
    name: Annotated[str, typer.Argument(help="Name or id of the dataset.")],
    out: Annotated[Path, typer.Option(help="A folder to fill, or a file that ends in .zip or .tar.")],
    format: Annotated[str, typer.Option(help=f"{_FORMATS}.")],
    version: Annotated[int, typer.Option(min=0, help="Of this version; 0: as the dataset is now.")] = 0,
    *,
    access: AppAccess,
) -> None:
    """Pictures and annotations of one version. After an interruption the same command goes on where it stopped."""
    from gleaner.cli.dataset_transfer import Wanted, to_archive, to_folder

    _check_format(format)
    with explained(), _progress("files") as seen:
        reached = access.connect()
        dataset = dataset_named(reached, name)
        is_archive = out.suffix.lower() in (".zip", ".tar")
        archive = out.suffix.lower().removeprefix(".") if is_archive else "tar"
        wanted = Wanted(dataset["id"], format, archive, version)
        if is_archive:
            to_archive(reached, wanted, out, seen)
            said = f"{out.stat().st_size:,} bytes"
        else:
            said = f"{to_folder(reached, wanted, out, seen):,} files"
    typer.echo(f"{dataset['name']} → {out}: {said}")
    if (out / "skipped.txt").is_file():
        typer.secho(f"some pictures do not fit into this format: see {out / 'skipped.txt'}", fg="yellow", err=True)


@app.command("import")
@spread
def import_dataset(
    path: Annotated[Path, typer.Argument(exists=True, help="A folder, or a .zip.")],
    name: Annotated[str, typer.Option("--dataset", help="Name or id of the dataset; made if there is none.")],
    format: Annotated[str, typer.Option(help=f"{_FORMATS}; default: found out.")] = "",
    *,
    access: AppAccess,
    as_json: AsJson = False,
) -> None:
    """Pictures with tags, boxes and splits. What cannot be read is named and left out; sent again, nothing is there twice."""
    from gleaner.cli.dataset_transfer import import_state, send
    from gleaner.formats.registry import Format, detect
    from gleaner.formats.sources import FolderSource, ZipSource

    if format:
        _check_format(format)
    said: list[str] = []
    with explained(), ExitStack() as opened, _progress("pictures") as seen:
        source: FolderSource | ZipSource
        if path.is_dir():
            source = FolderSource(path)
        else:
            source = ZipSource(opened.enter_context(path.open("rb")))
            opened.callback(source.close)
        chosen = Format(format) if format else detect(source)
        reached = access.connect()
        dataset = dataset_named(reached, name, make=True)
        state = import_state(reached, dataset["id"], path)
        done = send(reached, dataset["id"], source, chosen, state, seen, said.append)
    if as_json:
        typer.echo(json.dumps({"format": chosen, **vars(done), "problems": said}, ensure_ascii=False))
    else:
        typer.echo(
            f"{path} ({chosen}) → {dataset['name']}: {done.added:,} new pictures, {done.known:,} were there already"
        )
        for line in said[:_MOST_SAID]:
            typer.secho(line, fg="yellow", err=True)
        if done.problem_count > len(said[:_MOST_SAID]):
            typer.secho(f"… {done.problem_count:,} things were left out in all (see --json)", fg="yellow", err=True)
    if done.problem_count and not done.added and not done.known:
        raise typer.Exit(FAILED)


def _check_format(format: str) -> None:
    from gleaner.formats.registry import Format

    if format not in list(Format):
        stop(f"there is no format {format!r}: choose {_FORMATS}", NOT_USABLE)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A count on the terminal; nothing when the output is piped."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    with console.status("…") as status:
        yield lambda done, total: status.update(f"{done:,} {what}")
