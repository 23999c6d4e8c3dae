"""One pass over the selected captures into a folder, Parquet or MCAP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.offline.output import atomic_output
from gleaner.machine.offline.reading import Opened, Record
from gleaner.machine.offline.selection import Selection, selected


class Format(StrEnum):
    FOLDER = "folder"
    PARQUET = "parquet"
    MCAP = "mcap"


class MissingLibrary(Exception):
    """A format's library is not installed; the message says what to install."""


@dataclass
class Report:
    """What an export wrote, and what it could not."""

    files: int = 0
    records: int = 0
    pictures: int = 0
    collectors: dict[str, int] = field(default_factory=dict)
    damaged: list[dict[str, Any]] = field(default_factory=list)

    def note(self, file: Opened, root: Path) -> None:
        self.files += 1
        if file.is_damaged:
            name = file.path.relative_to(root).as_posix() if file.path != root else file.path.name
            self.damaged.append({"file": name, "exported_records": file.record_count, "why": file.damage})

    def count(self, file: Opened) -> None:
        self.records += 1
        self.pictures += file.is_binary
        key = f"{file.component}/{file.method}"
        self.collectors[key] = self.collectors.get(key, 0) + 1


class Sink(Protocol):
    """`close` finishes the result at the path that the sink was made with; `abandon` only lets go of open files."""

    def add(self, file: Opened, record: Record) -> None: ...
    def close(self, report: Report) -> None: ...
    def abandon(self) -> None: ...


def export(
    root: Path,
    out: Path,
    kind: Format,
    selection: Selection,
    keyring: Keyring,
    *,
    force: bool = False,
    embed: bool = False,
    seen: Callable[[], None] = lambda: None,
) -> Report:
    """Raises OutputProblem, MissingLibrary. Nothing stays under `out` unless all of it is there.

    `embed` puts pictures into Parquet's rows instead of files beside it. One capture file is in memory at a time.
    """
    report = Report()
    with atomic_output(out, force) as temporary:
        sink = _sink(kind, temporary, embed)
        try:
            for file in selected(root, selection, keyring):
                report.note(file, root)
                for record in file.records():
                    if selection.wants_record(record):
                        sink.add(file, record)
                        report.count(file)
                seen()
            sink.close(report)
        finally:
            sink.abandon()
    return report


def _sink(kind: Format, path: Path, embed: bool) -> Sink:
    try:
        if kind is Format.PARQUET:
            from gleaner.machine.offline.to_parquet import ParquetSink

            return ParquetSink(path, embed)
        if kind is Format.MCAP:
            from gleaner.machine.offline.to_mcap import McapSink

            return McapSink(path)
    except ImportError as error:
        raise MissingLibrary(
            f"exporting to {kind.value} needs the library {error.name}, which is not installed: "
            "pip install 'gleaner[export]' (--format folder needs nothing)"
        ) from error
    from gleaner.machine.offline.to_folder import FolderSink

    return FolderSink(path)
