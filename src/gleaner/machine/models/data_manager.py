"""`rdk:service:data_manager`: captures what components say to files, and syncs the files to the app."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gleaner.machine.models.base import Attributes, BuildContext, ModelSpec

if TYPE_CHECKING:
    from gleaner.machine.capture.manager_settings import ManagerSettings

MILLIS_DEFAULT = 10_000
INTERVAL_DEFAULT_MINS = 0.1
YEAR_MINS = 366 * 24 * 60


class ControlSensor(BaseModel):
    """A sensor that says what is captured how often."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, title="Sensor", description="Name of the sensor.")
    key: str = Field(min_length=1, title="Key", description="Which of its readings holds the list of overrides.")


class Encryption(BaseModel):
    """Where the key for captures on the machine's disk comes from: exactly one of the three."""

    model_config = ConfigDict(extra="forbid")

    key_file: str = Field(
        default="",
        title="Key file",
        description="A file that only the machine's user may read (mode 0600): `openssl rand -hex 32`. More lines: old keys.",
    )
    key_env: str = Field(
        default="", title="Environment variable", description="Name of the variable that holds the key."
    )
    key_command: str = Field(
        default="", title="Key command", description="A program that prints the key, from a key service or a TPM."
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> Encryption:
        if sum(map(bool, (self.key_file, self.key_env, self.key_command))) != 1:
            raise ValueError("encryption needs exactly one of key_file, key_env and key_command")
        return self


NO_MONGO = (
    "mongo_capture_config has no effect: readings are not written to MongoDB, they are synced to the app. "
    "Remove it, or copy readings from the app (DataService.ExportTabularData)"
)


class DataManagerAttributes(Attributes):
    """Viam's attributes of the data manager, with Viam's defaults."""

    model_config = ConfigDict(allow_inf_nan=False)

    capture_dir: str = Field(
        default="",
        title="Capture folder",
        description="Where captures wait until they are synced; below the machine's own folder unless it is absolute. "
        "Empty: capture.",
    )
    capture_disabled: bool = Field(default=False, title="Stop capture", description="Captures nothing at all.")
    sync_disabled: bool = Field(
        default=False,
        title="Stop sync",
        description="Captures stay on the machine until sync is asked for by hand.",
    )
    sync_interval_mins: float = Field(
        default=INTERVAL_DEFAULT_MINS,
        ge=0,
        le=YEAR_MINS,
        title="Sync interval (minutes)",
        description="How often captures are sent.",
    )
    tags: list[str] = Field(
        default_factory=list, title="Tags", description="Put on everything that this machine captures."
    )
    additional_sync_paths: list[str] = Field(
        default_factory=list,
        title="More folders to sync",
        description="Files in these folders are sent and then DELETED. Folders named tag=x or dataset=id tag them.",
    )
    file_last_modified_millis: int = Field(
        default=MILLIS_DEFAULT,
        ge=0,
        le=YEAR_MINS * 60_000,
        title="Settle time (ms)",
        description="A file in those folders is sent once it has not changed for so long.",
    )
    maximum_capture_file_size_bytes: int = Field(
        default=262_144,
        ge=0,
        title="File size (bytes)",
        description="A file of readings that has passed this size is completed and a new one begun.",
    )
    durability_ms: int = Field(
        default=1000,
        ge=0,
        le=600_000,
        title="Durability (ms)",
        description="A power cut loses at most the captures of so long. 0: a capture counts only once it is on the disk.",
    )
    encryption: Encryption | None = Field(
        default=None,
        title="Encrypt captures on the machine",
        description="Captures are encrypted on the machine's disk until they are sent. Viam's server cannot read them.",
    )
    selective_syncer_name: str = Field(
        default="",
        title="Sync only when a sensor says so",
        description="Name of a sensor whose readings hold should_sync: true when captures may be sent.",
    )
    maximum_num_sync_threads: int = Field(
        default=0, ge=0, title="Sync threads", description="Accepted for compatibility; sync adapts by itself."
    )
    sync_bandwidth_limit: int = Field(
        default=0,
        ge=0,
        title="Sync bandwidth (bytes/s)",
        description="Sync puts at most so many bytes a second on the line. 0: no limit.",
    )
    disk_usage_deletion_threshold: float = Field(
        default=0.9,
        ge=0,
        title="Disk usage threshold",
        description="A share of the disk. Once it is used this far, and captures are as much of it as the next value says, they "
        "are thinned evenly in time: tagged ones and rare sensors last, the newest never. Above 1: only when the disk is "
        "almost full.",
    )
    capture_dir_deletion_threshold: float = Field(
        default=0.5,
        ge=0,
        title="Capture folder threshold",
        description="A share of the disk: what captures may keep of it although others fill the rest.",
    )
    delete_every_nth_when_disk_full: int = Field(
        default=5, ge=0, title="Thinning", description="Accepted for compatibility; thinning chooses by time and value."
    )
    delete_data_on_part_deletion: bool = Field(
        default=False, title="Delete with the machine", description="Accepted for compatibility."
    )
    capture_control_sensor: ControlSensor | None = Field(
        default=None,
        title="Capture control sensor",
        description="A sensor whose readings start, stop and change capture, ten times a second.",
    )
    mongo_capture_config: dict[str, Any] | None = Field(
        default=None,
        title="MongoDB",
        description="Not supported, and said so in the machine's status: readings are synced to the app, and exported "
        "from there.",
    )


def capture_folder(attributes: DataManagerAttributes, home: Path) -> Path:
    """An absolute path; `~` is the user's home, a relative one lies below the machine's folder."""
    return (home / Path(attributes.capture_dir or "capture").expanduser()).absolute()


def sync_folders(paths: Sequence[str], capture: Path, home: Path) -> tuple[str, ...]:
    """Absolute; relative ones lie below the machine's folder, as `capture_dir`.

    Raises ValueError for one whose files somebody would miss: what is in these folders is sent and deleted.
    """
    found = []
    for text in paths:
        path = Path(os.path.abspath(home / Path(text).expanduser()))  # noqa: PTH100 (resolve() would follow links)
        if not text.strip():
            raise ValueError("additional_sync_paths has an empty path: name a folder, or take the line out")
        own = home.absolute()
        if path in (Path.home(), path.parent, own, *capture.parents, *own.parents):
            raise ValueError(
                f"additional_sync_paths must not name {path}: its files would be sent and then deleted, and it is the "
                "home folder, the whole disk, the machine's own folder or holds the captures. Name the folder that your "
                "program writes into"
            )
        found.append(str(path))
    return tuple(dict.fromkeys(found))


async def _settings(context: BuildContext) -> ManagerSettings:
    from gleaner.machine.capture.disk import Marks
    from gleaner.machine.capture.keys import KeySource, load_keyring
    from gleaner.machine.capture.manager_settings import ManagerSettings

    attributes: DataManagerAttributes = context.attributes
    notes = () if attributes.mongo_capture_config is None else (NO_MONGO,)
    for note in notes:
        context.log.warning("%s", note)
    encryption, control = attributes.encryption, attributes.capture_control_sensor
    source = KeySource(**encryption.model_dump()) if encryption else KeySource()
    keyring = await asyncio.to_thread(load_keyring, source, os.environ)
    # Viam's rule: an interval too small to mean anything is the default.
    interval_mins = attributes.sync_interval_mins if attributes.sync_interval_mins >= 0.0001 else INTERVAL_DEFAULT_MINS
    folder = capture_folder(attributes, context.host.home)
    return ManagerSettings(
        capture_dir=folder,
        capture_disabled=attributes.capture_disabled,
        sync_disabled=attributes.sync_disabled,
        sync_interval_s=interval_mins * 60,
        tags=tuple(attributes.tags),
        additional_sync_paths=sync_folders(attributes.additional_sync_paths, folder, context.host.home),
        settle_ms=attributes.file_last_modified_millis or MILLIS_DEFAULT,
        rotate_bytes=attributes.maximum_capture_file_size_bytes or 262_144,
        selective_syncer=attributes.selective_syncer_name,
        sync_bandwidth_limit=attributes.sync_bandwidth_limit,
        durability_s=attributes.durability_ms / 1000,
        keyring=keyring,
        control_sensor=control.name if control else "",
        control_key=control.key if control else "",
        notes=notes,
        marks=Marks(
            attributes.disk_usage_deletion_threshold or Marks.used,
            attributes.capture_dir_deletion_threshold or Marks.captures,
        ),
    )


async def _build(context: BuildContext) -> Any:
    from gleaner.machine.capture.manager import DataManager

    manager = DataManager(context.name, await _settings(context), context.log)
    await manager.start()
    return manager


async def _reconfigure(manager: Any, context: BuildContext) -> None:
    await manager.reconfigure(await _settings(context))


SPEC = ModelSpec(
    api="rdk:service:data_manager",
    model="rdk:builtin:builtin",
    title="Data management",
    description="Captures what cameras and sensors say, keeps it safe on the machine and syncs it to the app.",
    attributes=DataManagerAttributes,
    build=_build,
    reconfigure=_reconfigure,
    icon="database",
)
