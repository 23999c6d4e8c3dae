"""After a rebuild without the old metadata: the places named by the recovered records, so that somebody can see them.

Organizations, locations, machines and parts come back with their ids and last known names. Machine configurations, users,
keys and part secrets were in the lost metadata: machines need a new secret and their configuration again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from gleaner.app.services import fleet_tables as fleet
from gleaner.app.store import tables as t


def restore_places(db: sa.Connection, now_ns: int) -> list[str]:
    """Adds what the fleet does not know yet; the answer names organizations that were added."""
    places = db.execute(sa.select(t.origin).order_by(t.origin.c.id.desc())).mappings().all()
    new: list[str] = []
    for one in places:
        base = {"created_ns": now_ns}
        organization = {"organization_id": one["organization_id"]}
        if _add(db, fleet.organization, one["organization_id"], {"name": "Recovered organization", **base}):
            new.append(one["organization_id"])
        if one["location_id"]:
            _add(db, fleet.location, one["location_id"], {"name": one["location_name"], **organization, **base})
        if one["machine_id"]:
            name = _free_machine_name(db, one["location_id"], one["machine_name"], one["machine_id"])
            values = {"name": name, "location_id": one["location_id"], **organization, **base}
            _add(db, fleet.machine, one["machine_id"], values)
        if one["part_id"]:
            values = {"machine_id": one["machine_id"], "name": one["part_name"], "is_main": True, "info": {}, **base}
            _add(db, fleet.part, one["part_id"], values)
    return new


def give_to_first_owner(db: sa.Connection, organization_ids: list[str], made_for_start: frozenset[str]) -> None:
    """Makes the first user the owner of recovered organizations, in place of the empty one a first start makes."""
    user_id = db.scalar(sa.select(fleet.user.c.id).order_by(fleet.user.c.created_ns).limit(1))
    for organization_id in organization_ids:
        db.execute(
            fleet.role_grant.insert().values(
                identity_type="user",
                identity_id=user_id,
                resource_type="organization",
                resource_id=organization_id,
                role="owner",
                organization_id=organization_id,
            )
        )
    if organization_ids and made_for_start:
        db.execute(fleet.role_grant.delete().where(fleet.role_grant.c.organization_id.in_(made_for_start)))
        db.execute(fleet.organization.delete().where(fleet.organization.c.id.in_(made_for_start)))


def _add(db: sa.Connection, table: sa.Table, id_: str, values: dict[str, Any]) -> bool:
    if db.scalar(sa.select(table.c.id).where(table.c.id == id_)) is not None:
        return False
    db.execute(table.insert().values(id=id_, **values))
    return True


def _free_machine_name(db: sa.Connection, location_id: str, name: str, machine_id: str) -> str:
    """Two machines of one location may have had the same name one after the other."""
    machine = fleet.machine.c
    taken = sa.select(machine.id).where(machine.location_id == location_id, machine.name == name)
    holder = db.scalar(taken)
    return name if holder in (None, machine_id) else f"{name} {machine_id[:8]}"
