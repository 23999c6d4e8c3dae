"""One resource of a running machine: its plan, its state and, when ready, its instance."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from viam.resource.base import ResourceBase

from gleaner.machine.names import ResourceKey
from gleaner.machine.planning import Plan


class State(Enum):
    """Viam's states, with the values of `viam.robot.v1.ResourceStatus.State`."""

    UNCONFIGURED = 1
    CONFIGURING = 2
    READY = 3
    REMOVING = 4
    UNHEALTHY = 5


@dataclass
class Node:
    """Mutable, owned by the graph. `instance` may live on while `state` is unhealthy: a failed replacement."""

    plan: Plan
    state: State = State.UNCONFIGURED
    error: str = ""
    revision: str = ""
    last_updated: datetime = field(default_factory=lambda: datetime.now(UTC))
    instance: ResourceBase | None = None
    build: asyncio.Task[None] | None = None
    """Running construction of the first instance or of a replacement."""
    target: Plan | None = None
    """The plan of the replacement under construction, while `instance` still follows `plan`."""
    retry_at: float = 0.0

    @property
    def key(self) -> ResourceKey:
        return self.plan.key

    def become(self, state: State, error: str = "") -> bool:
        """True when something visible changed."""
        if (state, error) == (self.state, self.error):
            return False
        self.state, self.error = state, error
        self.last_updated = datetime.now(UTC)
        return True

    @property
    def log(self) -> logging.Logger:
        return resource_logger(self.key)


def resource_logger(key: ResourceKey) -> logging.Logger:
    return logging.getLogger(f"gleaner.resource.{key.subtype}.{key.name}")
