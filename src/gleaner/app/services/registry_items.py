"""Models and training scripts as registry items: what is said about one beside its versions, which are packages.

An item is there once somebody has made it or once it has a version; `registry_item` holds only what was said about it. Everything
is of its organization alone: there is no public registry here that it could be shown in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database, metadata
from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.services.packages import ML_MODEL, ML_TRAINING, Package, PackageService
from gleaner.wire.machine_config import NAME_PATTERN

TYPES = (ML_MODEL, ML_TRAINING)
LONGEST_DESCRIPTION = 10_000
LONGEST_URL = 2_000

registry_item = sa.Table(
    "registry_item",
    metadata,
    sa.Column("organization_id", sa.Text, sa.ForeignKey("organization.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.Column("updated_ns", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True)
class RegistryItem:
    organization_id: str
    name: str
    type: str
    description: str
    url: str
    created_ns: int
    updated_ns: int
    versions: tuple[Package, ...] = ()
    """Newest first."""


class RegistryItems:
    def __init__(
        self, database: Database, packages: PackageService, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._database = database
        self._packages = packages
        self._clock_ns = clock_ns

    def create(self, caller: Caller, organization_id: str, name: str, type_: str) -> RegistryItem:
        """Without a version yet. Raises InvalidInput, Conflict when the name is taken."""
        caller.require(organization_id, owner=True, what="the organization's registry items")
        _check_type(type_)
        if not NAME_PATTERN.match(name) or len(name) > 200:
            raise InvalidInput(
                f"{name!r} cannot name a registry item",
                "Use letters, digits, - and _ and start with a letter or digit.",
            )
        if self._find(caller, organization_id, name) is not None:
            raise Conflict(f"there is a registry item {name} already", "Choose another name, or update that one.")
        now_ns = self._clock_ns()
        made = RegistryItem(organization_id, name, type_, "", "", now_ns, now_ns)
        self._save(made)
        return made

    def update(
        self, caller: Caller, organization_id: str, name: str, type_: str, description: str, url: str | None
    ) -> RegistryItem:
        """What is said about it; `url` None leaves that as it is. Raises NotFound, InvalidInput for another type."""
        caller.require(organization_id, owner=True, what="the organization's registry items")
        found = self.get(caller, organization_id, name)
        if type_ != found.type:
            raise InvalidInput(f"{name} is of the type {found.type}, which does not change", "Send its own type.")
        if len(description) > LONGEST_DESCRIPTION:
            raise InvalidInput(f"a description has at most {LONGEST_DESCRIPTION:,} characters", "Shorten it.")
        if url is not None and (len(url) > LONGEST_URL or (url and not url.startswith(("http://", "https://")))):
            raise InvalidInput(f"{url[:100]!r} is no web address", "It begins with https:// or http://.")
        now_ns = self._clock_ns()
        kept = found.url if url is None else url
        changed = RegistryItem(
            organization_id, name, type_, description, kept, found.created_ns, now_ns, found.versions
        )
        self._save(changed)
        return changed

    def get(self, caller: Caller, organization_id: str, name: str) -> RegistryItem:
        """Raises NotFound."""
        found = self._find(caller, organization_id, name)
        if found is None:
            raise NotFound(
                f"there is no model or training script {name}", "List the registry items of the organization."
            )
        return found

    def listed(self, caller: Caller, organization_id: str) -> list[RegistryItem]:
        """The ones whose newest version, or who themselves, are youngest first."""
        versions: dict[str, list[Package]] = {}
        for package in self._packages.listed(caller, organization_id):
            if package.type in TYPES:
                versions.setdefault(package.name, []).append(package)
        table = registry_item.c
        with self._database.read() as db:
            rows = db.execute(sa.select(registry_item).where(table.organization_id == organization_id)).mappings()
            said = {str(row["name"]): row for row in rows}
        found = [_item(organization_id, name, versions.get(name, []), said.get(name)) for name in {*versions, *said}]
        return sorted(found, key=lambda one: (-one.updated_ns, one.name))

    def delete(self, caller: Caller, organization_id: str, name: str) -> None:
        """With all versions. Machines keep what they run, and models what scripts made. Raises NotFound."""
        found = self.get(caller, organization_id, name)
        caller.require(organization_id, owner=True, what="the organization's registry items")
        if found.versions:
            self._packages.delete(caller, organization_id, name)
        with self._database.write() as db:
            db.execute(registry_item.delete().where(*_is(organization_id, name)))

    def _find(self, caller: Caller, organization_id: str, name: str) -> RegistryItem | None:
        versions = [one for one in self._packages.listed(caller, organization_id, name=name) if one.type in TYPES]
        with self._database.read() as db:
            said = db.execute(sa.select(registry_item).where(*_is(organization_id, name))).mappings().first()
        return _item(organization_id, name, versions, said) if versions or said else None

    def _save(self, item: RegistryItem) -> None:
        values = {
            "type": item.type,
            "description": item.description,
            "url": item.url,
            "created_ns": item.created_ns,
            "updated_ns": item.updated_ns,
        }
        with self._database.write() as db:
            changed = db.execute(registry_item.update().where(*_is(item.organization_id, item.name)).values(values))
            if not changed.rowcount:
                db.execute(
                    registry_item.insert().values(organization_id=item.organization_id, name=item.name, **values)
                )


def _item(organization_id: str, name: str, versions: list[Package], said: sa.RowMapping | None) -> RegistryItem:
    """`versions` newest first."""
    same = tuple(one for one in versions if one.type == versions[0].type)
    if said is None:
        newest, oldest = same[0], same[-1]
        return RegistryItem(organization_id, name, newest.type, "", "", oldest.created_ns, newest.created_ns, same)
    return RegistryItem(
        organization_id,
        name,
        same[0].type if same else said["type"],
        said["description"],
        said["url"],
        min([said["created_ns"], *(one.created_ns for one in same)]),
        max([said["updated_ns"], *(one.created_ns for one in same)]),
        same,
    )


def _is(organization_id: str, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return registry_item.c.organization_id == organization_id, registry_item.c.name == name


def _check_type(type_: str) -> None:
    if type_ not in TYPES:
        raise InvalidInput(
            f"registry items of the type {type_ or '(none)'} are not kept here",
            "Models and training scripts are; a module is named in the machine's configuration.",
        )
