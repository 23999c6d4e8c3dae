"""`gleaner app`: runs the server, and the few commands an owner needs beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gleaner.cli.extras import need_app_extra

if TYPE_CHECKING:
    from gleaner.app.context import AppContext
    from gleaner.app.settings import Settings

app = typer.Typer(
    help="Run the app: web pages, API, data, training.", invoke_without_command=True, no_args_is_help=False
)

DEFAULT_DATA_DIR = Path("~/.gleaner/app")
DataDir = Annotated[Path, typer.Option(envvar="GLEANER_DATA_DIR", help="Where everything the app keeps lives.")]
KeyCommand = Annotated[
    str, typer.Option(envvar="GLEANER_KEY_COMMAND", help="Command that prints the key-encryption key.")
]
DatabaseUrl = Annotated[
    str, typer.Option(envvar="GLEANER_DATABASE_URL", help="SQLAlchemy URL; default: encrypted SQLite.")
]


@app.callback()
def run(
    ctx: typer.Context,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    host: Annotated[
        str, typer.Option(envvar="GLEANER_HOST", help="Address to listen on; TLS unless loopback.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="GLEANER_PORT", min=0, max=65535, help="Web pages, REST, link and sync.")
    ] = 8090,
    grpc_port: Annotated[
        int, typer.Option(envvar="GLEANER_GRPC_PORT", min=0, max=65535, help="Viam's app API.")
    ] = 8091,
    public_host: Annotated[
        str, typer.Option(envvar="GLEANER_PUBLIC_HOST", help="Name machines and browsers use.")
    ] = "",
    tls_cert_file: Annotated[
        Path | None, typer.Option(envvar="GLEANER_TLS_CERT_FILE", help="Own certificate (PEM).")
    ] = None,
    tls_key_file: Annotated[
        Path | None, typer.Option(envvar="GLEANER_TLS_KEY_FILE", help="Its private key (PEM).")
    ] = None,
    owner_email: Annotated[
        str, typer.Option(envvar="GLEANER_OWNER_EMAIL", help="The first owner.")
    ] = "owner@localhost",
    key_command: KeyCommand = "",
    database_url: DatabaseUrl = "",
) -> None:
    """Run the app until Ctrl-C. The first start makes an owner and prints a link to log in."""
    need_app_extra("gleaner app")
    from gleaner.app.settings import Settings

    settings = Settings(
        data_dir=data_dir.expanduser(),
        host=host,
        port=port,
        grpc_port=grpc_port,
        public_host=public_host,
        tls_cert_file=tls_cert_file,
        tls_key_file=tls_key_file,
        owner_email=owner_email,
        key_command=key_command,
        database_url=database_url,
    )
    ctx.obj = settings
    if ctx.invoked_subcommand is None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        _run(settings)


@app.command("login-link")
def login_link(
    ctx: typer.Context, email: Annotated[str, typer.Option(help="Whose; default: the first owner.")] = ""
) -> None:
    """Print a one-time link to log in, for an app that runs or will run."""
    from gleaner.app.assembly import build_context
    from gleaner.app.server import prepare_data_dir, reachable_host

    settings: Settings = ctx.obj
    with _explained():
        prepare_data_dir(settings.data_dir)
        context = build_context(settings)
        context.database.create_tables()
        context.auth.bootstrap(settings.owner_email)
        token = context.auth.create_login_link(email)
        context.database.close()
    scheme = "http" if settings.is_loopback and not settings.tls_cert_file else "https"
    typer.echo(f"{scheme}://{reachable_host(settings)}:{settings.port}/login?token={token}")


@app.command()
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
    with _explained():
        prepare_data_dir(settings.data_dir)
    with _explained(), only_app_of(settings.data_dir):
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


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns what keeps the app from starting into one line."""
    from gleaner.app.database import DatabaseProblem, NewerSchema
    from gleaner.app.keys import KeyProblem
    from gleaner.app.server import CannotStart
    from gleaner.app.tls import TlsProblem

    try:
        yield
    except (CannotStart, KeyProblem, NewerSchema, DatabaseProblem, TlsProblem) as err:
        typer.secho(str(err), fg="red", err=True)
        raise typer.Exit(1) from None


def _run(settings: Settings) -> None:
    os.umask(0o077)
    with _explained():
        _main(settings)


def _main(settings: Settings) -> None:
    import uvloop

    from gleaner.app.server import serve

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await serve(settings, stop, _announce)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _announce(context: AppContext) -> None:
    addresses = context.addresses
    typer.echo(f"Gleaner is running at {addresses.web} (Viam API: {addresses.grpc}). Ctrl-C stops it.")
    typer.echo(f"Log in once with {addresses.web}/login?token={context.auth.create_login_link()}")
