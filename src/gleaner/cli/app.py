"""`gleaner app`: runs the server, and the few commands an owner needs beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gleaner.app import DEFAULT_DATA_DIR
from gleaner.cli.extras import need_app_extra
from gleaner.wire.memory import collect_rarely, keep_memory

if TYPE_CHECKING:
    from gleaner.app.context import AppContext
    from gleaner.app.settings import Settings

app = typer.Typer(
    help="Run the app: web pages, API, data, training.", invoke_without_command=True, no_args_is_help=False
)

# Of freed memory, for the next pictures: a rush of sync holds about as much.
_KEPT_BYTES = 64 << 20
# Each may keep as much; by itself glibc makes eight for each core, and threads take turns anyway.
_ARENAS = 4
DataDir = Annotated[Path, typer.Option(envvar="GLEANER_DATA_DIR", help="Where everything the app keeps lives.")]
KeyCommand = Annotated[
    str, typer.Option(envvar="GLEANER_KEY_COMMAND", help="Command that prints the key-encryption key.")
]
DatabaseUrl = Annotated[
    str, typer.Option(envvar="GLEANER_DATABASE_URL", help="SQLAlchemy URL; default: encrypted SQLite.")
]
StoreUrl = Annotated[
    str, typer.Option(envvar="GLEANER_STORE", help="Where packs lie: s3://bucket/prefix; default: the data folder.")
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
    query_seconds: Annotated[
        float, typer.Option(envvar="GLEANER_QUERY_SECONDS", min=0.1, max=3600, help="How long a query may take.")
    ] = 60.0,
    query_memory_mb: Annotated[
        int, typer.Option(envvar="GLEANER_QUERY_MEMORY_MB", min=64, max=1 << 20, help="Memory of a query.")
    ] = 512,
    queries_at_once: Annotated[
        int, typer.Option(envvar="GLEANER_QUERIES_AT_ONCE", min=1, max=64, help="More of them wait.")
    ] = 2,
    store: StoreUrl = "",
    background: Annotated[
        bool, typer.Option(envvar="GLEANER_BACKGROUND", help="Tidy packs, compact readings and train here, too.")
    ] = True,
    training_memory_mb: Annotated[
        int,
        typer.Option(
            envvar="GLEANER_TRAINING_MEMORY_MB",
            min=0,
            max=1 << 24,
            help="Memory of a training; 0: 3/4 of the computer's.",
        ),
    ] = 0,
    ray_address: Annotated[
        str, typer.Option(envvar="GLEANER_RAY_ADDRESS", help="Train on this Ray cluster: ray://head:10001.")
    ] = "",
    ray_cpus: Annotated[
        int, typer.Option(envvar="GLEANER_RAY_CPUS", min=1, max=256, help="Processors a training asks of it.")
    ] = 2,
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
        query_seconds=query_seconds,
        query_memory_mb=query_memory_mb,
        queries_at_once=queries_at_once,
        store=store,
        background=background,
        training_memory_mb=training_memory_mb,
        ray_address=ray_address,
        ray_cpus=ray_cpus,
    )
    ctx.obj = settings
    if ctx.invoked_subcommand is None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        _run(settings)


@app.command("login-link")
def login_link(
    ctx: typer.Context,
    email: Annotated[str, typer.Option(help="Whose; default: the first owner.")] = "",
    data_dir: Annotated[Path | None, typer.Option(help="The app's, as `gleaner app --data-dir` has it.")] = None,
) -> None:
    """Print a one-time link to log in, for an app that runs or will run."""
    from gleaner.app.assembly import build_context
    from gleaner.app.server import prepare_data_dir, reachable_host, running_address

    settings: Settings = ctx.obj
    if data_dir is not None:
        settings = settings.model_copy(update={"data_dir": data_dir.expanduser()})
    with explained():
        prepare_data_dir(settings.data_dir)
        context = build_context(settings)
        context.database.create_tables()
        context.auth.bootstrap(settings.owner_email)
        token = context.auth.create_login_link(email)
        context.database.close()
    scheme = "http" if settings.is_loopback and not settings.tls_cert_file else "https"
    address = running_address(settings.data_dir) or f"{scheme}://{reachable_host(settings)}:{settings.port}"
    typer.echo(f"{address}/login?token={token}")


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns what keeps the app from starting into one line."""
    from gleaner.app.database import DatabaseProblem, NewerSchema
    from gleaner.app.keys import KeyProblem
    from gleaner.app.server import CannotStart
    from gleaner.app.store.backup import BackupProblem
    from gleaner.app.store.object_store import StoreProblem
    from gleaner.app.tls import TlsProblem

    try:
        yield
    except (CannotStart, KeyProblem, NewerSchema, DatabaseProblem, TlsProblem, BackupProblem, StoreProblem) as err:
        typer.secho(str(err), fg="red", err=True)
        raise typer.Exit(1) from None


def _run(settings: Settings) -> None:
    os.umask(0o077)
    with explained():
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

    keep_memory(_KEPT_BYTES, arenas=_ARENAS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _announce(context: AppContext) -> None:
    collect_rarely()
    addresses = context.addresses
    typer.echo(f"Gleaner is running at {addresses.web} (Viam API: {addresses.grpc}). Ctrl-C stops it.")
    typer.echo(f"Log in once with {addresses.web}/login?token={context.auth.create_login_link()}")
    packs = context.packs.objects.address
    typer.echo(
        f"Metadata: {context.database.description}. Packs: {packs}. Keys and models: {context.settings.data_dir}."
    )
