"""The base install is the machine alone; what else a command needs comes with an extra, and it says so in one line."""

from __future__ import annotations

import importlib.util

import typer

# Import names of what pyproject.toml lists under the extra `app`.
_APP_MODULES = (
    "fastapi",
    "uvicorn",
    "uvloop",
    "sqlalchemy",
    "alembic",
    "sqlcipher3",
    "obstore",
    "argon2",
    "python_multipart",
    "jsonschema",
)


def need_app_extra(command: str) -> None:
    """Ends the command with one line when the app's libraries are not installed."""
    missing = [name for name in _APP_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        typer.secho(
            f"{command} needs libraries that are not installed here ({', '.join(missing)}). "
            "Run: pip install 'gleaner[app]' (or 'gleaner[all]', which can train models, too)",
            fg="red",
            err=True,
        )
        raise typer.Exit(1)
