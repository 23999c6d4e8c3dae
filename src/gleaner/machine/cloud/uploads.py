"""`RobotService.UploadDataFromPath`: files of this computer go to the app at once, and are deleted here when it has them.

Viam's rules: one attempt per file; capture files and sequences are the data manager's and left alone. What fails stays.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from viam.proto.app.datasync import DataSyncServiceStub, DataType, FileData, FileUploadRequest, UploadMetadata

from gleaner.machine.capture.directory import SKIPPED_DIRECTORIES
from gleaner.machine.cloud.connection import AppConnection, AppError
from gleaner.machine.sync.scan import path_tags

_LOG = logging.getLogger("gleaner.cloud.upload")
_PIECE_BYTES = 256 * 1024
_LEFT_ALONE = (".capture", ".prog", ".seq", ".progseq")


@dataclass
class UploadReport:
    files_uploaded: int = 0
    files_failed: int = 0
    bytes_uploaded: int = 0
    bytes_total: int = 0
    ids: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class PathUploader:
    def __init__(self, connection: AppConnection, part_id: str) -> None:
        self._connection = connection
        self._part_id = part_id

    async def upload(self, path: Path, wanted: UploadMetadata) -> UploadReport:
        """A file, or everything below a folder. Raises FileNotFoundError, PermissionError for `path` itself."""
        report = UploadReport()
        files = await asyncio.to_thread(find_files, path)
        report.bytes_total = sum(status.st_size for _, status in files)
        for file, status in files:
            try:
                report.ids.append(await self._upload_file(file, status, wanted))
            except (AppError, OSError) as error:
                report.files_failed += 1
                report.problems.append(f"{file}: {error}")
                _LOG.warning("%s was not uploaded: %s", file, error)
                continue
            report.files_uploaded += 1
            report.bytes_uploaded += status.st_size
        return report

    async def _upload_file(self, path: Path, status: os.stat_result, wanted: UploadMetadata) -> str:
        metadata = metadata_for(path, status, wanted, self._part_id)
        answer = await self._connection.send_stream(DataSyncServiceStub, "FileUpload", _packets(path, metadata))
        await asyncio.to_thread(_remove_if_unchanged, path, status)
        return str(answer.binary_data_id)


def find_files(path: Path) -> list[tuple[Path, os.stat_result]]:
    """Regular files with content, sorted; links are not followed, and what is the data manager's is left out."""
    if path.is_dir():
        found: list[Path] = []
        for folder, folders, names in os.walk(path):
            folders[:] = [name for name in folders if name not in SKIPPED_DIRECTORIES]
            found += [Path(folder, name) for name in names]
    else:
        found = [path]
    files = [(each, each.lstat()) for each in sorted(found) if not each.name.endswith(_LEFT_ALONE)]
    return [(each, status) for each, status in files if each.is_file() and not each.is_symlink() and status.st_size]


def metadata_for(path: Path, status: os.stat_result, wanted: UploadMetadata, part_id: str) -> UploadMetadata:
    """What the caller said, with what only the file knows."""
    made = UploadMetadata()
    made.CopyFrom(wanted)
    tags, datasets = path_tags(str(path))
    made.part_id, made.type = part_id, DataType.DATA_TYPE_FILE
    made.file_name = wanted.file_name or str(path)
    made.file_extension = wanted.file_extension or path.suffix
    _replace(made.tags, [*wanted.tags, *tags])
    _replace(made.dataset_ids, [*wanted.dataset_ids, *datasets])
    made.file_modify_time.CopyFrom(_stamp(status.st_mtime_ns))
    made.file_create_time.CopyFrom(_stamp(min(status.st_ctime_ns, status.st_mtime_ns)))
    return made


def _replace(field_: object, values: list[str]) -> None:
    del field_[:]  # type: ignore[attr-defined]
    field_.extend(dict.fromkeys(values))  # type: ignore[attr-defined]


def _stamp(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // 10**9, nanos=time_ns % 10**9)


async def _packets(path: Path, metadata: UploadMetadata) -> AsyncIterator[FileUploadRequest]:
    yield FileUploadRequest(metadata=metadata)
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while data := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield FileUploadRequest(file_contents=FileData(data=data))
    finally:
        file.close()


def _remove_if_unchanged(path: Path, seen: os.stat_result) -> None:
    """The app has what was there when it was read; a file that was written to meanwhile stays."""
    now = path.lstat()
    if (now.st_ino, now.st_size, now.st_mtime_ns) == (seen.st_ino, seen.st_size, seen.st_mtime_ns):
        path.unlink()
