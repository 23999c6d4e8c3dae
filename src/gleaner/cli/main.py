"""`gleaner`: one command for every part. Parts import their libraries only when they are used, so that help is instant."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gleaner import __version__

app = typer.Typer(
    name="gleaner",
    help="Capture what a machine sees, label it, train on it and watch the model recognise things live.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gleaner {__version__} (Python {sys.version.split()[0]})")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Capture what a machine sees, label it, train on it and watch the model recognise things live."""


def _mount() -> None:
    from gleaner.cli import machine as machine_commands

    app.add_typer(machine_commands.app, name="machine")
    if sys.argv[1:2] == ["machine"]:
        return  # it runs for months on small computers: the other commands would cost it 5 MB
    from gleaner.cli import app as app_commands
    from gleaner.cli import app_store, catalog, data, data_app, dataset, demo, train

    app_store.add_to(app_commands.app)
    app.add_typer(app_commands.app, name="app")
    data_app.add_to(data.app)
    app.add_typer(data.app, name="data")
    app.add_typer(dataset.app, name="dataset")
    app.command("demo")(demo.demo)
    app.command("train")(train.train)
    app.command("catalog")(catalog.catalog)


_mount()

if __name__ == "__main__":
    app()
