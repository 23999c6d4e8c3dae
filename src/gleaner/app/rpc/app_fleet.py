"""Organizations, locations and machines."""

from __future__ import annotations

import time

from viam.gen.app.v1 import app_pb2 as pb

from gleaner.app.caller import Caller
from gleaner.app.errors import InvalidInput, NotFound
from gleaner.app.rpc.adapter import Service, timestamp, unary
from gleaner.app.services.fleet_values import Location, Machine, Organization

_ONLINE = {
    "online": pb.OnlineState.ONLINE_STATE_ONLINE,
    "offline": pb.OnlineState.ONLINE_STATE_OFFLINE,
    "awaiting_setup": pb.OnlineState.ONLINE_STATE_AWAITING_SETUP,
}


class FleetMethods(Service):
    @unary
    def ListOrganizations(self, caller: Caller, request: pb.ListOrganizationsRequest) -> pb.ListOrganizationsResponse:
        found = self.context.fleet.organizations(caller)
        return pb.ListOrganizationsResponse(organizations=[_organization(one) for one in found])

    @unary
    def GetOrganization(self, caller: Caller, request: pb.GetOrganizationRequest) -> pb.GetOrganizationResponse:
        found = self.context.fleet.organization(caller, request.organization_id)
        return pb.GetOrganizationResponse(organization=_organization(found))

    @unary
    def UpdateOrganization(
        self, caller: Caller, request: pb.UpdateOrganizationRequest
    ) -> pb.UpdateOrganizationResponse:
        changed = self.context.fleet.rename_organization(caller, request.organization_id, request.name)
        return pb.UpdateOrganizationResponse(organization=_organization(changed))

    @unary
    def ListLocations(self, caller: Caller, request: pb.ListLocationsRequest) -> pb.ListLocationsResponse:
        found = self.context.fleet.locations(caller, request.organization_id)
        return pb.ListLocationsResponse(locations=[_location(one) for one in found])

    @unary
    def GetLocation(self, caller: Caller, request: pb.GetLocationRequest) -> pb.GetLocationResponse:
        return pb.GetLocationResponse(location=_location(self.context.fleet.location(caller, request.location_id)))

    @unary
    def CreateLocation(self, caller: Caller, request: pb.CreateLocationRequest) -> pb.CreateLocationResponse:
        if request.parent_location_id:
            raise InvalidInput("locations have no locations inside them here", "Leave parent_location_id out.")
        made = self.context.fleet.create_location(caller, request.organization_id, request.name)
        return pb.CreateLocationResponse(location=_location(made))

    @unary
    def UpdateLocation(self, caller: Caller, request: pb.UpdateLocationRequest) -> pb.UpdateLocationResponse:
        changed = self.context.fleet.rename_location(caller, request.location_id, request.name)
        return pb.UpdateLocationResponse(location=_location(changed))

    @unary
    def DeleteLocation(self, caller: Caller, request: pb.DeleteLocationRequest) -> pb.DeleteLocationResponse:
        self.context.fleet.delete_location(caller, request.location_id)
        return pb.DeleteLocationResponse()

    @unary
    def NewRobot(self, caller: Caller, request: pb.NewRobotRequest) -> pb.NewRobotResponse:
        return pb.NewRobotResponse(id=self.context.fleet.create_machine(caller, request.name, request.location).id)

    @unary
    def GetRobot(self, caller: Caller, request: pb.GetRobotRequest) -> pb.GetRobotResponse:
        return pb.GetRobotResponse(robot=_robot(self.context.fleet.machine(caller, request.id)))

    @unary
    def ListRobots(self, caller: Caller, request: pb.ListRobotsRequest) -> pb.ListRobotsResponse:
        self.context.fleet.location(caller, request.location_id)
        found = self.context.fleet.machines(caller, location_ids=[request.location_id])
        return pb.ListRobotsResponse(robots=[_robot(one) for one in found])

    @unary
    def ListRobotsForLocations(
        self, caller: Caller, request: pb.ListRobotsForLocationsRequest
    ) -> pb.ListRobotsForLocationsResponse:
        found = self.context.fleet.machines(caller, location_ids=list(request.location_ids))
        return pb.ListRobotsForLocationsResponse(robots=[_robot(one) for one in found])

    @unary
    def ListRobotsForOrg(self, caller: Caller, request: pb.ListRobotsForOrgRequest) -> pb.ListRobotsForOrgResponse:
        found = self.context.fleet.machines(caller, request.org_id)
        return pb.ListRobotsForOrgResponse(robots=[_robot(one) for one in found])

    @unary
    def UpdateRobot(self, caller: Caller, request: pb.UpdateRobotRequest) -> pb.UpdateRobotResponse:
        changed = self.context.fleet.update_machine(caller, request.id, request.name, request.location)
        return pb.UpdateRobotResponse(robot=_robot(changed))

    @unary
    def DeleteRobot(self, caller: Caller, request: pb.DeleteRobotRequest) -> pb.DeleteRobotResponse:
        self.context.fleet.delete_machine(caller, request.id)
        return pb.DeleteRobotResponse()

    @unary
    def GetUserIDByEmail(self, caller: Caller, request: pb.GetUserIDByEmailRequest) -> pb.GetUserIDByEmailResponse:
        """Only one's own: an address is not to be probed."""
        own = self.context.auth.user(caller)
        if own.email != request.email:
            raise NotFound(f"there is no user {request.email!r} that you may see", "Ask them for their id.")
        return pb.GetUserIDByEmailResponse(user_id=own.id)


def online_state(state: str) -> pb.OnlineState.ValueType:
    return _ONLINE.get(state, pb.OnlineState.ONLINE_STATE_UNSPECIFIED)


def seconds_since(time_ns: int | None) -> int:
    return max(0, (time.time_ns() - time_ns) // 1_000_000_000) if time_ns else 0


def _organization(one: Organization) -> pb.Organization:
    return pb.Organization(id=one.id, name=one.name, created_on=timestamp(one.created_ns))


def _location(one: Location) -> pb.Location:
    owner = pb.LocationOrganization(organization_id=one.organization_id, primary=True)
    return pb.Location(
        id=one.id,
        name=one.name,
        created_on=timestamp(one.created_ns),
        robot_count=one.machine_count,
        organizations=[owner],
        primary_org_identity=pb.OrganizationIdentity(id=one.organization_id),
    )


def _robot(one: Machine) -> pb.Robot:
    main = one.main
    return pb.Robot(
        id=one.id,
        name=one.name,
        location=one.location_id,
        last_access=timestamp(main.last_seen_ns),
        created_on=timestamp(one.created_ns),
        online_state=online_state(main.online_state),
        seconds_since_online=seconds_since(main.last_seen_ns),
    )
