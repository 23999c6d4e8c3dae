"""Organizations' locations, machines, parts and their configurations."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from gleaner.app.http import logs
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.services.fleet_config import SavedConfig
from gleaner.app.services.fleet_setup import new_setup
from gleaner.app.services.fleet_values import Location, Machine, Part, iso

router = APIRouter(prefix="/api")


class Named(BaseModel):
    name: str


class NewMachine(BaseModel):
    name: str
    location_id: str


class MachineChange(BaseModel):
    name: str = ""
    location_id: str = ""


class ConfigChange(BaseModel):
    config: dict[str, Any]
    base_revision: str | None = None


@router.get("/organizations/{organization_id}/locations")
def list_locations(organization_id: str, context: ContextDep, caller: CallerDep) -> list[dict[str, Any]]:
    return [_location(one) for one in context.fleet.locations(caller, organization_id)]


@router.post("/organizations/{organization_id}/locations")
def create_location(organization_id: str, body: Named, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    return _location(context.fleet.create_location(caller, organization_id, body.name))


@router.patch("/organizations/{organization_id}")
def rename_organization(organization_id: str, body: Named, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    renamed = context.fleet.rename_organization(caller, organization_id, body.name)
    return {"id": renamed.id, "name": renamed.name, "role": renamed.role}


@router.patch("/locations/{location_id}")
def rename_location(location_id: str, body: Named, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    return _location(context.fleet.rename_location(caller, location_id, body.name))


@router.delete("/locations/{location_id}")
def delete_location(location_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    context.fleet.delete_location(caller, location_id)
    return {}


@router.get("/machines")
def list_machines(context: ContextDep, caller: CallerDep, organization_id: str = "") -> list[dict[str, Any]]:
    machines = context.fleet.machines(caller, organization_id)
    counts = context.fleet.recent_items([machine.id for machine in machines])
    return [_machine(machine, counts.get(machine.id, 0)) for machine in machines]


@router.post("/machines")
def create_machine(body: NewMachine, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    return _machine(context.fleet.create_machine(caller, body.name, body.location_id), 0)


@router.get("/machines/{machine_id}")
def get_machine(machine_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    machine = context.fleet.machine(caller, machine_id)
    return _machine(machine, context.fleet.recent_items([machine_id]).get(machine_id, 0))


@router.patch("/machines/{machine_id}")
def update_machine(machine_id: str, body: MachineChange, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    context.fleet.update_machine(caller, machine_id, body.name, body.location_id)
    return get_machine(machine_id, context, caller)


@router.delete("/machines/{machine_id}")
def delete_machine(machine_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    context.fleet.delete_machine(caller, machine_id)
    return {}


@router.get("/parts/{part_id}/config")
def get_config(part_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    context.fleet.part(caller, part_id)
    saved = context.fleet.configs.current(part_id)
    return {**_config(saved), "revision": context.fleet.configs.served(part_id).revision}


@router.put("/parts/{part_id}/config")
def put_config(part_id: str, body: ConfigChange, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    context.fleet.put_config(caller, part_id, body.config, body.base_revision)
    return get_config(part_id, context, caller)


@router.get("/parts/{part_id}/history")
def history(part_id: str, context: ContextDep, caller: CallerDep) -> list[dict[str, Any]]:
    context.fleet.part(caller, part_id)
    return [
        {"revision": one.revision, "when": iso(one.saved_ns), "edited_by": one.edited_by, "config": one.config}
        for one in context.fleet.configs.history(part_id)
    ]


@router.post("/parts/{part_id}/secret")
def new_secret(part_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    return new_setup(context.fleet, caller, part_id, context.addresses)


@router.get("/parts/{part_id}/status")
def status(part_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    return context.fleet.status(caller, part_id)


@router.post("/parts/{part_id}/restart")
def restart(part_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    context.fleet.request_restart(caller, part_id)
    context.links.notify(part_id, {"type": "restart"})
    return {}


@router.post("/parts/{part_id}/sync")
def sync_now(part_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    """Asks the machine to send what it holds now instead of at its next interval."""
    context.fleet.part(caller, part_id)
    context.links.notify(part_id, {"type": "sync_now"})
    return {}


@router.get("/models/catalog")
def catalog(caller: CallerDep) -> list[dict[str, Any]]:
    """The machine models: what CONFIGURE can add, and the JSON Schemas of their attributes."""
    from gleaner.wire.catalog import load_catalog

    return load_catalog()


router.include_router(logs.router)


def _location(location: Location) -> dict[str, Any]:
    return {"id": location.id, "name": location.name, "machine_count": location.machine_count}


def _machine(machine: Machine, items_48h: int) -> dict[str, Any]:
    main = machine.main
    return {
        "id": machine.id,
        "name": machine.name,
        "location": {"id": machine.location_id, "name": machine.location_name},
        "organization_id": machine.organization_id,
        "online_state": main.online_state,
        "last_seen": iso(main.last_seen_ns),
        "created_at": iso(machine.created_ns),
        "items_48h": items_48h,
        "parts": [_part(part) for part in machine.parts],
    }


def _part(part: Part) -> dict[str, Any]:
    info = {name: part.info.get(name, "") for name in ("version", "host", "os", "platform")}
    return {
        "id": part.id,
        "name": part.name,
        "main": part.is_main,
        "online_state": part.online_state,
        "last_seen": iso(part.last_seen_ns),
        "info": {**info, "ips": part.info.get("ips", [])},
    }


def _config(saved: SavedConfig) -> dict[str, Any]:
    return {"config": saved.config, "revision": saved.revision, "updated_at": iso(saved.saved_ns)}
