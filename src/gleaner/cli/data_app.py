"""`gleaner data upload | tag | delete | download`: the pictures of an app, chosen as in its gallery."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gleaner.cli.app_access import FAILED, NOT_USABLE, AppAccess, dataset_named, explained, stop, tried
from gleaner.cli.data_filter import GalleryFilter
from gleaner.cli.option_groups import spread

Everything = Annotated[bool, typer.Option("--all", help="Everything, where no filter is given.")]
_BATCH, _BATCH_BYTES = 32, 16 << 20
_MOST_SAID = 50


def add_to(app: typer.Typer) -> None:
    app.command("upload")(spread(upload))
    app.command("tag")(spread(tag))
    app.command("delete")(spread(delete))
    app.command("download")(spread(download))


def upload(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="Files, and folders with everything in them.")],
    tags: Annotated[list[str], typer.Option("--tag", help="Tag of all of them; may be repeated.")] = [],  # noqa: B006
    dataset: Annotated[str, typer.Option(help="Into this dataset too; made if there is none.")] = "",
    part: Annotated[str, typer.Option(help="As if captured by this part (its id).")] = "",
    *,
    access: AppAccess,
) -> None:
    """Send files to an app. Sent again, nothing is there twice."""
    added = known = 0
    failed: list[str] = []
    with explained():
        app = access.connect()
        fields = [("tags", one) for one in tags]
        fields.append(("part_id", part) if part else ("organization_id", app.organization_id))
        fields += [("dataset_id", dataset_named(app, dataset, make=True)["id"])] if dataset else []
        for batch in _file_batches(paths):
            body, media = _multipart(fields, batch)
            answer = tried(lambda body=body, media=media: app.client.post_bytes("/items/upload", body, media))  # type: ignore[misc]
            known += sum(one["duplicate"] for one in answer["items"])
            added += sum(not one["duplicate"] for one in answer["items"])
            failed += [f"{one['name']}: {one['message']}. {one['hint']}" for one in answer["failed"]]
    typer.echo(f"{added:,} new, {known:,} were there already")
    for line in failed[:_MOST_SAID]:
        typer.secho(line, fg="yellow", err=True)
    if failed:
        typer.secho(f"{len(failed):,} files were not stored", fg="yellow", err=True)
        raise typer.Exit(FAILED)


def tag(
    chosen: GalleryFilter,
    add: Annotated[list[str], typer.Option("--add", help="Put this tag on; may be repeated.")] = [],  # noqa: B006
    remove: Annotated[list[str], typer.Option("--remove", help="Take this tag off; may be repeated.")] = [],  # noqa: B006
    everything: Everything = False,
    *,
    access: AppAccess,
) -> None:
    """Put tags on everything that fits, or take them off."""
    if not add and not remove:
        stop("there is nothing to do: name tags with --add or --remove", NOT_USABLE)
    with explained():
        app = access.connect()
        body = {"filter": chosen.body_of_some(app, everything), "add": add, "remove": remove}
        changed = app.client.post("/items/tags", body)["changed"]
    typer.echo(f"{changed:,} items changed")


def delete(
    chosen: GalleryFilter,
    everything: Everything = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    undo: Annotated[str, typer.Option(help="Bring back what an earlier delete hid, by the handle it printed.")] = "",
    *,
    access: AppAccess,
) -> None:
    """Delete everything that fits. For 24 hours it can be brought back with --undo."""
    with explained():
        app = access.connect()
        if undo:
            changed = app.client.post("/items/undelete", {"undo": undo})["changed"]
            typer.echo(f"{changed:,} items are back")
            return
        body = {"filter": chosen.body_of_some(app, everything)}
        count = app.client.get(f"/items/facets?{chosen.query(app)}")["total"]
        if not count:
            typer.echo("nothing fits: nothing was deleted")
            return
        if not yes:
            typer.confirm(f"Delete {count:,} items of {app.address}?", abort=True)
        done = app.client.post("/items/delete", body)
    typer.echo(f"{done['deleted']:,} items deleted; to bring them back: gleaner data delete --undo {done['undo']}")


def download(
    chosen: GalleryFilter,
    out: Annotated[Path, typer.Option(help="The folder to fill.")],
    format: Annotated[str, typer.Option(help="viam, huggingface, parquet, yolo, coco, voc or folders.")] = "viam",
    *,
    access: AppAccess,
) -> None:
    """The pictures that fit, as they are now, with tags and boxes. Run again, what is there already is not fetched again."""
    from gleaner.cli.data_download import to_folder
    from gleaner.formats.registry import Format

    if format not in list(Format):
        stop(f"there is no format {format!r}: choose {', '.join(Format)}", NOT_USABLE)
    skipped: list[str] = []
    with explained():
        app = access.connect()
        fetched, there = to_folder(app, chosen.query(app), Format(format), out, skipped.append)
    typer.echo(f"{out}: {fetched:,} files written, {there:,} were there already")
    for line in skipped[:_MOST_SAID]:
        typer.secho(line, fg="yellow", err=True)


def _file_batches(paths: list[Path]) -> Iterator[list[tuple[str, bytes]]]:
    batch: list[tuple[str, bytes]] = []
    size = 0
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not file.is_file() or (file != path and any(p.startswith(".") for p in file.relative_to(path).parts)):
                continue
            content = file.read_bytes()
            batch.append((file.relative_to(path).as_posix() if file != path else file.name, content))
            size += len(content)
            if len(batch) >= _BATCH or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _multipart(fields: list[tuple[str, str]], files: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    """(body, content type)."""
    boundary = uuid.uuid4().hex
    parts: list[bytes] = []
    for name, value in fields:
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for name, content in files:
        # As browsers write it: these three and nothing else is escaped.
        quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{quoted}"\r\n'
        parts += [head.encode("utf-8", "replace"), b"Content-Type: application/octet-stream\r\n\r\n", content, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"
