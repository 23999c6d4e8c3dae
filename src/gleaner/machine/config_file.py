"""The local configuration file: read, checked and watched."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel

from gleaner.wire.machine_config import ConfigProblem, MachineConfig, expand_environment, parse_config

_LOG = logging.getLogger(__name__)

#: Source: Viam's documented debounce of its configuration file.
_DEBOUNCE_MS = 500
#: Read again this often without a notice: network file systems send none, and an edit may precede the watch.
_REREAD_MS = 5000


def read_config_file(path: Path) -> MachineConfig:
    """Raises ConfigProblem for anything that keeps the file from being used, with the line of a JSON error."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigProblem([("", "the file does not exist: check the path given with --config")], str(path)) from error
    except OSError as error:
        raise ConfigProblem([("", f"the file cannot be read: {error.strerror}")], str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigProblem(
            [("", f"the file cannot be read as text (byte {error.start}): save it as UTF-8")], str(path)
        ) from error
    try:
        value = json.loads(expand_environment(text))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ConfigProblem([(place, f"{error.msg}: this is not JSON")], str(path)) from error
    return parse_config(value, str(path))


def likely_misspelled(config: MachineConfig) -> list[str]:
    """Keys that nothing knows and that look like one that is known. Other unknown keys are a newer version's business."""
    sections: list[tuple[str, BaseModel]] = [("", config)]
    sections += [(f"components[{i}].", each) for i, each in enumerate(config.components)]
    sections += [(f"services[{i}].", each) for i, each in enumerate(config.services)]
    sections += [(f"modules[{i}].", each) for i, each in enumerate(config.modules)]
    sections += [(f"remotes[{i}].", each) for i, each in enumerate(config.remotes)]
    sections += [("network.", config.network)]
    found = []
    for place, section in sections:
        known = type(section).model_fields
        for key in section.model_extra or {}:
            if close := get_close_matches(key, known, 1, cutoff=0.8):
                found.append(f"{place}{key}: no such key, it is ignored. Did you mean {close[0]}?")
    return found


async def watch_config_file(path: Path, current: MachineConfig) -> AsyncIterator[MachineConfig]:
    """Each usable new content. A file that cannot be used is logged once and changes nothing."""
    complaint = ""
    async with _changes_of(path.absolute()) as changed:
        while True:
            await changed()
            try:
                config = await asyncio.to_thread(read_config_file, path)
            except ConfigProblem as problem:
                if str(problem) != complaint:
                    _LOG.error("%s; the running configuration stays", problem)
                complaint = str(problem)
                continue
            complaint = ""
            if config != current:
                current = config
                yield config


@asynccontextmanager
async def _changes_of(path: Path) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Gives what waits for the next change. The folder is watched, not the file: editors replace files.

    watchfiles shields its thread from cancellation for seconds, so it runs in a task of its own that is told to stop.
    """
    from watchfiles import awatch  # only a machine without an app has a file to watch

    changes, stop = asyncio.Event(), asyncio.Event()

    async def watch() -> None:
        watched = awatch(
            path.parent,
            watch_filter=lambda _change, changed: Path(changed) == path,
            debounce=_DEBOUNCE_MS,
            recursive=False,
            rust_timeout=_REREAD_MS,
            yield_on_timeout=True,
            stop_event=stop,
        )
        async for _ in watched:
            changes.set()

    async def changed() -> None:
        await changes.wait()
        changes.clear()
        if task.done():
            task.result()
            raise FileNotFoundError(
                f"{path.parent} is no longer watched: start the machine again to follow changes of {path.name}"
            )

    task = asyncio.create_task(watch(), name=f"watch {path}")
    task.add_done_callback(lambda _task: changes.set())
    try:
        yield changed
    finally:
        stop.set()
        await asyncio.wait([task])
