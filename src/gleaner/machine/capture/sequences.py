"""Sequences: stretches of time that belong together, as the capture control sensor names them.

`<capture_dir>/sequences/<uuid>.progseq` while a sequence is open, `<uuid>.seq` once it has ended (JSON: start_time,
end_time, resources, sequence_tags). A new name comes by rename, so a `.seq` is always whole. Sync tells the app of it and
removes it. What a crash leaves open has no end that anybody knows: it goes to `failed/sequences/`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gleaner.machine.capture.directory import FAILED, free_path
from gleaner.machine.capture.ledger import sync_directories

SEQUENCES = "sequences"
OPEN_SUFFIX, ENDED_SUFFIX, TEMPORARY_SUFFIX = ".progseq", ".seq", ".tmp"


@dataclass(frozen=True)
class SequenceKey:
    """Which one it is: the order of resources and tags does not matter."""

    resources: frozenset[tuple[str, str]]
    """(resource name, method)."""
    tags: frozenset[str] = frozenset()


def parse_sequences(value: Any) -> frozenset[SequenceKey]:
    """Raises ValueError."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"'sequences' must be a list, it is {type(value).__name__}")
    return frozenset(_sequence(item) for item in value)


def _sequence(item: Any) -> SequenceKey:
    resources = item.get("resources") if isinstance(item, Mapping) else None
    if not isinstance(resources, Sequence) or isinstance(resources, str) or not resources:
        raise ValueError("a sequence needs a list of resources")
    named = set()
    for one in resources:
        name, method = (one.get("resource_name"), one.get("method")) if isinstance(one, Mapping) else (None, None)
        if not isinstance(name, str) or not isinstance(method, str):
            raise ValueError("a resource of a sequence needs resource_name and method")
        named.add((name, method))
    tags = item.get("sequence_tags", [])
    if not isinstance(tags, Sequence) or isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("sequence_tags must be a list of texts")
    return SequenceKey(frozenset(named), frozenset(tags))


class SequenceFiles:
    """Opens and ends the files of sequences. Blocking; any thread."""

    def __init__(
        self,
        root: Path,
        log: logging.Logger,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._folder = root / SEQUENCES
        self._failed = root / FAILED / SEQUENCES
        self._log = log
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._open: dict[SequenceKey, _Began] = {}
        self._ended: dict[Path, dict[str, Any]] = {}
        """What has ended and could not be written yet."""

    def recover(self) -> None:
        """What an earlier run left open is set aside, what it had ended is ended. At process start, before `follow`."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.suffix == TEMPORARY_SUFFIX:
                path.unlink()
            elif path.suffix == OPEN_SUFFIX:
                if _has_end(path):
                    path.rename(path.with_suffix(ENDED_SUFFIX))
                    continue
                self._failed.mkdir(mode=0o700, parents=True, exist_ok=True)
                target = free_path(self._failed / path.name)
                path.rename(target)
                self._log.warning("a sequence was left open by an earlier stop: it is %s now", target)

    def follow(self, wanted: frozenset[SequenceKey]) -> None:
        """Begins what is new and ends what is no longer there. What cannot be written is tried with the next call."""
        with self._lock:
            for sequence in [one for one in self._open if one not in wanted]:
                began = self._open.pop(sequence)
                self._ended[began.path] = _content(sequence, began.wall_ns, self._end_ns(began))
            for path, content in list(self._ended.items()):
                self._end(path, content)
            for sequence in wanted - self._open.keys():
                self._begin(sequence)

    def close(self) -> None:
        self.follow(frozenset())

    def _begin(self, sequence: SequenceKey) -> None:
        began = _Began(self._folder / f"{uuid.uuid4()}{OPEN_SUFFIX}", self._wall_ns(), self._monotonic_ns())
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(began.path, _content(sequence, began.wall_ns, None))
        except OSError as error:
            self._log.error("a sequence could not be begun in %s: %s", self._folder, error)
            return
        self._open[sequence] = began

    def _end(self, path: Path, content: dict[str, Any]) -> None:
        """First the end is in the file, then the file has its name: a crash between the two is mended by `recover`."""
        try:
            self._write(path, content)
            path.rename(path.with_suffix(ENDED_SUFFIX))
            sync_directories({str(self._folder)})
        except OSError as error:
            self._log.error("sequence %s could not be ended, it is tried again: %s", path, error)
            return
        del self._ended[path]

    def _end_ns(self, began: _Began) -> int:
        """Never before its beginning, also when the clock was set back meanwhile."""
        now = self._wall_ns()
        return now if now >= began.wall_ns else began.wall_ns + self._monotonic_ns() - began.monotonic_ns

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        temporary = path.with_suffix(TEMPORARY_SUFFIX)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@dataclass(frozen=True)
class _Began:
    path: Path
    wall_ns: int
    monotonic_ns: int


def _has_end(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_bytes())["end_time"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _content(sequence: SequenceKey, began_ns: int, ended_ns: int | None) -> dict[str, Any]:
    return {
        "start_time": _iso(began_ns),
        "end_time": None if ended_ns is None else _iso(ended_ns),
        "resources": [{"resource_name": name, "method_name": method} for name, method in sorted(sequence.resources)],
        "sequence_tags": sorted(sequence.tags),
    }


def _iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
