"""Organizations and their locations."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.services import fleet_tables as t
from gleaner.app.services.fleet_values import Location, Organization


class PlaceService:
    """The part of `FleetService` that knows no machine."""

    def __init__(self, database: Database, clock_ns: Callable[[], int]) -> None:
        self._database = database
        self._clock_ns = clock_ns

    def organizations(self, caller: Caller) -> list[Organization]:
        with self._database.read() as db:
            rows = db.execute(sa.select(t.organization).where(t.organization.c.id.in_(caller.organization_ids())))
            return [Organization(r["id"], r["name"], _role(caller, r["id"]), r["created_ns"]) for r in rows.mappings()]

    def organization(self, caller: Caller, organization_id: str) -> Organization:
        found = [o for o in self.organizations(caller) if o.id == organization_id]
        if not found:
            raise NotFound(f"there is no organization {organization_id}", "List the organizations to see its id.")
        return found[0]

    def rename_organization(self, caller: Caller, organization_id: str, name: str) -> Organization:
        caller.require(organization_id, owner=True, what="the organization")
        with self._database.write() as db:
            db.execute(
                t.organization.update().where(t.organization.c.id == organization_id).values(name=checked_name(name))
            )
        return self.organization(caller, organization_id)

    def locations(self, caller: Caller, organization_id: str) -> list[Location]:
        self.organization(caller, organization_id)
        count = sa.select(sa.func.count()).where(t.machine.c.location_id == t.location.c.id).scalar_subquery()
        wanted = sa.select(t.location, count.label("machines")).where(t.location.c.organization_id == organization_id)
        with self._database.read() as db:
            rows = db.execute(wanted.order_by(t.location.c.created_ns)).mappings().all()
        seen = [Location(r["id"], r["name"], organization_id, r["machines"], r["created_ns"]) for r in rows]
        inside = {grant.location_id for grant in caller.grants} | {caller.location_id}
        return [one for one in seen if caller.role_on(organization_id, one.id) or one.id in inside]

    def location(self, caller: Caller, location_id: str) -> Location:
        with self._database.read() as db:
            wanted = sa.select(t.location.c.organization_id).where(t.location.c.id == location_id)
            organization_id = db.scalar(wanted)
        if organization_id in caller.organization_ids():
            for found in self.locations(caller, organization_id):
                if found.id == location_id:
                    return found
        raise NotFound(f"there is no location {location_id}", "List the organization's locations to see its id.")

    def create_location(self, caller: Caller, organization_id: str, name: str) -> Location:
        caller.require(organization_id, owner=True, what="the organization's locations")
        row = {"id": str(uuid.uuid4()), "organization_id": organization_id, "name": checked_name(name)}
        with self._database.write() as db:
            db.execute(t.location.insert().values(**row, created_ns=self._clock_ns()))
        return self.location(caller, row["id"])

    def rename_location(self, caller: Caller, location_id: str, name: str) -> Location:
        known = self.location(caller, location_id)
        caller.require(known.organization_id, location_id, owner=True, what=f"the location {known.name}")
        with self._database.write() as db:
            db.execute(t.location.update().where(t.location.c.id == location_id).values(name=checked_name(name)))
        return self.location(caller, location_id)

    def delete_location(self, caller: Caller, location_id: str) -> None:
        known = self.location(caller, location_id)
        caller.require(known.organization_id, owner=True, what=f"the location {known.name}")
        if known.machine_count:
            raise Conflict(
                f"{known.name} still has {known.machine_count} machines", "Move or delete its machines first."
            )
        with self._database.write() as db:
            db.execute(t.location.delete().where(t.location.c.id == location_id))


def checked_name(name: str) -> str:
    """The name without spaces around it. Raises InvalidInput."""
    name = name.strip()
    if not 1 <= len(name) <= 100:
        raise InvalidInput("a name has 1 to 100 characters", "Type a short name.")
    return name


def _role(caller: Caller, organization_id: str) -> str:
    role = caller.role_on(organization_id)
    return role.value if role else ""
