"""API keys and what they may do."""

from __future__ import annotations

from viam.gen.app.v1 import app_pb2 as pb

from gleaner.app.caller import Caller, Role
from gleaner.app.errors import InvalidInput
from gleaner.app.rpc.adapter import Service, timestamp, unary
from gleaner.app.services.auth_keys import ApiKey, KeyGrant


class KeyMethods(Service):
    @unary
    def CreateKey(self, caller: Caller, request: pb.CreateKeyRequest) -> pb.CreateKeyResponse:
        organizations = {one.organization_id for one in request.authorizations}
        if len(organizations) != 1:
            raise InvalidInput("a key belongs to exactly one organization", "Send authorizations of one organization.")
        grants = [
            KeyGrant(one.authorization_id.rsplit("_", 1)[-1], one.resource_type, one.resource_id)
            for one in request.authorizations
        ]
        made = self.context.api_keys.create(caller, organizations.pop(), request.name, grants)
        return pb.CreateKeyResponse(id=made.id, key=made.key)

    @unary
    def ListKeys(self, caller: Caller, request: pb.ListKeysRequest) -> pb.ListKeysResponse:
        found = self.context.api_keys.listed(caller, request.org_id)
        return pb.ListKeysResponse(api_keys=[_key(one) for one in found])

    @unary
    def GetRobotAPIKeys(self, caller: Caller, request: pb.GetRobotAPIKeysRequest) -> pb.GetRobotAPIKeysResponse:
        """Ids and names; the keys themselves are shown once, when they are made."""
        machine = self.context.fleet.machine(caller, request.robot_id)
        found = self.context.api_keys.listed(caller, machine.organization_id)
        of_machine = [one for one in found if any(grant.resource_id == machine.id for grant in one.grants)]
        return pb.GetRobotAPIKeysResponse(api_keys=[_key(one) for one in of_machine])

    @unary
    def DeleteKey(self, caller: Caller, request: pb.DeleteKeyRequest) -> pb.DeleteKeyResponse:
        self.context.api_keys.delete(caller, request.id)
        return pb.DeleteKeyResponse()

    @unary
    def RenameKey(self, caller: Caller, request: pb.RenameKeyRequest) -> pb.RenameKeyResponse:
        changed = self.context.api_keys.rename(caller, request.id, request.name)
        return pb.RenameKeyResponse(id=changed.id, name=changed.name)

    @unary
    def RotateKey(self, caller: Caller, request: pb.RotateKeyRequest) -> pb.RotateKeyResponse:
        return pb.RotateKeyResponse(id=request.id, key=self.context.api_keys.rotate(caller, request.id))

    @unary
    def CreateKeyFromExistingKeyAuthorizations(
        self, caller: Caller, request: pb.CreateKeyFromExistingKeyAuthorizationsRequest
    ) -> pb.CreateKeyFromExistingKeyAuthorizationsResponse:
        made = self.context.api_keys.copy(caller, request.id)
        return pb.CreateKeyFromExistingKeyAuthorizationsResponse(id=made.id, key=made.key)

    @unary
    def CheckPermissions(self, caller: Caller, request: pb.CheckPermissionsRequest) -> pb.CheckPermissionsResponse:
        """Owners have every permission on a resource, operators those that only read."""
        answer = pb.CheckPermissionsResponse()
        for wanted in request.permissions:
            role = self._role(caller, wanted.resource_type, wanted.resource_id)
            allowed = [p for p in wanted.permissions if role is Role.OWNER or (role and _only_reads(p))]
            if allowed:
                answer.authorized_permissions.add(
                    resource_type=wanted.resource_type, resource_id=wanted.resource_id, permissions=allowed
                )
        return answer

    def _role(self, caller: Caller, resource_type: str, resource_id: str) -> Role | None:
        if resource_type == "organization":
            return caller.role_on(resource_id)
        if resource_type == "location":
            location = self.context.fleet.location(caller, resource_id)
            return caller.role_on(location.organization_id, location.id)
        if resource_type == "robot":
            machine = self.context.fleet.machine(caller, resource_id)
            return caller.role_on(machine.organization_id, machine.location_id, machine.id)
        raise InvalidInput(f"{resource_type!r} is no resource", "Use organization, location or robot.")


def _only_reads(permission: str) -> bool:
    return permission.startswith(("read", "view", "list", "get")) or "_read" in permission or "control_" in permission


def _key(one: ApiKey) -> pb.APIKeyWithAuthorizations:
    return pb.APIKeyWithAuthorizations(
        api_key=pb.APIKey(id=one.id, name=one.name, created_on=timestamp(one.created_ns)),
        authorizations=[
            pb.AuthorizationDetails(
                authorization_type="role",
                authorization_id=f"{grant.resource_type}_{grant.role}",
                resource_type=grant.resource_type,
                resource_id=grant.resource_id,
                org_id=one.organization_id,
            )
            for grant in one.grants
        ],
    )
