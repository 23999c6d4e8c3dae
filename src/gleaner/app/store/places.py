"""Where an upload belongs: stamped from the part at the moment of receipt, as Viam does."""

from __future__ import annotations

from typing import Protocol

from gleaner.app.services.fleet_values import Place

__all__ = ["PartLookup", "Place", "organization_place"]


class PartLookup(Protocol):
    """The fleet as the store sees it."""

    def place(self, part_id: str) -> Place | None:
        """The part's place now, or None if there is no such part."""
        ...


def organization_place(organization_id: str) -> Place:
    """The place of a person's upload that belongs to no machine."""
    return Place("", "", "", "", "", "", organization_id)
