"""API keys: made, listed, renamed, rotated and deleted by owners of the organization."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from gleaner.app.caller import Caller, CallerKind, Role
from gleaner.app.database import Database
from gleaner.app.errors import InvalidInput, NotFound
from gleaner.app.services import fleet_tables as t
from gleaner.app.services.tokens import hash_secret, new_secret

_PARENT = {"organization": t.organization, "location": t.location, "robot": t.machine}


@dataclass(frozen=True)
class KeyGrant:
    role: str
    resource_type: str
    resource_id: str


@dataclass(frozen=True)
class ApiKey:
    """`key` is filled only by the call that made it: only its hash is kept."""

    id: str
    name: str
    organization_id: str
    created_ns: int
    grants: tuple[KeyGrant, ...]
    key: str = ""


class KeyService:
    def __init__(self, database: Database, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock_ns = clock_ns

    def create(self, caller: Caller, organization_id: str, name: str, grants: list[KeyGrant]) -> ApiKey:
        caller.require(organization_id, owner=True, what="the organization's keys")
        if not grants:
            raise InvalidInput(
                "a key needs a role on something", "Give it the operator role on the organization, for example."
            )
        key_id, key, now = str(uuid.uuid4()), new_secret(), self._clock_ns()
        name = name.strip() or time.strftime("key %Y-%m-%d", time.gmtime(now // 1_000_000_000))
        with self._database.write() as db:
            db.execute(
                t.api_key.insert().values(
                    id=key_id, organization_id=organization_id, name=name, hash=hash_secret(key), created_ns=now
                )
            )
            for grant in set(grants):
                db.execute(t.role_grant.insert().values(_grant_row(db, organization_id, key_id, grant)))
        return ApiKey(key_id, name, organization_id, now, tuple(grants), key)

    def listed(self, caller: Caller, organization_id: str) -> list[ApiKey]:
        caller.require(organization_id, owner=True, what="the organization's keys")
        with self._database.read() as db:
            rows = db.execute(
                sa.select(t.api_key)
                .where(t.api_key.c.organization_id == organization_id)
                .order_by(t.api_key.c.created_ns)
            ).mappings()
            return [_with_grants(db, row) for row in rows.all()]

    def delete(self, caller: Caller, key_id: str) -> None:
        self._own(caller, key_id)
        of_key = sa.and_(t.role_grant.c.identity_type == CallerKind.API_KEY.value, t.role_grant.c.identity_id == key_id)
        with self._database.write() as db:
            db.execute(t.api_key.delete().where(t.api_key.c.id == key_id))
            db.execute(t.role_grant.delete().where(of_key))

    def rename(self, caller: Caller, key_id: str, name: str) -> ApiKey:
        self._own(caller, key_id)
        with self._database.write() as db:
            db.execute(t.api_key.update().where(t.api_key.c.id == key_id).values(name=name))
        return self._own(caller, key_id)

    def rotate(self, caller: Caller, key_id: str) -> str:
        """A new key under the same id; the old one and its bearer tokens stop working at once."""
        self._own(caller, key_id)
        key = new_secret()
        with self._database.write() as db:
            db.execute(t.api_key.update().where(t.api_key.c.id == key_id).values(hash=hash_secret(key)))
        return key

    def copy(self, caller: Caller, key_id: str) -> ApiKey:
        known = self._own(caller, key_id)
        return self.create(caller, known.organization_id, f"{known.name} copy", list(known.grants))

    def _own(self, caller: Caller, key_id: str) -> ApiKey:
        with self._database.read() as db:
            row = db.execute(sa.select(t.api_key).where(t.api_key.c.id == key_id)).mappings().first()
            if row is None or row["organization_id"] not in caller.organization_ids():
                raise NotFound(f"there is no API key {key_id}", "List the organization's keys.")
            caller.require(row["organization_id"], owner=True, what="the organization's keys")
            return _with_grants(db, row)


def _with_grants(db: sa.Connection, row: sa.RowMapping) -> ApiKey:
    of_key = sa.and_(t.role_grant.c.identity_type == CallerKind.API_KEY.value, t.role_grant.c.identity_id == row["id"])
    grants = db.execute(sa.select(t.role_grant).where(of_key)).mappings()
    found = tuple(KeyGrant(g["role"], g["resource_type"], g["resource_id"]) for g in grants)
    return ApiKey(row["id"], row["name"], row["organization_id"], row["created_ns"], found)


def _grant_row(db: sa.Connection, organization_id: str, key_id: str, grant: KeyGrant) -> dict[str, str]:
    resource_type = "robot" if grant.resource_type == "machine" else grant.resource_type
    table = _PARENT.get(resource_type)
    if table is None or grant.role not in {role.value for role in Role}:
        raise InvalidInput(
            f"a key cannot have the role {grant.role!r} on a {grant.resource_type!r}",
            "Roles are owner and operator; resources are organization, location and robot.",
        )
    row = db.execute(sa.select(table).where(table.c.id == grant.resource_id)).mappings().first()
    owner = row and (row["id"] if table is t.organization else row["organization_id"])
    if row is None or owner != organization_id:
        raise NotFound(
            f"the organization has no {grant.resource_type} {grant.resource_id}", "Copy its id from its page."
        )
    return {
        "identity_type": CallerKind.API_KEY.value,
        "identity_id": key_id,
        "resource_type": resource_type,
        "resource_id": grant.resource_id,
        "role": grant.role,
        "organization_id": organization_id,
        "location_id": row["location_id"] if table is t.machine else "",
    }
