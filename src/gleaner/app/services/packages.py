"""Packages: versioned tar.gz archives (ML models above all) that machines download."""

from __future__ import annotations

import base64
import logging
import os
import tarfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database, metadata
from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.events import Event, EventBus
from gleaner.app.keys import Keys
from gleaner.app.services.fleet import FleetService
from gleaner.app.services.package_files import move_into, name_of, read_range, write_file
from gleaner.app.store.object_store import Objects
from gleaner.wire.machine_config import NAME_PATTERN

ML_MODEL, ML_TRAINING = "ml_model", "ml_training"
TYPES = ("archive", ML_MODEL, "module", "slam_map", ML_TRAINING)
_KEPT_MEMBERS = 64
_LARGEST_KEPT = 4 << 20

log = logging.getLogger("gleaner.app.packages")

package = sa.Table(
    "package",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("organization_id", sa.Text, sa.ForeignKey("organization.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("crc32c", sa.BigInteger, nullable=False),
    sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
    #: For models: model_type, labels, accuracy, suggested_threshold, job_id, dataset, compared, held; empty for what others uploaded.
    sa.Column("about", sa.JSON, nullable=False),
    sa.UniqueConstraint("organization_id", "name", "version"),
)


@dataclass(frozen=True)
class Package:
    id: str
    organization_id: str
    name: str
    version: str
    type: str
    created_ns: int
    size_bytes: int
    crc32c: int
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def compared(self) -> dict[str, Any] | None:
        """With the version before, as training's report has it; what others uploaded may say anything."""
        found = self.about.get("compared")
        counts = ("pictures", "right_before", "right_now")
        if not isinstance(found, dict) or not all(isinstance(found.get(name), int) for name in counts):
            return None
        is_known = found.get("verdict") in ("better", "alike", "worse", "unknown")
        # Reports of earlier versions count whole pictures and have no measure.
        share = {"measure": "accuracy", "before": None, "now": None}
        found = found if _is_measured(found) else found | share
        return found if is_known and isinstance(found.get("version"), str) else None

    @property
    def is_held(self) -> bool:
        """It did worse than the version before on the same pictures, and nobody has released it."""
        return self.about.get("held") is True and self.compared is not None

    @property
    def checksum(self) -> str:
        """CRC-32C as in `x-goog-hash`: base64 of the four big-endian bytes."""
        return base64.b64encode(self.crc32c.to_bytes(4, "big")).decode()

    @property
    def path(self) -> str:
        """Where it is downloaded, below the app's web address."""
        return f"/api/packages/{self.organization_id}/{self.name}/{self.version}.tar.gz"


@dataclass(frozen=True)
class NewPackage:
    organization_id: str
    name: str
    version: str
    type: str = ML_MODEL
    about: dict[str, Any] = field(default_factory=dict)


class PackageService:
    def __init__(
        self,
        database: Database,
        events: EventBus,
        fleet: FleetService,
        keys: Keys,
        objects: Objects,
        earlier: Path | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`earlier`: the folder of this process where packages lay before they were to lie in a bucket."""
        self._database = database
        self._events = events
        self._fleet = fleet
        self._keys = keys
        self.objects = objects
        self._earlier = earlier
        self._clock_ns = clock_ns
        self._members: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._members_lock = threading.Lock()

    def start(self) -> None:
        """Clears what a crash left behind. Raises StoreProblem, OSError."""
        self.objects.start()
        if self._earlier is not None:
            for name in move_into(self.objects, self._earlier):
                log.info("Moved packages/%s to %s", name, self.objects.address)

    def create(self, caller: Caller, new: NewPackage, chunks: Iterable[bytes]) -> Package:
        """Stores an uploaded archive. Raises Conflict if that version exists."""
        caller.require(new.organization_id, owner=True, what="the organization's packages")
        return self.register(new, chunks)

    def register(self, new: NewPackage, chunks: Iterable[bytes]) -> Package:
        """`create` without a caller, for the app's own training jobs. Machines that follow `latest` are told."""
        _check(new)
        if self.find(new.organization_id, new.name, new.version):
            raise Conflict(
                f"{new.name} has a version {new.version} already", "Versions never change: choose another one."
            )
        package_id, key = str(uuid.uuid4()), os.urandom(32)
        written = write_file(self.objects, name_of(package_id), key, chunks)
        row: dict[str, Any] = {
            "id": package_id,
            "organization_id": new.organization_id,
            "name": new.name,
            "version": new.version,
            "type": new.type,
            "created_ns": self._clock_ns(),
            "size_bytes": written.size_bytes,
            "crc32c": written.crc32c,
            "about": new.about,
        }
        try:
            with self._database.write() as db:
                wrapped = self._keys.wrap(key, f"package {package_id}")
                db.execute(package.insert().values(**row, wrapped_key=wrapped))
        except sa.exc.IntegrityError as error:
            self.objects.delete(name_of(package_id))
            raise Conflict(f"{new.name} has a version {new.version} already", "Choose another version.") from error
        self._changed(new.organization_id, new.name)
        return Package(**row)

    def listed(
        self, caller: Caller, organization_id: str, *, name: str = "", version: str = "", type: str = ""
    ) -> list[Package]:
        """Newest first."""
        if organization_id not in caller.organization_ids():
            raise NotFound(f"there is no organization {organization_id}", "List the organizations to see its id.")
        wanted = sa.select(package).where(package.c.organization_id == organization_id)
        for column, value in ((package.c.name, name), (package.c.version, version), (package.c.type, type)):
            if value:
                wanted = wanted.where(column == value)
        with self._database.read() as db:
            return [_value(row) for row in db.execute(wanted.order_by(package.c.created_ns.desc())).mappings()]

    def get(self, caller: Caller, organization_id: str, name: str, version: str = "latest") -> Package:
        """Raises NotFound when there is no such package or the caller is of another organization."""
        visible = organization_id in caller.organization_ids()
        found = self.find(organization_id, name, version) if visible else None
        if found is None:
            raise NotFound(f"there is no package {name} in version {version}", "List the packages of the organization.")
        return found

    def find(self, organization_id: str, name: str, version: str = "latest") -> Package | None:
        wanted = sa.select(package).where(package.c.organization_id == organization_id, package.c.name == name)
        if version not in ("", "latest"):
            wanted = wanted.where(package.c.version == version)
        with self._database.read() as db:
            found = [_value(row) for row in db.execute(wanted.order_by(package.c.created_ns.desc())).mappings()]
        # What was held back is the latest only when there is nothing else.
        return next((one for one in found if not one.is_held), found[0] if found else None)

    def release(self, caller: Caller, organization_id: str, name: str, version: str) -> Package:
        """Lets a version that was held back be the latest after all."""
        caller.require(organization_id, owner=True, what="the organization's packages")
        found = self.get(caller, organization_id, name, version)
        about = found.about | {"held": False}
        with self._database.write() as db:
            db.execute(package.update().where(package.c.id == found.id).values(about=about))
        self._changed(organization_id, name)
        return replace(found, about=about)

    def latest_version(self, organization_id: str, name: str) -> str | None:
        found = self.find(organization_id, name)
        return found.version if found else None

    def delete(self, caller: Caller, organization_id: str, name: str, version: str = "") -> int:
        """Deletes one version, or all of them; machines keep what they run. Returns how many went."""
        caller.require(organization_id, owner=True, what="the organization's packages")
        gone = package.delete().where(package.c.organization_id == organization_id, package.c.name == name)
        if version:
            gone = gone.where(package.c.version == version)
        with self._database.write() as db:
            ids = db.scalars(gone.returning(package.c.id)).all()
        if not ids:
            raise NotFound(f"there is no package {name} {version}".strip(), "List the packages of the organization.")
        for package_id in ids:
            self.objects.delete(name_of(package_id))
        self._changed(organization_id, name)
        return len(ids)

    def content(self, wanted: Package, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The archive's bytes from `start` to `end` (exclusive). The caller was checked when `wanted` was got."""
        with self._database.read() as db:
            wrapped = db.scalar(sa.select(package.c.wrapped_key).where(package.c.id == wanted.id))
        if wrapped is None:
            raise NotFound(f"{wanted.name} {wanted.version} was deleted", "Choose another version.")
        key = self._keys.unwrap(wrapped, f"package {wanted.id}")
        return read_range(self.objects, name_of(wanted.id), key, wanted.size_bytes, start, end)

    def all(self) -> list[Package]:
        """Of every organization: for the owner of the computer, not for callers."""
        with self._database.read() as db:
            return [_value(row) for row in db.execute(sa.select(package)).mappings()]

    def member(self, wanted: Package, path: str) -> bytes:
        """One file inside the archive. The most recent small ones are kept, as a report's pictures come in dozens."""
        with self._members_lock:
            if (kept := self._members.get((wanted.id, path))) is not None:
                return kept
        content = self._extract(wanted, path)
        if len(content) <= _LARGEST_KEPT:
            with self._members_lock:
                self._members[wanted.id, path] = content
                while len(self._members) > _KEPT_MEMBERS:
                    self._members.popitem(last=False)
        return content

    def _extract(self, wanted: Package, path: str) -> bytes:
        with tarfile.open(fileobj=cast(Any, _Reader(self.content(wanted))), mode="r|gz") as archive:
            for member in archive:
                if member.isfile() and member.name.removeprefix("./") == path:
                    file = archive.extractfile(member)
                    return file.read() if file else b""
        raise NotFound(
            f"{wanted.name} {wanted.version} holds no file {path}", "Download the package to see what it holds."
        )

    def _changed(self, organization_id: str, name: str) -> None:
        self._events.publish(Event("model_changed", organization_id, {"name": name}))
        for part_id in self._fleet.configs.parts_using(f"{organization_id}/{name}"):
            self._fleet.config_changed(part_id)


def _is_measured(compared: dict[str, Any]) -> bool:
    figures = (compared.get("before"), compared.get("now"))
    is_known = compared.get("measure") in ("map50", "macro_f1", "accuracy")
    return is_known and all(isinstance(one, float | int) or one is None for one in figures)


class _Reader:
    """A readable file over an iterator of bytes, as tarfile's streaming mode wants it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._pending = b""

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._pending) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._pending += chunk
        size = len(self._pending) if size < 0 else size
        head, self._pending = self._pending[:size], self._pending[size:]
        return head


def _value(row: sa.RowMapping) -> Package:
    return Package(**{key: value for key, value in row.items() if key != "wrapped_key"})


def _check(new: NewPackage) -> None:
    if not NAME_PATTERN.match(new.name) or len(new.name) > 200:
        raise InvalidInput(
            f"{new.name!r} cannot name a package", "Use letters, digits, - and _ and start with a letter or digit."
        )
    if not new.version or len(new.version) > 100 or not new.version.replace(".", "-").replace("-", "").isalnum():
        raise InvalidInput(
            f"{new.version!r} cannot be a version", "Use letters, digits, points and dashes, like 1.2.0."
        )
    if new.version == "latest":
        raise InvalidInput("a version cannot be called latest", "Machines use that word for the newest version.")
    if new.type not in TYPES:
        raise InvalidInput(f"{new.type!r} is no type of package", f"Use one of {', '.join(TYPES)}.")
