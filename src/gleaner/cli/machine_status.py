"""`gleaner machine status`: what is captured, sent, waiting and lost, and what does not work, in plain words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gleaner.cli.words import output

if TYPE_CHECKING:
    from gleaner.machine.offline.status import MachineState

UNHEALTHY, NOTHING_FOUND, NOT_RUNNING = 1, 2, 3


def status(
    config: Annotated[
        Path | None, typer.Option(envvar="GLEANER_MACHINE_CONFIG", help="The machine's configuration file.")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(envvar="GLEANER_MACHINE_HOME", help="Its folder; default: the only one in ~/.gleaner/machines."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """How a machine is doing. Exit code: 0 healthy, 1 something is wrong, 2 no such machine, 3 it does not run."""
    from gleaner.machine.offline.status import NoMachine, find_home, machine_state

    try:
        state = machine_state(find_home(config, home), config)
    except NoMachine as problem:
        typer.secho(str(problem), fg="red", err=True)
        raise typer.Exit(NOTHING_FOUND) from None
    if as_json:
        typer.echo(json.dumps(state.as_json(), indent=1))
    else:
        _print(state)
    if state.problems:
        raise typer.Exit(UNHEALTHY if state.is_running else NOT_RUNNING)


def _print(state: MachineState) -> None:
    from rich.markup import escape
    from rich.table import Table

    from gleaner.machine.offline.status import REASONS

    console = output()
    console.print(
        f"[bold]{escape(str(state.home))}[/]  {'running' if state.is_running else 'not running'}", highlight=False
    )
    ledger = state.ledger
    if ledger is None:
        console.print("no captures")
    else:
        table = Table(box=None)
        for name in ("Component", "Method", "Hz", "Captured", "Synced", "Waiting", "Dropped"):
            table.add_column(name, overflow="fold", no_wrap=name in ("Captured", "Synced", "Waiting"))
        for row in ledger["collectors"]:
            dropped = [f"{int(n):,} {REASONS.get(reason, reason)}" for reason, n in row["dropped"].items() if n]
            counts = (f"{int(row[key]):,}" for key in ("captured", "synced", "waiting"))
            hertz = row.get("frequency_hz")
            table.add_row(
                row["component"], row["method"], f"{hertz:g}" if hertz else "–", *counts, ", ".join(dropped) or "0"
            )
        console.print(table)
        for line in _lines(ledger):
            console.print(line, highlight=False, markup=False)
    for note in (ledger or {}).get("notes", []):
        console.print(f"[yellow]![/] {escape(note)}", highlight=False)
    for problem in state.problems:
        console.print(f"[red]✗[/] {escape(problem)}", highlight=False)


def _lines(ledger: dict[str, Any]) -> list[str]:
    lines = [f"waiting    {int(ledger['backlog_files']):,} files, {_size(ledger['backlog_bytes'])}"]
    if ledger.get("oldest_unsent"):
        lines.append(f"oldest     {ledger['oldest_unsent']}")
    rate, eta = ledger.get("rate"), ledger.get("eta_s")
    if rate and rate["files_per_s"]:
        done = f", done in {eta:,.0f} s" if eta is not None else ""
        lines.append(f"sync       {rate['files_per_s']:,.1f} files/s, {_size(rate['bytes_per_s'])}/s{done}")
    disk = ledger.get("disk")
    if disk and disk.get("size_bytes"):
        lines.append(f"disk       {_size(disk['free_bytes'])} of {_size(disk['size_bytes'])} free ({disk['state']})")
    if ledger.get("sync_error"):
        lines.append(f"sync       {ledger['sync_error']}")
    return lines


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
