"""A result appears whole under its name or not at all, and is on the disk by then."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class OutputProblem(Exception):
    """The result cannot be written there; the message is the one line for the user."""


@contextmanager
def atomic_output(target: Path, force: bool) -> Iterator[Path]:
    """A temporary path beside `target`, to be made by the caller as a file or a folder and renamed at the end.

    Raises OutputProblem when something is there already and `force` was not given, or when the disk refuses.
    """
    if target.exists() and not force:
        raise OutputProblem(f"{target} is there already: choose another --out, or replace it with --force")
    if target.is_dir() and not (target / MANIFEST).exists() and any(target.iterdir()):
        raise OutputProblem(f"{target} is a folder that no export has written: --force does not replace it")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        _replace(temporary, target)
    except OSError as error:
        raise OutputProblem(f"{error.filename or target} cannot be written: {error.strerror}") from error
    finally:
        _remove(temporary)


MANIFEST = "manifest.json"
"""In every folder that an export makes; without it nothing is ever replaced."""


def to_json(value: Any, **options: Any) -> str:
    """Valid JSON whatever a sensor says: numbers that JSON does not have become Protobuf's texts for them."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


def _sync(path: Path) -> None:
    """What was written is on the disk, not only in memory, when this returns. Raises OSError."""
    if not path.is_dir():
        _fsync(path)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            _fsync(Path(folder, name))
        _fsync(Path(folder))


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(temporary: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    if target.is_dir():
        target.rename(old)
    temporary.rename(target)
    _remove(old)
    _fsync(target.parent)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def safe_name(text: str) -> str:
    """One folder or file name: what a header says can never lead out of the export."""
    name = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in text)
    return name if name.strip(".") else f"_{name}"
