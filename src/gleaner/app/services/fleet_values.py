"""What the fleet service returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa


@dataclass(frozen=True)
class Organization:
    id: str
    name: str
    role: str
    created_ns: int


@dataclass(frozen=True)
class Location:
    id: str
    name: str
    organization_id: str
    machine_count: int
    created_ns: int


@dataclass(frozen=True)
class Part:
    id: str
    machine_id: str
    name: str
    is_main: bool
    online_state: str
    last_seen_ns: int | None
    created_ns: int
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    id: str
    name: str
    location_id: str
    location_name: str
    organization_id: str
    created_ns: int
    parts: list[Part]

    @classmethod
    def from_row(cls, row: sa.RowMapping, parts: list[Part]) -> Machine:
        place = row["location_id"], row["location_name"], row["organization_id"]
        return cls(row["id"], row["name"], *place, row["created_ns"], parts)

    @property
    def main(self) -> Part:
        return next((part for part in self.parts if part.is_main), self.parts[0])


@dataclass(frozen=True)
class Place:
    """Where a part stands: stamped on everything it uploads."""

    part_id: str
    part_name: str
    machine_id: str
    machine_name: str
    location_id: str
    location_name: str
    organization_id: str


def host_info(info: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a machine told about its computer, every field there; empty before it was heard from."""
    told = info or {}
    ips = told.get("ips")
    texts = {name: str(told.get(name) or "") for name in ("version", "host", "os", "platform")}
    port = told.get("port")
    found = {**texts, "ips": [str(ip) for ip in ips] if isinstance(ips, list) else []}
    return {**found, "port": port if isinstance(port, int) else 0}


def iso(time_ns: int | None) -> str | None:
    """UTC ISO 8601 with microseconds and Z, as everywhere in the API; None stays None."""
    if not time_ns:
        return None
    whole, rest = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(whole, UTC).replace(microsecond=rest // 1000)
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"
