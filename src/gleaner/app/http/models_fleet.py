"""Machines, their parts and what they say as they cross HTTP; the web pages' types are generated from these.

Answers list every field, always: null says "not known". Requests refuse a field they do not know.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from gleaner.app.http.answers import Answer
from gleaner.app.http.item_models import Body, Named
from gleaner.app.services.fleet_config import SavedConfig
from gleaner.app.services.fleet_values import Location, Machine, Part, host_info, iso
from gleaner.wire.link import ElsewhereState, PackageState, ResourceState

OnlineState = Literal["online", "offline", "awaiting_setup"]


# Places and machines


class NewName(Body):
    name: str


class NewMachine(Body):
    name: str
    location_id: str


class MachineChange(Body):
    """What is empty stays as it is."""

    name: str = ""
    location_id: str = ""


class LocationModel(Answer):
    id: str
    name: str
    machine_count: int

    @classmethod
    def of(cls, one: Location) -> LocationModel:
        return cls(id=one.id, name=one.name, machine_count=one.machine_count)


class PartInfo(Answer):
    """The computer that a part runs on; empty until it was heard from."""

    version: str
    host: str
    os: str
    platform: str
    ips: list[str]
    port: int = Field(default=0, description="Of its robot API; 0 if it has not said.")


class PartModel(Answer):
    id: str
    name: str
    main: bool
    online_state: OnlineState
    last_seen: str | None
    info: PartInfo

    @classmethod
    def of(cls, part: Part) -> PartModel:
        return cls.model_validate(
            {
                "id": part.id,
                "name": part.name,
                "main": part.is_main,
                "online_state": part.online_state,
                "last_seen": iso(part.last_seen_ns),
                "info": host_info(part.info),
            }
        )


class MachineModel(Answer):
    id: str
    name: str
    location: Named
    organization_id: str
    online_state: OnlineState
    last_seen: str | None
    created_at: str
    items_48h: int
    parts: list[PartModel]

    @classmethod
    def of(cls, machine: Machine, items_48h: int) -> MachineModel:
        parts = {part.id: PartModel.of(part) for part in machine.parts}
        main = parts[machine.main.id]
        return cls(
            id=machine.id,
            name=machine.name,
            location=Named(id=machine.location_id, name=machine.location_name),
            organization_id=machine.organization_id,
            online_state=main.online_state,
            last_seen=main.last_seen,
            created_at=iso(machine.created_ns) or "",
            items_48h=items_48h,
            parts=list(parts.values()),
        )


# A part's configuration and setup


class ConfigChange(Body):
    config: dict[str, Any]
    base_revision: str | None = Field(default=None, description="409 if the configuration has changed since.")


class PartConfigModel(Answer):
    config: dict[str, Any] = Field(description="Viam's machine configuration, as it was saved.")
    revision: str
    updated_at: str | None

    @classmethod
    def of(cls, saved: SavedConfig, served_revision: str) -> PartConfigModel:
        return cls(config=saved.config, revision=served_revision, updated_at=iso(saved.saved_ns))


class ConfigRevisionModel(Answer):
    revision: str
    when: str
    edited_by: str
    config: dict[str, Any]

    @classmethod
    def of(cls, saved: SavedConfig) -> ConfigRevisionModel:
        when = iso(saved.saved_ns) or ""
        return cls(revision=saved.revision, when=when, edited_by=saved.edited_by, config=saved.config)


class SetupFileContent(Answer):
    cloud: dict[str, str] = Field(description="With the new secret, which is shown here and never again.")


class SetupFileModel(Answer):
    machine_json: SetupFileContent
    install: list[str]
    run: list[str]


class CaptureMethodModel(Answer):
    method: str
    title: str
    default_hz: float
    params: dict[str, Any] | None = Field(description="JSON Schema of the method's parameters; null without any.")


class CatalogModel(Answer):
    """A model that CONFIGURE can add."""

    api: str
    model: str
    aliases: list[str]
    title: str
    description: str
    icon: str
    attributes: dict[str, Any] = Field(description="JSON Schema.")
    capture: list[CaptureMethodModel]


# What a part says about itself


class ResourceStatusModel(BaseModel):
    name: str
    api: str
    model: str
    state: ResourceState
    error: str
    latency_ms: float | None = Field(default=None, description="Of an ML model: one inference before it took over.")


class PackageStatusModel(BaseModel):
    name: str
    version: str
    state: PackageState
    error: str


class ElsewhereStatusModel(BaseModel):
    """A module or a remote of the machine; `error` is empty while it works."""

    name: str
    kind: Literal["module", "remote"]
    state: ElsewhereState
    error: str


class CollectorModel(BaseModel):
    """Counts are of records: `captured = synced + waiting + all that was dropped`."""

    component: str
    method: str
    captured: int
    stored: int
    waiting: int
    synced: int
    dropped: dict[str, int]
    frequency_hz: float
    last_error: str
    skipped: int = Field(default=0, description="Ticks left out because the driver or the machine was late.")
    vetoed: int = Field(default=0, description="Readings that the driver's own filter did not want kept.")
    late_ms: dict[str, float] | None = Field(default=None, description="How late the last ticks began: p50 and p99.")


class SyncRateModel(BaseModel):
    files_per_s: float
    bytes_per_s: float


class DiskStateModel(BaseModel):
    size_bytes: int
    free_bytes: int
    state: Literal["ok", "thinning", "full"]


class LedgerModel(BaseModel):
    collectors: list[CollectorModel]
    backlog_files: int
    backlog_bytes: int
    oldest_unsent: str | None
    sync_error: str = Field(description="Why not everything is sent, in words; empty when all is well.")
    sync_state: Literal["on", "offline", "held", "disabled", "no_app"] | None = Field(
        default=None, description="`held`: by its selective-sync sensor. Older machines do not say."
    )
    rate: SyncRateModel | None = None
    eta_s: float | None = Field(default=None, description="Seconds until the backlog is sent at this rate.")
    disk: DiskStateModel | None = None
    counting: bool = Field(default=False, description="What earlier runs left is still being counted.")
    notes: list[str] = Field(default=[], description="Settings of the data manager that have no effect, in words.")


class PartStatusModel(BaseModel):
    online_state: OnlineState
    last_seen: str | None
    info: PartInfo
    config_revision: str
    running_revision: str = Field(description="Empty while the machine has no link.")
    resources: list[ResourceStatusModel]
    packages: list[PackageStatusModel]
    elsewhere: list[ElsewhereStatusModel] = Field(description="Its modules and remotes.")
    capture: LedgerModel | None = Field(description="null while the machine has no link.")


class LogLineModel(Answer):
    id: int
    time: str
    level: str
    logger: str
    message: str


class LogPageModel(Answer):
    logs: list[LogLineModel]
    next: int | None = Field(description="`before` of the next, older page; null at the end.")


class LiveReadings(Answer):
    readings: dict[str, Any]
    time: str


class Command(Body):
    resource: str
    api: str
    command: dict[str, Any] = Field(default_factory=dict)


class CommandResult(Answer):
    result: dict[str, Any]
