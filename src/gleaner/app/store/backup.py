"""Backups of a running app into a folder, and back.

Layout of the backup
    packs/<day>/<name>.pack, packages/…     as in data_dir, shared by all snapshots: they are never changed once written
    snapshots/<UTC time>/metadata.db        one moment of the metadata, encrypted as ever
    snapshots/<UTC time>/keys/, tls/        wrapped keys, and the app's certificates; never the key-encryption key
    snapshots/<UTC time>/manifest.json      every file this moment needs: path, bytes, SHA-256
    tmp/                                    what an interrupted run left; removed by the next one

A snapshot exists once its folder has its name; that is the last step, after everything it names is synced. A crash or a
pulled disk leaves at most files that the next run takes up. Only bytes that the backup does not have yet are copied.
Consistent beside a running app: packs are never changed, and the metadata is copied first. A pack that was written anew in
between is not there any more; then the metadata is copied again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import gleaner
from gleaner.app.database import Database
from gleaner.app.keys import Keys
from gleaner.app.store import tables as t
from gleaner.app.store.object_store import Objects

FORMAT = 1
_PIECE = 4 << 20
_ROUNDS = 5
_SHARED = ("packs", "packages")

Progress = Callable[[int, int], None]
"""Told bytes done and bytes in all."""


class BackupProblem(Exception):
    """The backup or restore cannot go on; the message says what to do. Nothing that was there is harmed."""


@dataclass(frozen=True)
class File:
    """`path` is relative: to the backup for shared files, to the snapshot for its own."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    name: str
    kek_id: str
    gleaner: str
    shared: tuple[File, ...]
    own: tuple[File, ...]
    missing: tuple[str, ...] = ()
    """Packs the metadata names that were not on the app's disk."""

    @property
    def size(self) -> int:
        return sum(file.size for file in (*self.shared, *self.own))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"format": FORMAT} | asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Raises BackupProblem."""
        try:
            values: dict[str, Any] = json.loads(path.read_text())
            if values.pop("format") != FORMAT:
                raise BackupProblem(f"{path} was written by a newer Gleaner. Restore it with that version.")
            for name in ("shared", "own"):
                values[name] = tuple(File(**file) for file in values[name])
            return cls(**values | {"missing": tuple(values["missing"])})
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise BackupProblem(f"{path} cannot be read: {err}. Restore another snapshot (--at).") from err


@dataclass
class Source:
    """The app to back up; it may be running."""

    data_dir: Path
    database: Database
    objects: Objects
    keys: Keys
    packages: Objects
    """Of models and scripts."""
    copied: int = field(default=0, init=False)
    """Bytes that the backup did not have yet."""


def back_up(
    source: Source, folder: Path, now: dt.datetime, keep: int = 0, progress: Progress = lambda *_: None
) -> Manifest:
    """Adds a snapshot of this moment to the backup in `folder`, and forgets all but the `keep` newest (0: none).

    Raises BackupProblem, OSError.
    """
    for part in (*_SHARED, "snapshots", "tmp"):
        (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(folder):
        shutil.rmtree(folder / "tmp")
        work = folder / "tmp" / "snapshot"
        (work / "keys").mkdir(parents=True, mode=0o700)
        known = _known(folder)
        packs, missing = _copy_packs(source, folder, work, known, progress)
        packages = _copy_packages(source, folder, known)
        own = tuple(_copy_own(source.data_dir, work))
        name = now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H%M%S.%fZ")
        manifest = Manifest(name, source.keys.kek_id, gleaner.__version__, (*packs, *packages), own, missing)
        manifest.write(work / "manifest.json")
        _sync_tree(work)
        work.rename(folder / "snapshots" / name)
        _sync(folder / "snapshots")
        if keep:
            _forget(folder, keep)
    return manifest


def snapshots(folder: Path) -> list[str]:
    """Names of the snapshots in a backup, oldest first."""
    there = folder / "snapshots"
    return sorted(one.name for one in there.iterdir() if (one / "manifest.json").is_file()) if there.is_dir() else []


def verify(folder: Path, manifest: Manifest, progress: Progress = lambda *_: None) -> list[str]:
    """The files of a snapshot that are missing or changed; every byte is read."""
    done, bad = 0, []
    for base, file in _files(folder, manifest):
        if _hash(base / file.path) != (file.size, file.sha256):
            bad.append(file.path)
        done += file.size
        progress(done, manifest.size)
    return bad


def choose(folder: Path, at: str = "") -> Manifest:
    """The newest snapshot, or the newest whose name begins with `at`. Raises BackupProblem."""
    names = snapshots(folder)
    if not names:
        raise BackupProblem(f"There is no backup in {folder}. Name the folder that `gleaner app backup` wrote to.")
    chosen = next((name for name in reversed(names) if name.startswith(at)), "")
    if not chosen:
        raise BackupProblem(f"{folder} has no snapshot of {at}. There are: {', '.join(names[-10:])}.")
    return Manifest.read(folder / "snapshots" / chosen / "manifest.json")


def restore(folder: Path, manifest: Manifest, data_dir: Path, progress: Progress = lambda *_: None) -> None:
    """Puts a snapshot into `data_dir`, which must not hold anything yet.

    Everything is copied and checked beside it first and takes its place in the last step. Raises BackupProblem, OSError.
    """
    if data_dir.exists() and any(data_dir.iterdir()):
        raise BackupProblem(f"{data_dir} is not empty. Choose another --data-dir, or move what is there away first.")
    work = data_dir.with_name(data_dir.name + ".restoring")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, mode=0o700)
    _refuse_if_too_full(work, manifest.size)
    done, bad = 0, []
    for base, file in _files(folder, manifest):
        target = work / file.path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            copied = _copy(_pieces(base / file.path), target, file.path)
        except FileNotFoundError:
            copied = None
        if copied != file:
            bad.append(file.path)
        done += file.size
        progress(done, manifest.size)
    if bad:
        shutil.rmtree(work)
        raise BackupProblem(
            f"{len(bad)} files of snapshot {manifest.name} are missing or changed in the backup: {', '.join(bad[:5])}"
            f"{', …' if len(bad) > 5 else ''}. Nothing was restored. Try another copy of the backup, or another snapshot (--at)."
        )
    _sync_tree(work)
    if data_dir.exists():
        data_dir.rmdir()
    work.rename(data_dir)
    _sync(data_dir.parent)


# --- parts -----------------------------------------------------------------------------------------------------------


def _copy_packs(
    source: Source, folder: Path, work: Path, known: dict[str, File], progress: Progress
) -> tuple[list[File], tuple[str, ...]]:
    """A moment of the metadata, and every pack it names; the names of those that are not there."""
    gone: set[str] = set()
    for _ in range(_ROUNDS):
        (work / "metadata.db").unlink(missing_ok=True)
        source.database.copy_to(work / "metadata.db")
        sizes = dict(source.objects.sizes())
        names = _pack_names(work / "metadata.db", source.keys)
        absent = {name for name in names if name not in sizes}
        total, done = sum(sizes.get(name, 0) for name in names), 0
        files: list[File] = []
        for name in names:
            if name not in absent:
                try:
                    files.append(
                        _shared(source, folder, f"packs/{name}", sizes[name], known, _object(source.objects, name))
                    )
                except FileNotFoundError:
                    absent.add(name)
                done += sizes[name]
                progress(done, total)
        if absent <= gone:  # not moved meanwhile: the same ones are missing after a new look
            return files, tuple(sorted(absent))
        gone = absent
    raise BackupProblem("The app rewrites its packs faster than they can be copied. Try again when it is less busy.")


def _pack_names(database: Path, keys: Keys) -> list[str]:
    copy = Database.sqlite(database, keys.database)
    try:
        with copy.read() as db:
            return [str(name) for name in db.scalars(sa.select(t.pack.c.name).where(t.pack.c.records > 0))]
    finally:
        copy.close()


def _copy_packages(source: Source, folder: Path, known: dict[str, File]) -> Iterator[File]:
    for name, size in sorted(source.packages.sizes()):
        if not name.endswith(".tmp"):  # of an earlier version, cut off
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                yield _shared(source, folder, f"packages/{name}", size, known, _object(source.packages, name))


def _copy_own(data_dir: Path, work: Path) -> Iterator[File]:
    size, digest = _hash(work / "metadata.db") or (0, "")
    yield File("metadata.db", size, digest)
    for pattern in ("keys/*.wrapped", "tls/*"):
        for path in sorted(data_dir.glob(pattern)):
            name = str(path.relative_to(data_dir))
            (work / name).parent.mkdir(exist_ok=True, mode=0o700)
            yield _copy(_pieces(path), work / name, name)


def _shared(
    source: Source, folder: Path, path: str, size: int, known: dict[str, File], content: Iterator[bytes]
) -> File:
    """The file in the backup, copied there if it is not yet."""
    target = folder / path
    if (file := known.get(path)) and file.size == size and target.is_file() and target.stat().st_size == size:
        return file
    temporary = folder / "tmp" / "file"
    file = _copy(content, temporary, path)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary.rename(target)
    _sync(target.parent)
    _sync(target.parent.parent)  # a new day's folder is a name, too
    source.copied += size
    return file


def _forget(folder: Path, keep: int) -> None:
    """All but the newest snapshots, and what only they needed."""
    names = snapshots(folder)
    for name in names[:-keep]:
        gone = folder / "tmp" / name
        (folder / "snapshots" / name).rename(gone)  # no half snapshot under its name, whenever this ends
        shutil.rmtree(gone)
    needed = {file.path for manifest in _manifests(folder) for file in manifest.shared}
    for part in _SHARED:
        for path in (folder / part).rglob("*"):
            if path.is_file() and str(path.relative_to(folder)) not in needed:
                path.unlink()


def _known(folder: Path) -> dict[str, File]:
    """The shared files of every snapshot whose manifest can be read."""
    known: dict[str, File] = {}
    for name in snapshots(folder):
        with contextlib.suppress(BackupProblem):
            manifest = Manifest.read(folder / "snapshots" / name / "manifest.json")
            known |= {file.path: file for file in manifest.shared}
    return known


def _manifests(folder: Path) -> list[Manifest]:
    return [Manifest.read(folder / "snapshots" / name / "manifest.json") for name in snapshots(folder)]


def _files(folder: Path, manifest: Manifest) -> Iterator[tuple[Path, File]]:
    """Every file of a snapshot with the folder its path begins in."""
    yield from ((folder / "snapshots" / manifest.name, file) for file in manifest.own)
    yield from ((folder, file) for file in manifest.shared)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise BackupProblem(f"Another backup into {folder} is running. Wait until it has ended.") from err
        yield
    finally:
        os.close(handle)


def _refuse_if_too_full(work: Path, needed: int) -> None:
    free = shutil.disk_usage(work).free
    if free < needed:
        work.rmdir()
        raise BackupProblem(
            f"The snapshot needs {needed / 1e9:.2f} GB and {work.parent} has {free / 1e9:.2f} GB free. "
            "Make room, or choose a --data-dir on another disk."
        )


# --- files -----------------------------------------------------------------------------------------------------------


def _object(objects: Objects, name: str) -> Iterator[bytes]:
    size = objects.size(name)
    for start in range(0, size, _PIECE):
        yield objects.read(name, start, min(_PIECE, size - start))


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _copy(content: Iterator[bytes], target: Path, path: str) -> File:
    """Written anew and synced; `path` is what the manifest calls it."""
    digest, size = hashlib.sha256(), 0
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        for piece in content:
            digest.update(piece)
            size += file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return File(path, size, digest.hexdigest())


def _hash(path: Path) -> tuple[int, str] | None:
    digest, size = hashlib.sha256(), 0
    try:
        for piece in _pieces(path):
            digest.update(piece)
            size += len(piece)
    except OSError:
        return None
    return size, digest.hexdigest()


def _sync_tree(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
