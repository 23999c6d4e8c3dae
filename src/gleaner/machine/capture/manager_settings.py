"""What the data manager is told to do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.capture.disk import Marks
from gleaner.machine.capture.writer import DURABILITY_S


@dataclass(frozen=True)
class ManagerSettings:
    """The data manager's attributes, checked."""

    capture_dir: Path
    capture_disabled: bool
    sync_disabled: bool
    sync_interval_s: float
    tags: tuple[str, ...]
    additional_sync_paths: tuple[str, ...]
    settle_ms: int
    rotate_bytes: int
    selective_syncer: str
    sync_bandwidth_limit: int = 0
    durability_s: float = DURABILITY_S
    keyring: Keyring = field(default_factory=Keyring)
    marks: Marks = field(default_factory=Marks)
    control_sensor: str = ""
    control_key: str = ""
    notes: tuple[str, ...] = ()
    """What was asked for and has no effect, for people."""

    @property
    def foundation(self) -> ManagerSettings:
        """What a running data manager cannot exchange: it is built anew when this changes."""
        return replace(
            self,
            capture_disabled=False,
            sync_disabled=False,
            sync_interval_s=0.0,
            tags=(),
            additional_sync_paths=(),
            settle_ms=0,
            rotate_bytes=0,
            selective_syncer="",
            sync_bandwidth_limit=0,
            notes=(),
        )
