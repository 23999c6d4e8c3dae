"""Where a data set is read from: a folder or a zip. Only paths that are listed can be opened, so none leads outside."""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from gleaner.formats.values import FormatProblem

MAX_PICTURE_BYTES = 256 << 20


class Source(Protocol):
    """`paths` are sorted, with `/`, relative to the data set's root."""

    paths: dict[str, int]
    """With the size of each file."""

    def open(self, path: str) -> IO[bytes]: ...


class FolderSource:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not folder.is_dir():
            raise FormatProblem(f"{folder} is no folder. Name the folder or the .zip the data set is in")
        found = (path for path in folder.rglob("*") if path.is_file() and _is_inside(folder, path))
        named = ((path.relative_to(folder).as_posix(), path.stat().st_size) for path in found)
        self.paths = dict(sorted((name, size) for name, size in named if not _is_hidden(name)))

    def open(self, path: str) -> IO[bytes]:
        return (self._folder / path).open("rb")


class ZipSource:
    """A zip that may have the whole data set in one folder, as most programs pack it."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError) as err:
            raise FormatProblem(f"The file is no readable zip: {err}. Pack the folder again as .zip") from err
        listed = {
            one.filename.replace("\\", "/"): one for one in self._zip.infolist() if one.filename and not one.is_dir()
        }
        wanted = {name: one for name, one in listed.items() if not _is_hidden(name)}
        root = _common_folder(wanted)
        self._members = {name[len(root) :]: one for name, one in wanted.items()}
        self.paths = {name: self._members[name].file_size for name in sorted(self._members)}

    def open(self, path: str) -> IO[bytes]:
        try:
            return self._zip.open(self._members[path])
        except ValueError as err:  # an offset before the start of the file
            raise zipfile.BadZipFile(f"{path} is not where the zip says ({err})") from err

    def close(self) -> None:
        self._zip.close()


def read_picture(source: Source, path: str) -> bytes:
    """Raises FormatProblem for one that is too large, damaged in its zip, or gone."""
    if source.paths[path] > MAX_PICTURE_BYTES:
        raise FormatProblem(f"{path} is larger than {MAX_PICTURE_BYTES >> 20} MB. Shrink it")
    try:
        with source.open(path) as file:
            return file.read()
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as err:
        raise FormatProblem(f"{path} cannot be read: {err}. Copy or pack it again") from err


def resolve(source: Source, *candidates: str) -> str | None:
    """The first of these paths that the source has."""
    for one in candidates:
        path = posixpath.normpath(one.replace("\\", "/"))
        if path in source.paths:
            return path
    return None


def lines(source: Source, path: str) -> Iterator[tuple[int, str]]:
    """(line number, text) of the lines that are not blank, one at a time. Undecodable bytes become U+FFFD."""
    with source.open(path) as file:
        for number, line in enumerate(file, 1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").strip()
            if text:
                yield number, text


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts)


def _is_inside(folder: Path, path: Path) -> bool:
    return not path.is_symlink() or path.resolve().is_relative_to(folder.resolve())


#: Folders that are part of a layout, not a wrapping around it.
_LAYOUT = {"train", "training", "val", "valid", "validation", "test", "images", "labels", "annotations", "data"} | {
    "jpegimages"
}


def _common_folder(names: dict[str, zipfile.ZipInfo]) -> str:
    """The folder everything is in, with its slash, if it only wraps a data set."""
    firsts = {name.partition("/")[0] for name in names}
    if len(firsts) != 1:
        return ""
    first = firsts.pop()
    inner = {name.partition("/")[2] for name in names}
    # One folder of pictures is one class of an image-folder data set, not a wrapping.
    has_more = any("/" in one or one.endswith((".json", ".jsonl", ".yaml", ".parquet")) for one in inner)
    is_wrapping = "" not in inner and has_more and first.lower() not in _LAYOUT
    return f"{first}/" if is_wrapping else ""
