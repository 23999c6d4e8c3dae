"""What the machine has captured, synced and dropped, as readings: to be watched, charted, and captured itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from grpclib import GRPCError, Status
from viam.components.sensor import Sensor

from gleaner.machine.models.base import Attributes, BuildContext, CaptureMethod, Host, ModelSpec


class LedgerSensorAttributes(Attributes):
    pass


class LedgerSensor(Sensor):
    def __init__(self, name: str, host: Host) -> None:
        super().__init__(name)
        self._host = host

    async def get_readings(
        self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None, **kwargs: Any
    ) -> Mapping[str, Any]:
        for service in self._host.config.services:
            if service.api == "rdk:service:data_manager":
                manager: Any = self._host.resource(service.name, "data_manager")
                if manager is not None:
                    return flat(manager.ledger(), datetime.now(UTC))
        raise GRPCError(Status.UNAVAILABLE, "this machine has no data manager, or it is not ready: see its own error")


def flat(ledger: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Numbers of the whole machine, and of each collector under `<component>.<method>.`."""
    oldest = ledger.get("oldest_unsent")
    rate, disk = ledger.get("rate") or {}, ledger.get("disk") or {}
    rows = ledger["collectors"]
    readings: dict[str, Any] = {
        "captured": sum(row["captured"] for row in rows),
        "synced": sum(row["synced"] for row in rows),
        "waiting": sum(row["waiting"] for row in rows),
        "dropped": sum(sum(row["dropped"].values()) for row in rows),
        "backlog_files": ledger["backlog_files"],
        "backlog_bytes": ledger["backlog_bytes"],
        "oldest_unsent_s": 0.0
        if oldest is None
        else max(0.0, round((now - datetime.fromisoformat(oldest)).total_seconds(), 1)),
        "files_per_s": rate.get("files_per_s", 0.0),
        "bytes_per_s": rate.get("bytes_per_s", 0.0),
        "disk_free_bytes": disk.get("free_bytes", 0),
        "disk_state": disk.get("state", ""),
        "sync_error": ledger["sync_error"],
    }
    for row in rows:
        prefix = f"{row['component']}.{row['method']}"
        for name in ("captured", "synced", "waiting", "skipped", "vetoed"):
            readings[f"{prefix}.{name}"] = row.get(name, 0)
        readings[f"{prefix}.dropped"] = sum(row["dropped"].values())
        if late_ms := row.get("late_ms"):
            readings[f"{prefix}.late_p99_ms"] = late_ms["p99"]
    return readings


async def _build(context: BuildContext) -> LedgerSensor:
    return LedgerSensor(context.name, context.host)


SPEC = ModelSpec(
    api="rdk:component:sensor",
    model="gleaner:sensor:capture-ledger",
    title="Capture ledger",
    description="What this machine has captured, synced and dropped, what waits and for how long, and the disk's free space.",
    icon="database",
    attributes=LedgerSensorAttributes,
    build=_build,
    capture=(CaptureMethod("Readings", "Readings", default_hz=1 / 60),),
)
