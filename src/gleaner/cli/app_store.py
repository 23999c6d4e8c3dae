"""`gleaner app fsck | rebuild | backup | restore | rotate-key`: looking after the data of an app."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gleaner.cli.app import explained

if TYPE_CHECKING:
    from gleaner.app.context import AppContext
    from gleaner.app.settings import Settings
    from gleaner.app.store.fsck import Report

BackupFolder = Annotated[Path, typer.Argument(help="Folder of the backup: another disk, a mounted share.")]


def fsck(
    ctx: typer.Context,
    deep: Annotated[bool, typer.Option("--deep", help="Open every byte, not only every record's header.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check that everything the metadata promises is there and opens; the app may run.

    Exit code: 0 all is well, 1 something is damaged.
    """
    from gleaner.app.services.packages_check import check_packages
    from gleaner.app.store.fsck import check

    with explained(), _opened(ctx.obj) as context:
        with _bar("Checking packs", quiet=as_json) as progress:
            report = check(context.packs, context.database, deep=deep, progress=lambda done: progress(done, 1.0))
        report.findings += check_packages(context.packages, deep=deep)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"is_healthy": report.is_healthy}))
    else:
        _print_report(report, deep=deep)
    raise typer.Exit(0 if report.is_healthy else 1)


def rebuild(ctx: typer.Context) -> None:
    """Make a lost or damaged index again from the packs; the app must be stopped.

    Brings back pictures, readings and the tags they arrived with, and the places they came from. What people added
    later (tags, boxes, datasets, models), machine configurations, keys and deletions live in the metadata only: restore a
    backup of metadata.db if there is one.
    """
    from rich.progress import Progress

    from gleaner.app.assembly import build_context
    from gleaner.app.server import only_app_of, prepare_data_dir
    from gleaner.app.store.recovered_fleet import give_to_first_owner, restore_places
    from gleaner.app.store.recovery import rebuild as rebuild_index

    settings: Settings = ctx.obj
    with explained():
        prepare_data_dir(settings.data_dir)
    with explained(), only_app_of(settings.data_dir):
        context = build_context(settings)
        context.database.create_tables()
        with Progress() as bar:
            task = bar.add_task("Reading packs", total=1.0)
            found = rebuild_index(context.packs, context.database, lambda done: bar.update(task, completed=done))
            bar.update(task, completed=1.0)
        is_new = context.auth.bootstrap(settings.owner_email)
        made_for_start = context.auth.first_owner().organization_ids() if is_new else frozenset[str]()
        with context.database.write() as db:
            give_to_first_owner(db, restore_places(db, time.time_ns()), made_for_start)
        context.database.close()
    typer.echo(f"{found.records} records from {found.packs} packs are in the index again.")


def backup(
    ctx: typer.Context,
    folder: BackupFolder,
    keep: Annotated[int, typer.Option(min=0, help="Keep only so many snapshots; 0: all.")] = 0,
    verify: Annotated[bool, typer.Option("--verify", help="Read the whole snapshot back afterwards.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="Only list the snapshots there are.")] = False,
) -> None:
    """Back up everything but the key into FOLDER; the app may run. Copies only what the backup does not have yet.

    The backup is encrypted as the app's own data is. Keep the key-encryption key somewhere else: without it nothing can
    be read.
    """
    from gleaner.app.store import backup as backups

    if list_only:
        for name in backups.snapshots(folder):
            typer.echo(
                f"{name}  {backups.Manifest.read(folder / 'snapshots' / name / 'manifest.json').size / 1e6:,.1f} MB"
            )
        return
    settings: Settings = ctx.obj
    with explained(), _explained_os(folder), _opened(settings) as context:
        stores = (context.packs.objects, context.keys, context.packages.objects)
        source = backups.Source(settings.data_dir, context.database, *stores)
        with _bar("Copying") as progress:
            made = backups.back_up(source, folder, dt.datetime.now(dt.UTC), keep, progress)
        typer.echo(f"Snapshot {made.name}: {made.size / 1e6:,.1f} MB, {source.copied / 1e6:,.1f} MB of it new.")
        if verify:
            with _bar("Reading back") as progress:
                bad = backups.verify(folder, made, progress)
            if bad:
                typer.secho(f"{len(bad)} files were not read back as written: {', '.join(bad[:5])}", fg="red", err=True)
                raise typer.Exit(1)
    if made.missing:
        typer.secho(
            f"{len(made.missing)} packs are missing in the app's own data: `gleaner app fsck` says what is lost.",
            fg="red",
            err=True,
        )
        raise typer.Exit(1)
    key = settings.data_dir / "keys" / "kek"
    if key.exists():
        typer.echo(f"The key is not in it: keep a copy of {key} somewhere else. Without it nothing can be read.")


def restore(
    ctx: typer.Context,
    folder: BackupFolder,
    at: Annotated[
        str, typer.Option(help="Name of a snapshot, or how it begins (2026-11-22); default: the newest.")
    ] = "",
    key_file: Annotated[
        Path | None, typer.Option(help="The key-encryption key (the app's keys/kek); put into the new data folder.")
    ] = None,
) -> None:
    """Put a snapshot into an empty --data-dir and check it."""
    from gleaner.app.keys import kek_id, parse_kek, run_key_command, write_private
    from gleaner.app.store import backup as backups
    from gleaner.app.store.fsck import check

    settings: Settings = ctx.obj
    with explained(), _explained_os(folder):
        manifest = backups.choose(folder, at)
        kek: bytes | None = None
        if key_file is not None:
            kek = parse_kek(key_file.read_text(), str(key_file))
        elif text := os.environ.get("GLEANER_KEY", ""):
            kek = parse_kek(text, "GLEANER_KEY")
        elif settings.key_command:
            kek = run_key_command(settings.key_command)
        if kek is not None and kek_id(kek) != manifest.kek_id:
            raise backups.BackupProblem(
                f"This is not the key of snapshot {manifest.name}. Give the key the app had at that time (--key-file)."
            )
        with _bar("Copying and checking") as progress:
            backups.restore(folder, manifest, settings.data_dir, progress)
        typer.echo(f"Snapshot {manifest.name} is in {settings.data_dir}.")
        if kek is None:
            typer.echo(
                f"Put the key into {settings.data_dir / 'keys' / 'kek'} (mode 0600), or set GLEANER_KEY, then start the app."
            )
            return
        if key_file is not None:
            write_private(settings.data_dir / "keys" / "kek", kek.hex().encode() + b"\n")
        with _opened(settings) as context:
            report = check(context.packs, context.database, deep=False)
    _print_report(report, deep=False)
    raise typer.Exit(0 if report.is_healthy else 1)


def lake(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder for the Parquet files; a later run brings it up to date.")],
) -> None:
    """Write the readings as plain Parquet, for DuckDB, Spark, Ray Data or pandas; the app may run.

    The files are not encrypted. Readings of the last minutes come with a later run.
    """
    from gleaner.app.lake.published import publish

    with explained(), _explained_os(folder), _opened(ctx.obj) as context, _bar("Writing Parquet") as progress:
        done = publish(context.packs, context.database, folder, progress)
    typer.echo(f"{done.files} files, {done.rows:,} readings: {done.written} files are new, {done.removed} went.")


def rotate_key(
    ctx: typer.Context,
    new_key_command: Annotated[str, typer.Option(help="Command that prints the new key; or set GLEANER_NEW_KEY.")] = "",
) -> None:
    """Protect everything with a new key-encryption key; no data is rewritten. Restart the app afterwards.

    What was packed before keeps the data keys it has: a copy of the old key and of the old packs still opens those.
    """
    from gleaner.app.keys import KeyProblem, Keys, new_kek, parse_kek, run_key_command

    settings: Settings = ctx.obj
    with explained():
        keys = Keys.open(settings.data_dir, os.environ, settings.key_command)
        is_file = not os.environ.get("GLEANER_KEY") and not settings.key_command
        if text := os.environ.get("GLEANER_NEW_KEY", ""):
            kek = parse_kek(text, "GLEANER_NEW_KEY")
        elif new_key_command:
            kek = run_key_command(new_key_command)
        elif is_file:
            kek = new_kek()
        else:
            raise KeyProblem(
                "The key comes from the environment or a command, so the new one must, too: set GLEANER_NEW_KEY "
                "(`openssl rand -hex 32` makes one) or give --new-key-command."
            )
        rotated = keys.rotated(settings.data_dir, kek)
        if is_file:
            rotated.take_over(settings.data_dir)
    if is_file:
        typer.echo(
            f"{settings.data_dir / 'keys' / 'kek'} is new. Restart the app, and keep a new copy of the key with your backups."
        )
    else:
        typer.echo("The new key opens everything now. Put it where the old one comes from, then restart the app.")


@contextmanager
def _opened(settings: Settings) -> Iterator[AppContext]:
    """The parts of an app that may be running."""
    from gleaner.app.assembly import build_context
    from gleaner.app.server import CannotStart

    if not (settings.data_dir / "keys").is_dir():
        raise CannotStart(f"There is no app's data in {settings.data_dir}. Name its folder: gleaner app --data-dir … .")
    context = build_context(settings)
    try:
        context.database.create_tables()
        yield context
    finally:
        context.database.close()


@contextmanager
def _bar(what: str, *, quiet: bool = False) -> Iterator[Callable[[float, float], None]]:
    from rich.progress import Progress

    with Progress(disable=quiet, transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda done, total: bar.update(task, completed=done, total=max(total, 1e-9))


@contextmanager
def _explained_os(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        typer.secho(
            f"{err.filename or folder}: {err.strerror or err}. What is in {folder} is as good as before; "
            "mend it and run the command again, it goes on where it was.",
            fg="red",
            err=True,
        )
        raise typer.Exit(1) from None


def _print_report(report: Report, *, deep: bool) -> None:
    how = f"{report.bytes_opened / 1e6:,.1f} MB opened" if deep else "every header opened; --deep opens every byte"
    typer.echo(f"{report.records} records in {report.packs} packs ({how}).")
    for one in report.findings:
        color = "yellow" if one.is_harmless else "red"
        number = f" ({one.records} records)" if one.records > 1 else ""
        typer.secho(f"{one.where}: {one.problem}{number}", fg=color)
        for item in one.ids[:20]:
            typer.echo(f"    {item}")
        if len(one.ids) > 20:
            typer.echo(f"    … and {len(one.ids) - 20} more (--json lists all)")
    if report.is_healthy:
        typer.echo("All is well.")


def add_to(app: typer.Typer) -> None:
    for command in (fsck, rebuild, backup, restore, lake):
        app.command()(command)
    app.command("rotate-key")(rotate_key)
