"""Organizations' locations, machines, parts and their configurations."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from gleaner.app.http import logs
from gleaner.app.http.answers import Done
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.models_fleet import (
    CatalogModel,
    ConfigChange,
    ConfigRevisionModel,
    LocationModel,
    MachineChange,
    MachineModel,
    NewMachine,
    NewName,
    PartConfigModel,
    PartStatusModel,
    SetupFileModel,
)
from gleaner.app.http.models_people import OrganizationModel
from gleaner.app.services.fleet_setup import new_setup

router = APIRouter(prefix="/api")


@router.get("/organizations/{organization_id}/locations")
def list_locations(organization_id: str, context: ContextDep, caller: CallerDep) -> list[LocationModel]:
    return [LocationModel.of(one) for one in context.fleet.locations(caller, organization_id)]


@router.post("/organizations/{organization_id}/locations")
def create_location(organization_id: str, body: NewName, context: ContextDep, caller: CallerDep) -> LocationModel:
    return LocationModel.of(context.fleet.create_location(caller, organization_id, body.name))


@router.patch("/organizations/{organization_id}")
def rename_organization(
    organization_id: str, body: NewName, context: ContextDep, caller: CallerDep
) -> OrganizationModel:
    return OrganizationModel.of(context.fleet.rename_organization(caller, organization_id, body.name))


@router.patch("/locations/{location_id}")
def rename_location(location_id: str, body: NewName, context: ContextDep, caller: CallerDep) -> LocationModel:
    return LocationModel.of(context.fleet.rename_location(caller, location_id, body.name))


@router.delete("/locations/{location_id}")
def delete_location(location_id: str, context: ContextDep, caller: CallerDep) -> Done:
    context.fleet.delete_location(caller, location_id)
    return Done()


@router.get("/machines")
def list_machines(context: ContextDep, caller: CallerDep, organization_id: str = "") -> list[MachineModel]:
    machines = context.fleet.machines(caller, organization_id)
    counts = context.fleet.recent_items([machine.id for machine in machines])
    return [MachineModel.of(machine, counts.get(machine.id, 0)) for machine in machines]


@router.post("/machines")
def create_machine(body: NewMachine, context: ContextDep, caller: CallerDep) -> MachineModel:
    return MachineModel.of(context.fleet.create_machine(caller, body.name, body.location_id), 0)


@router.get("/machines/{machine_id}")
def get_machine(machine_id: str, context: ContextDep, caller: CallerDep) -> MachineModel:
    machine = context.fleet.machine(caller, machine_id)
    return MachineModel.of(machine, context.fleet.recent_items([machine_id]).get(machine_id, 0))


@router.patch("/machines/{machine_id}")
def update_machine(machine_id: str, body: MachineChange, context: ContextDep, caller: CallerDep) -> MachineModel:
    context.fleet.update_machine(caller, machine_id, body.name, body.location_id)
    return get_machine(machine_id, context, caller)


@router.delete("/machines/{machine_id}")
def delete_machine(machine_id: str, context: ContextDep, caller: CallerDep) -> Done:
    context.fleet.delete_machine(caller, machine_id)
    return Done()


@router.get("/parts/{part_id}/config")
def get_config(part_id: str, context: ContextDep, caller: CallerDep) -> PartConfigModel:
    context.fleet.part(caller, part_id)
    configs = context.fleet.configs
    return PartConfigModel.of(configs.current(part_id), configs.served(part_id).revision)


@router.put("/parts/{part_id}/config")
def put_config(part_id: str, body: ConfigChange, context: ContextDep, caller: CallerDep) -> PartConfigModel:
    context.fleet.put_config(caller, part_id, body.config, body.base_revision)
    return get_config(part_id, context, caller)


@router.get("/parts/{part_id}/history")
def history(part_id: str, context: ContextDep, caller: CallerDep) -> list[ConfigRevisionModel]:
    context.fleet.part(caller, part_id)
    return [ConfigRevisionModel.of(one) for one in context.fleet.configs.history(part_id)]


@router.post("/parts/{part_id}/secret")
def new_secret(part_id: str, context: ContextDep, caller: CallerDep) -> SetupFileModel:
    made = new_setup(context.fleet, context.install, caller, part_id, context.addresses, context.package_signer.public)
    return SetupFileModel.model_validate(made)


@router.get("/parts/{part_id}/status", response_model=None, responses={200: {"model": PartStatusModel}})
def status(part_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    """What the machine says is passed on unchecked: a word that a newer machine knows must not hide the rest."""
    return context.fleet.status(caller, part_id)


@router.post("/parts/{part_id}/restart")
def restart(part_id: str, context: ContextDep, caller: CallerDep) -> Done:
    context.fleet.request_restart(caller, part_id)
    context.links.notify(part_id, {"type": "restart"})
    return Done()


@router.post("/parts/{part_id}/sync")
def sync_now(part_id: str, context: ContextDep, caller: CallerDep) -> Done:
    """Asks the machine to send what it holds now instead of at its next interval."""
    context.fleet.part(caller, part_id)
    context.links.notify(part_id, {"type": "sync_now"})
    return Done()


@router.get("/models/catalog")
def catalog(caller: CallerDep) -> list[CatalogModel]:
    """The machine models: what CONFIGURE can add, and the JSON Schemas of their attributes."""
    from gleaner.wire.catalog import load_catalog

    return [CatalogModel.model_validate(model) for model in load_catalog()]


router.include_router(logs.router)
