"""The wheel of the running Gleaner, made from its installed files, so that a machine installs exactly the app's version.

Gleaner is in no package index, and the name may be a stranger's in one: the app gives itself. The format is the binary
distribution format of packaging.python.org; the same files always make the same bytes. Left out are the web pages
(`app/static`, which only a server needs) and what Python and editors leave behind.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import gleaner
from gleaner.app.errors import Unavailable

_NAME = "gleaner"
_TAG = "py3-none-any"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip file can hold
_LEFT_OUT = ("app/static/",)


@dataclass(frozen=True)
class Wheel:
    """`file_name` carries name, version and tags, as pip needs them; `sha256` is in hex."""

    file_name: str
    data: bytes
    sha256: str


@cache
def own_wheel() -> Wheel:
    """The wheel of this very process's Gleaner, made once. Raises Unavailable if Gleaner was never installed."""
    try:
        installed = distribution(_NAME)
    except PackageNotFoundError:
        raise Unavailable(
            "this app runs from a folder that was never installed, so it has no package to give to a machine",
            "Install it (pip install . in the repository) and start it again.",
        ) from None
    return build_wheel(Path(gleaner.__file__).parent, installed)


def build_wheel(package: Path, installed: Distribution) -> Wheel:
    """A wheel of `package` with the metadata it was installed with; an editable install will do."""
    version = installed.version.replace("-", "_")  # a dash separates the parts of a wheel's name
    info = f"{_NAME}-{version}.dist-info"
    contents = [*_package_files(package), *_metadata_files(info, installed)]
    record = f"{info}/RECORD"
    contents.append((record, _record(contents, record)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        for path, data in contents:
            wheel.writestr(_entry(path), data, zipfile.ZIP_DEFLATED, 9)
    data = packed.getvalue()
    return Wheel(f"{_NAME}-{version}-{_TAG}.whl", data, hashlib.sha256(data).hexdigest())


def _package_files(package: Path) -> Iterator[tuple[str, bytes]]:
    found = {file.relative_to(package).as_posix(): file for file in package.rglob("*") if file.is_file()}
    for path in sorted(found):
        is_debris = "__pycache__" in path or path.endswith(("~", ".pyc")) or any(p[0] == "." for p in path.split("/"))
        if not is_debris and not path.startswith(_LEFT_OUT):
            yield f"{_NAME}/{path}", found[path].read_bytes()


def _metadata_files(info: str, installed: Distribution) -> Iterator[tuple[str, bytes]]:
    """The licence, what it needs and its commands are as installed; how it is packed is said anew."""
    names = ["METADATA", "entry_points.txt"]
    names += [f"licenses/{name}" for name in installed.metadata.get_all("License-File") or []]
    for name in sorted(names):
        text = installed.read_text(name)
        if text is not None:
            yield f"{info}/{name}", text.encode()
    described = f"Wheel-Version: 1.0\nGenerator: {_NAME} {installed.version}\nRoot-Is-Purelib: true\nTag: {_TAG}\n"
    yield f"{info}/WHEEL", described.encode()


def _record(contents: list[tuple[str, bytes]], record: str) -> bytes:
    """A line of path, hash and size for every file; its own has neither."""
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    for path, data in contents:
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        table.writerow((path, f"sha256={digest}", len(data)))
    table.writerow((record, "", ""))
    return lines.getvalue().encode()


def _entry(path: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path, _EPOCH)
    entry.create_system = 3  # Unix, whatever the app runs on: the mode below is read that way
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry
