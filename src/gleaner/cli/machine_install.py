"""`gleaner machine install` and `uninstall`: the machine as a systemd service."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

FAILED = 1
OwnSystemd = Annotated[bool, typer.Option("--user", help="In your own systemd, without root.")]


def install(
    config: Annotated[
        Path, typer.Option(envvar="GLEANER_MACHINE_CONFIG", help="Configuration, or the machine.json of the app.")
    ],
    home: Annotated[
        Path | None, typer.Option(help="Its folder; default: that of `gleaner machine` for this user.")
    ] = None,
    user: OwnSystemd = False,
    run_as: Annotated[str, typer.Option(help="User that the service runs as; default: who called sudo.")] = "",
    memory_max: Annotated[
        str, typer.Option(help="The kernel ends what uses more: 2G, 512M or a share like 75%.")
    ] = "75%",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the unit.")] = False,
) -> None:
    """Run this machine from boot on, restarted whenever it ends (systemd)."""
    from gleaner.machine.config_file import read_config_file
    from gleaner.machine.offline.unit_file import UnitOptions, unit_text
    from gleaner.machine.process import default_home
    from gleaner.wire.machine_config import ConfigProblem

    who = "" if user else run_as or os.environ.get("SUDO_USER") or getpass.getuser()
    try:
        parsed = read_config_file(config)
        found = (home or default_home(parsed, config)).expanduser().absolute()
        if home is None and who:
            found = Path(pwd.getpwnam(who).pw_dir) / found.relative_to(Path.home())
        # Not resolved: the environment's python is a link, and where it points to knows no gleaner.
        options = UnitOptions(Path(sys.executable).absolute(), config.expanduser().absolute(), found, who, memory_max)
    except KeyError:
        _stop(f"there is no user {who!r} on this computer: name another with --run-as")
    except (ConfigProblem, ValueError) as problem:
        _stop(str(problem))
    text = unit_text(options)
    if dry_run:
        typer.echo(text, nl=False)
        return
    path = _unit_path(user)
    _need_systemd(user)
    _write(path, text)
    typer.echo(f"wrote {path}: runs {options.config} as {who or 'you'} in {options.home}")
    _systemctl(user, "daemon-reload")
    _systemctl(user, "enable", "--now", path.name)
    systemctl, journal = ("systemctl --user", "journalctl --user") if user else ("systemctl", "journalctl")
    typer.echo(f"it runs now and from boot on. Look:  {systemctl} status {path.stem}   {journal} -u {path.stem} -f")
    if user:
        typer.echo(f"to start at boot, before you log in:  sudo loginctl enable-linger {getpass.getuser()}")
    typer.echo(f"undo:  gleaner machine uninstall{' --user' if user else ''}")


def uninstall(user: OwnSystemd = False) -> None:
    """Stop the service and remove its unit. Captures and configuration stay."""
    path = _unit_path(user)
    if not path.exists():
        _stop(f"{path} is not there: nothing is installed{'' if user else ' (installed with --user? add it)'}")
    _need_systemd(user)
    _systemctl(user, "disable", "--now", path.name)
    try:
        path.unlink()
    except OSError as error:
        _stop(f"{path} cannot be removed ({error.strerror})")
    _systemctl(user, "daemon-reload")
    typer.echo(f"removed {path}; captures and configuration are where they were")


def _unit_path(user: bool) -> Path:
    from gleaner.machine.offline.unit_file import SERVICE

    own = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "systemd" / "user"
    return (own if user else Path("/etc/systemd/system")) / f"{SERVICE}.service"


def _need_systemd(user: bool) -> None:
    if shutil.which("systemctl") is None or not Path("/run/systemd/system").is_dir():
        _stop(
            "this computer does not run systemd: start the machine from its own init system (--dry-run prints the unit)"
        )
    if not user and os.geteuid() != 0:
        _stop("a service of the whole computer needs root: run it with sudo, or add --user")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        _stop(f"{path} cannot be written ({error.strerror})")


def _systemctl(user: bool, *words: str) -> None:
    command = ["systemctl", *(["--user"] if user else []), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        _stop(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")


def _stop(message: str) -> None:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(FAILED)
