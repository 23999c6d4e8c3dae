"""Machines and their parts: who may see and change them, and where each stands. Places are `fleet_places.py`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from gleaner.app.caller import Caller, CallerKind
from gleaner.app.database import Database
from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.events import Event, EventBus
from gleaner.app.services import fleet_tables as t
from gleaner.app.services.fleet_config import ConfigStore
from gleaner.app.services.fleet_places import PlaceService, checked_name
from gleaner.app.services.fleet_presence import Presence
from gleaner.app.services.fleet_values import Machine, Part, Place, host_info, iso
from gleaner.app.services.tokens import hash_secret, new_secret

MOST_SECRETS = 2
_PLACE = (
    sa.select(
        t.part.c.id,
        t.part.c.name,
        t.machine.c.id,
        t.machine.c.name,
        t.location.c.id,
        t.location.c.name,
        t.machine.c.organization_id,
    )
    .join(t.machine, t.machine.c.id == t.part.c.machine_id)
    .join(t.location, t.location.c.id == t.machine.c.location_id)
)


class FleetService(PlaceService):
    """`presence` and `configs` may be used directly by code that has already checked its caller."""

    def __init__(self, database: Database, events: EventBus, clock_ns: Callable[[], int] = time.time_ns) -> None:
        super().__init__(database, clock_ns)
        self._events = events
        self.presence = Presence(database, clock_ns)
        self.configs = ConfigStore(database, clock_ns)
        self.config_listeners: list[Callable[[str, str], None]] = []
        """Called with (part id, served revision) after a configuration changed; must not block."""

    # Machines

    def machines(
        self, caller: Caller, organization_id: str = "", location_ids: list[str] | None = None
    ) -> list[Machine]:
        """The machines that the caller may see, by name."""
        organizations = caller.organization_ids() & {organization_id} if organization_id else caller.organization_ids()
        wanted: sa.ColumnElement[bool] = t.machine.c.organization_id.in_(organizations)
        if location_ids is not None:
            wanted &= t.machine.c.location_id.in_(location_ids)
        return self._machines(caller, wanted)

    def machine(self, caller: Caller, machine_id: str) -> Machine:
        found = self._machines(caller, t.machine.c.id == machine_id)
        if not found:
            raise NotFound(f"there is no machine {machine_id}", "List the machines to see its id.")
        return found[0]

    def create_machine(self, caller: Caller, name: str, location_id: str) -> Machine:
        """A machine with its main part and an empty configuration."""
        place = self.location(caller, location_id)
        caller.require(place.organization_id, location_id, owner=True, what=f"the location {place.name}")
        machine_id, part_id, now, name = str(uuid.uuid4()), str(uuid.uuid4()), self._clock_ns(), checked_name(name)
        with self._database.write() as db:
            self._require_free(db, location_id, name)
            db.execute(
                t.machine.insert().values(
                    id=machine_id,
                    organization_id=place.organization_id,
                    location_id=location_id,
                    name=name,
                    created_ns=now,
                )
            )
            _insert_part(db, part_id, machine_id, f"{name}-main", is_main=True, now=now)
        self._machine_changed(place.organization_id, machine_id)
        return self.machine(caller, machine_id)

    def update_machine(self, caller: Caller, machine_id: str, name: str = "", location_id: str = "") -> Machine:
        known = self._owned_machine(caller, machine_id)
        if location_id and location_id != known.location_id:
            target = self.location(caller, location_id)
            caller.require(target.organization_id, location_id, owner=True, what=f"the location {target.name}")
            if target.organization_id != known.organization_id:
                raise InvalidInput("a machine cannot move to another organization", "Make a new machine there.")
        values = {"name": checked_name(name or known.name), "location_id": location_id or known.location_id}
        with self._database.write() as db:
            if (values["name"], values["location_id"]) != (known.name, known.location_id):
                self._require_free(db, values["location_id"], values["name"])
            db.execute(t.machine.update().where(t.machine.c.id == machine_id).values(**values))
        self._machine_changed(known.organization_id, machine_id)
        return self.machine(caller, machine_id)

    def delete_machine(self, caller: Caller, machine_id: str) -> None:
        """Its parts, secrets and configurations go with it; what it captured stays."""
        known = self._owned_machine(caller, machine_id)
        with self._database.write() as db:
            db.execute(t.machine.delete().where(t.machine.c.id == machine_id))
        for part in known.parts:
            self.presence.forget(part.id)
        self._machine_changed(known.organization_id, machine_id)

    # Parts

    def part(self, caller: Caller, part_id: str, *, owner: bool = False) -> Part:
        """Raises NotFound unless the caller may see the part; PermissionDenied if `owner` and it may not change it."""
        place = self.place(part_id)
        if place is None or not _may_see(caller, place):
            raise NotFound(f"there is no machine part {part_id}", "Copy the part's id from the machine's CONNECT tab.")
        if owner:
            caller.require(
                place.organization_id,
                place.location_id,
                place.machine_id,
                owner=True,
                what=f"the machine {place.machine_name}",
            )
        return next(part for part in self._machine_at(place).parts if part.id == part_id)

    def place(self, part_id: str) -> Place | None:
        """Where a part stands in the fleet, for code that has checked its caller; None if there is no such part."""
        with self._database.read() as db:
            row = db.execute(_PLACE.where(t.part.c.id == part_id)).first()
        return Place(*row) if row else None

    def create_part(self, caller: Caller, machine_id: str, name: str) -> Part:
        self._owned_machine(caller, machine_id)
        part_id = str(uuid.uuid4())
        with self._database.write() as db:
            _insert_part(db, part_id, machine_id, checked_name(name), is_main=False, now=self._clock_ns())
        return self.part(caller, part_id)

    def rename_part(self, caller: Caller, part_id: str, name: str) -> Part:
        self.part(caller, part_id, owner=True)
        with self._database.write() as db:
            db.execute(t.part.update().where(t.part.c.id == part_id).values(name=checked_name(name)))
        return self.part(caller, part_id)

    def delete_part(self, caller: Caller, part_id: str) -> None:
        if self.part(caller, part_id, owner=True).is_main:
            raise InvalidInput(
                "a machine's main part cannot be deleted", "Delete the machine, or make another part main."
            )
        with self._database.write() as db:
            db.execute(t.part.delete().where(t.part.c.id == part_id))
        self.presence.forget(part_id)

    def mark_main(self, caller: Caller, part_id: str) -> None:
        known = self.part(caller, part_id, owner=True)
        with self._database.write() as db:
            of_machine = t.part.c.machine_id == known.machine_id
            db.execute(t.part.update().where(of_machine).values(is_main=t.part.c.id == part_id))

    def new_secret(self, caller: Caller, part_id: str) -> str:
        """A new secret for a part, shown this once. The part keeps the newest two, so that a swap has no gap."""
        self.part(caller, part_id, owner=True)
        secret = new_secret()
        with self._database.write() as db:
            mine = t.part_secret.c.part_id == part_id
            # Later than every other also when the clock was set back: the order decides which ones stay.
            last_ns = db.scalar(sa.select(sa.func.max(t.part_secret.c.created_ns)).where(mine)) or 0
            row = {
                "id": str(uuid.uuid4()),
                "part_id": part_id,
                "hash": hash_secret(secret),
                "created_ns": max(self._clock_ns(), last_ns + 1),
            }
            db.execute(t.part_secret.insert().values(**row))
            newest = sa.select(t.part_secret.c.id).where(mine)
            kept = newest.order_by(t.part_secret.c.created_ns.desc()).limit(MOST_SECRETS)
            db.execute(
                t.part_secret.delete().where(t.part_secret.c.part_id == part_id, t.part_secret.c.id.not_in(kept))
            )
        return secret

    def secrets(self, part_id: str) -> list[tuple[str, int]]:
        """(id, made at) of the part's secrets, newest first; what they are is not kept."""
        mine = sa.select(t.part_secret.c.id, t.part_secret.c.created_ns).where(t.part_secret.c.part_id == part_id)
        with self._database.read() as db:
            return list(db.execute(mine.order_by(t.part_secret.c.created_ns.desc())).all())

    def delete_secret(self, caller: Caller, part_id: str, secret_id: str) -> None:
        self.part(caller, part_id, owner=True)
        with self._database.write() as db:
            db.execute(
                t.part_secret.delete().where(t.part_secret.c.part_id == part_id, t.part_secret.c.id == secret_id)
            )

    def request_restart(self, caller: Caller, part_id: str) -> None:
        self.part(caller, part_id, owner=True)
        with self._database.write() as db:
            db.execute(t.part.update().where(t.part.c.id == part_id).values(restart_requested=True))

    def take_restart(self, part_id: str) -> bool:
        """Whether the part should restart; asking clears the wish. Cheap when there is none: machines ask every 5 s."""
        mine = t.part.c.id == part_id
        with self._database.read() as db:
            if not db.scalar(sa.select(t.part.c.restart_requested).where(mine)):
                return False
        with self._database.write() as db:
            db.execute(t.part.update().where(mine).values(restart_requested=False))
        return True

    # Presence and status

    def heard_from(self, part_id: str, info: dict[str, Any] | None = None) -> None:
        """A part polled, logged or spoke on its link."""
        if self.presence.seen(part_id, info):
            self.publish_status(part_id)

    def reported(self, part_id: str, status: dict[str, Any]) -> None:
        changed = self.presence.now(part_id).status != status
        self.presence.reported(part_id, status)
        self.heard_from(part_id)
        if changed:
            self.publish_status(part_id)

    def status(self, caller: Caller, part_id: str) -> dict[str, Any]:
        self.part(caller, part_id)
        return self._status(part_id)

    def publish_status(self, part_id: str) -> None:
        place = self.place(part_id)
        if place is not None:
            data = {"part_id": part_id, **self._status(part_id)}
            self._events.publish(Event("part_status", place.organization_id, data))

    def _status(self, part_id: str) -> dict[str, Any]:
        with self._database.read() as db:
            saved, info = db.execute(
                sa.select(t.part.c.last_seen_ns, t.part.c.info).where(t.part.c.id == part_id)
            ).one()
        now = self.presence.now(part_id)
        reported = now.status
        return {
            "online_state": self.presence.online_state(part_id, saved),
            "last_seen": iso(now.last_seen_ns or saved),
            "info": host_info(now.info or info),
            "config_revision": self.configs.served(part_id).revision,
            "running_revision": reported.get("revision") or "",
            "resources": reported.get("resources") or [],
            "packages": reported.get("packages") or [],
            "elsewhere": reported.get("elsewhere") or [],
            "capture": reported.get("capture") or None,
        }

    def recent_items(self, machine_ids: list[str]) -> dict[str, int]:
        """Pictures and files that arrived in the last 48 hours, by machine; the machines were checked by the caller."""
        from gleaner.app.store.tables import item, origin

        since = self._clock_ns() - 48 * 3600 * 1_000_000_000
        recent = (
            sa.select(origin.c.machine_id, sa.func.count())
            .join(item, item.c.origin_id == origin.c.id)
            .where(origin.c.machine_id.in_(machine_ids), item.c.captured_ns >= since, item.c.deleted_ns.is_(None))
        )
        with self._database.read() as db:
            return dict(db.execute(recent.group_by(origin.c.machine_id)).all())

    # Configuration

    def put_config(self, caller: Caller, part_id: str, config: dict[str, Any], base_revision: str | None) -> str:
        """Saves a configuration and returns its revision.

        Raises Conflict if `base_revision` is given and someone saved another in between, ConfigRejected with every
        problem found.
        """
        self.part(caller, part_id, owner=True)
        revision = self.configs.save(part_id, config, base_revision, caller.name or caller.id)
        self.config_changed(part_id)
        return revision

    def config_changed(self, part_id: str) -> None:
        place, revision = self.place(part_id), self.configs.served(part_id).revision
        if place is not None:
            data = {"part_id": part_id, "revision": revision}
            self._events.publish(Event("config_changed", place.organization_id, data))
        for listener in self.config_listeners:
            listener(part_id, revision)

    # Parts of the above

    def _machines(self, caller: Caller, wanted: sa.ColumnElement[bool]) -> list[Machine]:
        columns = (t.machine, t.location.c.name.label("location_name"))
        query = sa.select(*columns).join(t.location, t.location.c.id == t.machine.c.location_id).where(wanted)
        with self._database.read() as db:
            rows = [
                row
                for row in db.execute(query.order_by(t.machine.c.name)).mappings()
                if caller.role_on(row["organization_id"], row["location_id"], row["id"])
                or caller.machine_id == row["id"]
            ]
            ids = [row["id"] for row in rows]
            parts = db.execute(
                sa.select(t.part)
                .where(t.part.c.machine_id.in_(ids))
                .order_by(t.part.c.is_main.desc(), t.part.c.created_ns)
            ).mappings()
            of_machine: dict[str, list[Part]] = {machine_id: [] for machine_id in ids}
            for part in parts:
                of_machine[part["machine_id"]].append(self._part_now(part))
        return [Machine.from_row(row, of_machine[row["id"]]) for row in rows]

    def _machine_at(self, place: Place) -> Machine:
        insider = Caller(CallerKind.PART, place.part_id, machine_id=place.machine_id)
        return self._machines(insider, t.machine.c.id == place.machine_id)[0]

    def _part_now(self, row: sa.RowMapping) -> Part:
        now = self.presence.now(row["id"])
        return Part(
            id=row["id"],
            machine_id=row["machine_id"],
            name=row["name"],
            is_main=row["is_main"],
            online_state=self.presence.online_state(row["id"], row["last_seen_ns"]),
            last_seen_ns=now.last_seen_ns or row["last_seen_ns"],
            info=now.info or row["info"],
            created_ns=row["created_ns"],
        )

    def _owned_machine(self, caller: Caller, machine_id: str) -> Machine:
        known = self.machine(caller, machine_id)
        what = f"the machine {known.name}"
        caller.require(known.organization_id, known.location_id, machine_id, owner=True, what=what)
        return known

    def _require_free(self, db: sa.Connection, location_id: str, name: str) -> None:
        taken = sa.select(t.machine.c.id).where(t.machine.c.location_id == location_id, t.machine.c.name == name)
        if db.scalar(taken):
            raise Conflict(f"there is a machine named {name!r} in this location already", "Choose another name.")

    def _machine_changed(self, organization_id: str, machine_id: str) -> None:
        self._events.publish(Event("machine_changed", organization_id, {"machine_id": machine_id}))


def _may_see(caller: Caller, place: Place) -> bool:
    if caller.part_id == place.part_id or caller.machine_id == place.machine_id:
        return True
    return caller.role_on(place.organization_id, place.location_id, place.machine_id) is not None


def _insert_part(db: sa.Connection, part_id: str, machine_id: str, name: str, *, is_main: bool, now: int) -> None:
    values = {"id": part_id, "machine_id": machine_id, "name": name, "is_main": is_main, "created_ns": now, "info": {}}
    db.execute(t.part.insert().values(**values))
