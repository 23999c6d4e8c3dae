"""Datasets between an app and this computer's disk, going on where a cut or an interruption stopped them."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from gleaner.cli.app_access import App, tried
from gleaner.cli.rest_client import RestError, Unreachable
from gleaner.formats import viam
from gleaner.formats.archive import Archive, packed
from gleaner.formats.registry import Format, read
from gleaner.formats.sources import Source
from gleaner.formats.values import Picture, Problem

_STATE = ".gleaner-export.json"
_READ_BYTES = 1 << 20
_BATCH, _BATCH_BYTES = 64, 16 << 20
_BLOCK = 512
_SAVE_EVERY_S = 1.0

Seen = Callable[[int, int], None]
"""Told (done, in all; 0 if unknown) as it goes on."""


@dataclass(frozen=True)
class Wanted:
    """`tag` and `offset` are where an earlier download stopped; empty and 0 at the start."""

    dataset_id: str
    format: str
    archive: str
    version: int = 0
    tag: str = ""
    offset: int = 0


class Download:
    """The bytes of an export from `wanted.offset` on, also over several connections."""

    def __init__(self, app: App, wanted: Wanted) -> None:
        self._app = app
        self.wanted = wanted
        self.pictures = 0
        self._answer: http.client.HTTPResponse | None = None

    def read(self, size: int = _READ_BYTES) -> bytes:
        """Empty at the end. Raises RestError."""
        return tried(lambda: self._read(size))

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _read(self, size: int) -> bytes:
        answer = self._answer or self._connect()
        try:
            data = answer.read(size)
        except (OSError, http.client.HTTPException) as err:
            self.close()
            raise Unreachable(f"the download was cut: {err}") from err
        self.wanted = replace(self.wanted, offset=self.wanted.offset + len(data))
        return data

    def _connect(self) -> http.client.HTTPResponse:
        asked = self.wanted
        query = f"format={asked.format}&archive={asked.archive}&version={asked.version}&start={asked.offset}"
        headers = {"If-Match": asked.tag} if asked.tag else {}
        answer = self._app.client.open(f"/datasets/{asked.dataset_id}/export?{query}", headers)
        version = int(answer.headers["gleaner-version"])
        self.pictures = int(answer.headers["gleaner-pictures"])
        self.wanted = replace(asked, tag=answer.headers["etag"], version=version)
        self._answer = answer
        return answer


def to_archive(app: App, wanted: Wanted, out: Path, seen: Seen) -> None:
    """Into `out`, by way of `out.part`, which an interrupted download leaves and the next one continues."""
    part, state = Path(f"{out}.part"), Path(f"{out}.part.json")
    earlier = _earlier(state, wanted)
    begun = replace(earlier, offset=part.stat().st_size) if earlier and part.exists() else wanted
    download = Download(app, begun)
    try:
        with part.open("ab" if begun.offset else "wb") as file:
            while data := download.read():
                if file.tell() == 0:
                    _save(state, download.wanted)
                file.write(data)
                seen(download.wanted.offset, 0)
            os.fsync(file.fileno())
    finally:
        download.close()
    part.replace(out)
    state.unlink(missing_ok=True)


def to_folder(app: App, wanted: Wanted, out: Path, seen: Seen) -> int:
    """Files, each whole or not there. The answer counts them. What was there before is replaced."""
    out.mkdir(parents=True, exist_ok=True)
    state = out / _STATE
    begun = _earlier(state, wanted) or wanted
    download = Download(app, begun)
    count, saved = 0, time.monotonic()
    try:
        with tarfile.open(fileobj=download, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                _write_member(out, member.name, archive.extractfile(member))
                count += 1
                seen(count, 0)
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    end = begun.offset + member.offset_data + member.size + (-member.size % _BLOCK)
                    _save(state, replace(download.wanted, offset=end))
                    saved = time.monotonic()
    finally:
        download.close()
    state.unlink(missing_ok=True)
    return count


@dataclass
class Sent:
    added: int = 0
    known: int = 0
    problem_count: int = 0


def send(
    app: App, dataset_id: str, source: Source, format_: Format, state: Path, seen: Seen, say: Callable[[str], None]
) -> Sent:
    """Batches of pictures, each acknowledged before the next; `state` remembers how many, and goes at the end."""
    done = Sent()
    listed = hashlib.sha256(repr(sorted(source.paths.items())).encode("utf-8", "replace")).hexdigest()
    key = {"app": app.address, "dataset": dataset_id, "format": str(format_), "files": listed}
    skip = _sent_before(state, key)
    number = 0
    for batch in _batches(read(format_, source), done, say):
        number += len(batch)
        if number <= skip:
            continue
        body = b"".join(packed(viam.write(iter(batch), lambda problem: say(str(problem))), Archive.ZIP))
        answer = tried(lambda body=body: _post(app, dataset_id, body))  # type: ignore[misc]
        done.added += answer["added"]
        done.known += answer["known"]
        done.problem_count += answer["problem_count"]
        for one in answer["problems"]:
            say(f"{one['file']}: {one['message']} {one['hint']}")
        _save_json(state, {**key, "sent": number})
        seen(number, 0)
    state.unlink(missing_ok=True)
    return done


def import_state(app: App, dataset_id: str, path: Path) -> Path:
    name = hashlib.sha256(f"{app.address} {dataset_id} {path.absolute()}".encode()).hexdigest()[:24]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "gleaner" / f"import-{name}.json"


def _post(app: App, dataset_id: str, body: bytes) -> Any:
    return app.client.post_bytes(f"/datasets/{dataset_id}/import?format=viam", body, "application/zip")


def _batches(found: Iterator[Picture | Problem], done: Sent, say: Callable[[str], None]) -> Iterator[list[Picture]]:
    batch: list[Picture] = []
    size = 0
    for one in found:
        if isinstance(one, Problem):
            done.problem_count += 1
            say(str(one))
            continue
        batch.append(one)
        size += one.size
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _sent_before(state: Path, key: dict[str, str]) -> int:
    try:
        said = json.loads(state.read_text())
        return int(said["sent"]) if all(said.get(name) == value for name, value in key.items()) else 0
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def _write_member(out: Path, name: str, content: io.BufferedReader | Any) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or content is None:
        raise RestError(f"the app sent a file called {name!r}, which lies outside of {out}: nothing more is written")
    target = out / path
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    with temporary.open("wb") as file:
        while data := content.read(_READ_BYTES):
            file.write(data)
    temporary.replace(target)


def _earlier(state: Path, wanted: Wanted) -> Wanted | None:
    """Where the same download stopped, if it did."""
    try:
        found = Wanted(**json.loads(state.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    same = (found.dataset_id, found.format, found.archive) == (wanted.dataset_id, wanted.format, wanted.archive)
    return found if same and wanted.version in (0, found.version) and found.tag else None


def _save(state: Path, where: Wanted) -> None:
    _save_json(state, asdict(where))


def _save_json(state: Path, value: dict[str, Any]) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    temporary = state.with_name(f"{state.name}.tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(state)
