"""The virtual environment of a training script: of its own where pip can fetch what it needs, else with this computer's packages."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
import venv
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from gleaner.learn.errors import RunProblem
from gleaner.learn.events import Events

_NO_INDEX = re.compile(r"connection broken by|Max retries exceeded|NewConnectionError|ProxyError|name resolution")
_PACKAGED = ("setup.py", "pyproject.toml")

Command = Callable[[Sequence[str], Path], tuple[int, list[str]]]
"""Runs a program in a folder, its output as log lines → (exit code, last lines)."""


def make_environment(folder: Path, source: Path, command: Command, events: Events) -> Path:
    """The environment's Python, with the script at `source` installed.

    Raises:
        RunProblem: pip reached an index and could not install the script, whose mistake that is.
    """
    venv.EnvBuilder(symlinks=True).create(folder)
    python = folder / "bin" / "python"
    if not any((source / name).is_file() for name in _PACKAGED):
        return _with_packages_from_here(folder, python, "The script has no setup.py that says what it needs", events)
    if find_spec("pip") is None:
        return _with_packages_from_here(folder, python, "pip is not installed here", events)
    install = ("install", "--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "15")
    events.log("Installing the training script and what it needs")
    code, tail = command([sys.executable, "-m", "pip", "--python", str(python), *install, "."], source)
    if code == 0:
        return python
    if os.environ.get("PIP_NO_INDEX") or any(_NO_INDEX.search(line) for line in tail):
        return _with_packages_from_here(folder, python, "pip could not reach a package index", events)
    said = next((line for line in reversed(tail) if "error" in line.lower()), tail[-1] if tail else "it said nothing")
    raise RunProblem(f"The training script could not be installed: {said}", "The run's log has all that pip said.")


def _with_packages_from_here(folder: Path, python: Path, why: str, events: Events) -> Path:
    """Everything that can be imported beside Gleaner can be in the script, too."""
    events.warning(
        f"{why}: the training script runs with the packages that are installed beside Gleaner, whatever versions it asks for."
    )
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    here = dict.fromkeys([*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (own / "beside-gleaner.pth").write_text("".join(f"{path}\n" for path in here), encoding="utf-8")
    return python
