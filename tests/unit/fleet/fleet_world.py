"""What tests of the fleet share: one owner, one location, one machine."""

from __future__ import annotations

from dataclasses import dataclass

from gleaner.app.caller import Caller
from gleaner.app.context import AppContext
from gleaner.app.services.fleet_values import Machine


@dataclass
class Fleet:
    context: AppContext
    owner: Caller
    organization_id: str
    location_id: str
    machine: Machine

    @property
    def part_id(self) -> str:
        return self.machine.main.id

    def part(self) -> Caller:
        """The machine itself as a caller."""
        secret = self.context.fleet.new_secret(self.owner, self.part_id)
        return self.context.auth.part_caller(self.part_id, secret)
