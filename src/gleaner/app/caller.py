"""Who is asking, and what they may touch. Every service takes a `Caller` first and checks it itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from gleaner.app.errors import PermissionDenied


class CallerKind(Enum):
    USER = "user"
    API_KEY = "api-key"
    PART = "part"


class Role(Enum):
    OWNER = "owner"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Grant:
    """A role on one resource: `resource_type` is organization, location or robot (Viam's word for a machine)."""

    resource_type: str
    resource_id: str
    role: Role
    organization_id: str
    #: Parents that the grant implies nothing about; kept so that a machine key can be matched to its location.
    location_id: str = ""


@dataclass(frozen=True)
class Caller:
    """An authenticated identity. Parts carry their own place in the fleet; users and keys carry grants."""

    kind: CallerKind
    id: str
    name: str = ""
    grants: tuple[Grant, ...] = ()
    organization_id: str = ""
    location_id: str = ""
    machine_id: str = ""
    part_id: str = ""
    scopes: frozenset[str] = field(default_factory=frozenset)

    def organization_ids(self) -> frozenset[str]:
        """Organizations in which this caller may see anything at all."""
        own = {self.organization_id} if self.organization_id else set()
        return frozenset(own | {grant.organization_id for grant in self.grants})

    def role_on(self, organization_id: str, location_id: str = "", machine_id: str = "") -> Role | None:
        """The strongest role on the resource, looking at the machine, its location and its organization."""
        best: Role | None = None
        for grant in self.grants:
            wanted = {"organization": organization_id, "location": location_id, "robot": machine_id}
            if grant.organization_id == organization_id and wanted.get(grant.resource_type) == grant.resource_id:
                if grant.role is Role.OWNER:
                    return Role.OWNER
                best = grant.role
        return best

    def require(
        self,
        organization_id: str,
        location_id: str = "",
        machine_id: str = "",
        *,
        owner: bool = False,
        what: str = "this",
    ) -> None:
        """Raises PermissionDenied unless the caller has a role (the owner's, if `owner`) on the resource."""
        role = self.role_on(organization_id, location_id, machine_id)
        if role is None or (owner and role is not Role.OWNER):
            needed = "owner" if owner else "operator"
            raise PermissionDenied(
                f"{self.name or self.id} may not change or see {what}: it needs the {needed} role there",
                "Ask an owner of the organization to grant that role.",
            )
