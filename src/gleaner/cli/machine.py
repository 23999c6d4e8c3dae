"""`gleaner machine`: runs a machine from its configuration file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gleaner.cli.machine_install import install, uninstall
from gleaner.cli.machine_status import status

app = typer.Typer(
    help="Run a machine: its cameras, sensors and models, the robot API, capture and sync.",
    invoke_without_command=True,
    no_args_is_help=False,
)

CANNOT_START = 2


app.command("status")(status)
app.command("install")(install)
app.command("uninstall")(uninstall)


@app.callback()
def run(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(envvar="GLEANER_MACHINE_CONFIG", help="Configuration (JSON), or the machine.json of the app."),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(
            envvar="GLEANER_MACHINE_HOME",
            help="Folder for captured data and models; default: ~/.gleaner/machines/<part id>.",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            envvar="GLEANER_METRICS_PORT",
            min=0,
            max=65535,
            help="Serve Prometheus metrics at http://127.0.0.1:PORT/metrics; off without it.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log details.")] = False,
) -> None:
    """Run the machine until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    if config is None:
        raise typer.BadParameter("say which machine to run: --config machine.json", param_hint="--config")
    from gleaner.machine.process import CannotStart, run_process
    from gleaner.machine.process_logging import configure_logging

    configure_logging(debug)
    try:
        restart = run_process(config, home, typer.echo, metrics_port)
    except CannotStart as problem:
        typer.secho(str(problem), fg="red", err=True)
        raise typer.Exit(CANNOT_START) from None
    if restart:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "gleaner.cli.main", *sys.argv[1:]])
