"""Capture files as they lie, also those of Viam's server and those that a machine is writing at this moment.

Nothing is opened for writing and no lock is taken. A file that is renamed or sent while we look is found under its final
name, or has gone; whatever is damaged is said of the file, and the rest is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gleaner.machine.capture.at_rest import Keyring, is_encrypted, plain_bytes
from gleaner.machine.capture.directory import SKIPPED_DIRECTORIES, STATE
from gleaner.machine.capture.errors import CaptureFromNewer, CaptureKeyMissing
from gleaner.wire.capture_file import (
    COMPLETE_SUFFIX,
    IN_PROGRESS_SUFFIX,
    MIME_EXTENSIONS,
    CaptureFile,
    CaptureFileError,
    extension_for,
    read_capture,
)

if TYPE_CHECKING:
    from viam.proto.app.datasync import DataCaptureMetadata, SensorData

_BINARY = 1  # of DataType
_SUFFIXES = (COMPLETE_SUFFIX, IN_PROGRESS_SUFFIX)
_MIME_OF_EXTENSION = {extension: mime for mime, extension in MIME_EXTENSIONS.items()} | {".jpg": "image/jpeg"}
# First bytes of what cameras and microphones give: Viam's GetImages names no type in older files.
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"RGBA", "image/vnd.viam.rgba"),
    (b"DEPTHMAP", "image/vnd.viam.dep"),
    (b"VERSION .7", "pointcloud/pcd"),
    (b"# .PCD", "pointcloud/pcd"),
    (b"RIFF", "audio/wav"),
)


class NotACaptureDirectory(Exception):
    """The path holds no captures; the message is the one line for the user."""


@dataclass(frozen=True)
class Record:
    """One capture: a reading (`data` is a dict) or bytes."""

    requested_ns: int
    received_ns: int
    data: dict[str, Any] | bytes
    boxes: tuple[dict[str, Any], ...]
    """Corners are shares of the picture's width and height, 0 to 1."""
    classes: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Opened:
    """One capture file. With `problem` nothing in it can be read, and what names it is its folder."""

    path: Path
    size_bytes: int
    is_complete: bool
    api: str
    component: str
    method: str
    tags: tuple[str, ...] = ()
    parameters: tuple[tuple[str, Any], ...] = ()
    is_binary: bool = False
    mime_type: str = ""
    extension: str = ""
    is_encrypted: bool = False
    is_sealed: bool = False
    damaged_bytes: int = 0
    problem: str = ""
    _records: tuple[SensorData, ...] = ()

    @property
    def record_count(self) -> int:
        return len(self._records)

    @property
    def is_damaged(self) -> bool:
        """An unfinished file may end inside a record: that is no damage yet."""
        return bool(self.problem) if not self.is_complete else bool(self.problem or self.damaged_bytes)

    @property
    def damage(self) -> str:
        """In words; empty for a file that is whole."""
        if self.problem:
            return self.problem
        if not self.damaged_bytes:
            return ""
        if not self.is_complete:
            return f"still being written: its last {self.damaged_bytes} bytes are not a whole record yet"
        return f"{self.damaged_bytes} bytes belong to no whole record (torn by a power cut, or rotten); the others are read"

    def records(self) -> Iterator[Record]:
        for message in self._records:
            yield _record(message)


def capture_directory(path: Path) -> Path:
    """The same path. Raises NotACaptureDirectory unless there are captures in it, or the traces of a machine."""
    if not path.exists():
        raise NotACaptureDirectory(f"{path} does not exist: name a capture directory, usually <machine's home>/capture")
    if path.is_file():
        if path.suffix in _SUFFIXES:
            return path
        raise NotACaptureDirectory(f"{path} is no capture file: their names end in .capture or .prog")
    try:
        entries = [entry.name for entry in path.iterdir()]
    except OSError as error:
        raise NotACaptureDirectory(
            f"{path} cannot be read ({error.strerror}): run this as the machine's user"
        ) from error
    if STATE in entries or next(capture_paths(path), None) is not None:
        return path
    raise NotACaptureDirectory(
        f"{path} is not a capture directory: it holds no .capture or .prog files. The machine's is `capture_dir` of its "
        "data manager, usually <machine's home>/capture (Viam's server: ~/.viam/capture)"
    )


def capture_paths(root: Path) -> Iterator[Path]:
    """Capture files in order of folder and name, which is order of time; only one folder's names are in memory."""
    if root.is_file():
        yield root
        return
    try:
        with os.scandir(root) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return  # removed while we looked
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in SKIPPED_DIRECTORIES:
                yield from capture_paths(Path(entry.path))
        elif entry.name.endswith(_SUFFIXES) and entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def open_capture(path: Path, keyring: Keyring) -> Opened | None:
    """None: the file has gone meanwhile, because it was sent."""
    for candidate in (path, path.with_suffix(COMPLETE_SUFFIX)):
        try:
            data = candidate.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            return _unreadable(candidate, b"", f"it cannot be read: {error.strerror}")
        try:
            return _opened(candidate, data, read_capture(plain_bytes(data, keyring)))
        except CaptureFromNewer as newer:
            return _unreadable(candidate, data, str(newer))
        except CaptureKeyMissing:
            hint = "no key that was given opens it" if keyring.keys else "name its key with --key-file"
            return _unreadable(candidate, data, f"it is encrypted: {hint}")
        except CaptureFileError as error:
            return _unreadable(candidate, data, str(error))
    return None


def _unreadable(path: Path, data: bytes, problem: str) -> Opened:
    parts = path.absolute().parts
    api, component, method = parts[-4:-1] if len(parts) >= 4 else ("", "", "")
    return Opened(
        path,
        len(data),
        path.suffix == COMPLETE_SUFFIX,
        api.replace("_", ":", 2),
        component,
        method,
        is_encrypted=is_encrypted(data),
        problem=problem,
    )


def _opened(path: Path, data: bytes, file: CaptureFile) -> Opened:
    header = file.metadata
    is_binary = header.type == _BINARY
    payload = file.records[0].binary if is_binary and file.records else b""
    mime_type = _mime_type(header, payload) if is_binary else ""
    return Opened(
        path,
        len(data),
        path.suffix == COMPLETE_SUFFIX,
        header.component_type,
        header.component_name,
        header.method_name,
        tuple(header.tags),
        _parameters(header),
        is_binary,
        mime_type,
        extension_for(mime_type, header.file_extension if is_binary else ""),
        is_encrypted(data),
        file.layout.sealed,
        file.layout.damaged_bytes,
        _records=file.records,
    )


def _parameters(header: DataCaptureMetadata) -> tuple[tuple[str, Any], ...]:
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.struct_pb2 import Value

    found = []
    for name in sorted(header.method_parameters):
        value = Value()
        if header.method_parameters[name].Unpack(value):
            found.append((name, MessageToDict(value)))
    return tuple(found)


def _mime_type(header: DataCaptureMetadata, payload: bytes) -> str:
    if header.mime_type:
        return str(header.mime_type)
    found = next((mime for magic, mime in _MAGIC if payload.startswith(magic)), "")
    return found or _MIME_OF_EXTENSION.get(header.file_extension, "application/octet-stream")


def _record(message: SensorData) -> Record:
    metadata = message.metadata
    is_binary = message.WhichOneof("data") == "binary"
    return Record(
        _nanoseconds(metadata.time_requested),
        _nanoseconds(metadata.time_received),
        message.binary if is_binary else struct_values(message.struct),
        tuple(_box(box) for box in metadata.annotations.bboxes),
        tuple(_classification(each) for each in metadata.annotations.classifications),
    )


def _nanoseconds(timestamp: Any) -> int:
    return int(timestamp.seconds) * 1_000_000_000 + int(timestamp.nanos)


def _box(box: Any) -> dict[str, Any]:
    corners = ("x_min_normalized", "y_min_normalized", "x_max_normalized", "y_max_normalized")
    return {"label": box.label, **{name: getattr(box, name) for name in corners}, **_confidence(box)}


def _classification(each: Any) -> dict[str, Any]:
    return {"label": each.label, **_confidence(each)}


def _confidence(annotation: Any) -> dict[str, Any]:
    return {"confidence": annotation.confidence} if annotation.HasField("confidence") else {}


def struct_values(struct: Any) -> dict[str, Any]:
    """A protobuf Struct as plain values; numbers are floats, also those that are not finite."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return struct_values(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def iso_ns(time_ns: int) -> str:
    """UTC ISO 8601 with all nine digits, so that nothing of a stored time is lost."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"
