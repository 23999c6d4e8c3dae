"""The state of a machine as values that both the robot API and the link report."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol

from gleaner.machine.graph import ResourceGraph
from gleaner.machine.host import MachineHost
from gleaner.machine.modules.manager import ModuleManager
from gleaner.machine.node import Node
from gleaner.machine.remotes.manager import RemoteManager
from gleaner.wire.link import EMPTY_LEDGER, ElsewhereState, ElsewhereStatus, Ledger, ResourceStatus, Status


class PackageState(Enum):
    """Values of `viam.robot.v1.PackageStatus.State`."""

    DOWNLOADING = 1
    LOADING = 2
    READY = 4
    FAILED = 5


@dataclass(frozen=True)
class PackageReport:
    name: str
    kind: str
    version: str
    state: PackageState
    error: str = ""
    bytes_downloaded: int = 0
    total_bytes: int = 0
    last_updated: datetime = field(default_factory=lambda: datetime.now(UTC))


class PackageReports(Protocol):
    def reports(self) -> list[PackageReport]: ...


class NoPackageReports:
    def reports(self) -> list[PackageReport]:
        return []


def elsewhere_status(modules: ModuleManager, remotes: RemoteManager) -> list[ElsewhereStatus]:
    """Programs and machines whose resources this one uses."""
    found: list[ElsewhereStatus] = [
        {
            "name": host.name,
            "kind": "module",
            "state": host.state.name.lower(),  # type: ignore[typeddict-item]
            "error": host.error,
        }
        for host in modules.hosts
    ]
    for remote in remotes.remotes:
        state: ElsewhereState = "unhealthy" if remote.error else "ready"
        found.append({"name": remote.config.name, "kind": "remote", "state": state, "error": remote.error})
    return found


def link_status(
    host: MachineHost, graph: ResourceGraph, packages: PackageReports, elsewhere: list[ElsewhereStatus]
) -> Status:
    return {
        "type": "status",
        "revision": host.config.revision,
        "resources": [_resource(node) for node in graph.nodes],
        "packages": [
            {
                "name": package.name,
                "version": package.version,
                "state": package.state.name.lower(),  # type: ignore[typeddict-item]
                "error": package.error,
            }
            for package in packages.reports()
        ],
        "elsewhere": elsewhere,
        "capture": capture_ledger(graph),
    }


def _resource(node: Node) -> ResourceStatus:
    found: ResourceStatus = {
        "name": node.key.name,
        "api": node.key.api,
        "model": node.plan.config.model,
        "state": node.state.name.lower(),  # type: ignore[typeddict-item]
        "error": node.error,
    }
    latency_ms = getattr(node.instance, "latency_ms", None)
    if latency_ms is not None:
        found["latency_ms"] = latency_ms
    return found


def capture_ledger(graph: ResourceGraph) -> Ledger:
    """What the data manager counted; all zero when the machine has none."""
    for node in graph.nodes:
        ledger = getattr(node.instance, "ledger", None)
        if node.key.subtype == "data_manager" and callable(ledger):
            value: Ledger = ledger()
            return value
    return EMPTY_LEDGER
