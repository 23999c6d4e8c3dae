"""`<component>/<method>/records.jsonl`, with the pictures beside it under the time they were taken, and a manifest."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from gleaner.machine.offline.export import Report
from gleaner.machine.offline.output import MANIFEST, safe_name, to_json
from gleaner.machine.offline.reading import Opened, Record, iso_ns

FORMAT_VERSION = 1
RECORDS = "records.jsonl"
_MOST_OPEN = 64  # of lines files; far below any limit, whatever number of collectors there is


class Blobs:
    """Payloads as files below `root`. Two of the same nanosecond get different names."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, file: Opened, record: Record, payload: bytes) -> str:
        """The new file's path, relative to `root`."""
        folder = collector_folder(file)
        (self._root / folder).mkdir(parents=True, exist_ok=True)
        stem = iso_ns(record.requested_ns).replace(":", "-")
        extension = safe_name(file.extension) if file.extension.startswith(".") else ".bin"
        number = 1
        while True:
            name = f"{folder}/{stem}{f'_{number}' if number > 1 else ''}{extension}"
            with suppress(FileExistsError), (self._root / name).open("xb") as out:
                out.write(payload)
                return name
            number += 1


class FolderSink:
    def __init__(self, path: Path) -> None:
        path.mkdir()
        self._path = path
        self._blobs = Blobs(path)
        self._lines: dict[str, IO[str]] = {}

    def add(self, file: Opened, record: Record) -> None:
        folder = collector_folder(file)
        line = described(file, record)
        if isinstance(record.data, bytes):
            line["file"] = Path(self._blobs.write(file, record, record.data)).name
        else:
            line["data"] = record.data
        self._file(folder).write(to_json(line) + "\n")

    def _file(self, folder: str) -> IO[str]:
        if folder not in self._lines:
            if len(self._lines) >= _MOST_OPEN:
                self.abandon()
            (self._path / folder).mkdir(parents=True, exist_ok=True)
            self._lines[folder] = (self._path / folder / RECORDS).open("a", encoding="utf-8")
        return self._lines[folder]

    def close(self, report: Report) -> None:
        self.abandon()
        write_manifest(self._path, "folder", report)

    def abandon(self) -> None:
        while self._lines:
            self._lines.popitem()[1].close()


def collector_folder(file: Opened) -> str:
    return f"{safe_name(file.component)}/{safe_name(file.method)}"


def described(file: Opened, record: Record) -> dict[str, Any]:
    """What every format says of a record beside its payload."""
    line: dict[str, Any] = {
        "time_requested": iso_ns(record.requested_ns),
        "time_received": iso_ns(record.received_ns),
        "component": file.component,
        "api": file.api,
        "method": file.method,
        "tags": list(file.tags),
    }
    if file.parameters:
        line["additional_params"] = dict(file.parameters)
    if file.is_binary:
        line["mime_type"] = file.mime_type
    if record.boxes or record.classes:
        line["annotations"] = {"bboxes": list(record.boxes), "classifications": list(record.classes)}
    return line


def write_manifest(path: Path, kind: str, report: Report) -> None:
    content = {"gleaner_export": FORMAT_VERSION, "format": kind, **asdict(report)}
    (path / MANIFEST).write_text(to_json(content, indent=2) + "\n", encoding="utf-8")
