"""What a person pastes on a machine to connect it: `machine.json` with a new secret, and the commands."""

from __future__ import annotations

import json
from typing import Any

from gleaner.app.caller import Caller
from gleaner.app.context import Addresses
from gleaner.app.services.fleet import FleetService
from gleaner.app.services.fleet_values import Place
from gleaner.app.services.install import InstallLinks


def cloud_section(place: Place, addresses: Addresses) -> dict[str, Any]:
    """The `cloud` section of a part without its secret, in Viam's keys plus our `web_address` and `ca_certificate`."""
    name = f"{place.part_name}.{place.location_id[:8]}.gleaner"
    section = {
        "id": place.part_id,
        "app_address": addresses.grpc,
        "web_address": addresses.web,
        "primary_org_id": place.organization_id,
        "location_id": place.location_id,
        "machine_id": place.machine_id,
        "fqdn": name,
        "local_fqdn": f"{name}.local",
    }
    return {**section, "ca_certificate": addresses.ca_certificate} if addresses.ca_certificate else section


def new_setup(
    fleet: FleetService, install: InstallLinks, caller: Caller, part_id: str, addresses: Addresses, package_key: str
) -> dict[str, Any]:
    """Makes a secret for the part; the answer is the only place that ever shows it."""
    secret = fleet.new_secret(caller, part_id)
    place = fleet.place(part_id)
    assert place is not None  # new_secret has just found it
    cloud = {**cloud_section(place, addresses), "package_key": package_key, "secret": secret}
    machine_json = {"cloud": cloud}
    paste = f"cat > machine.json <<'END'\n{json.dumps(machine_json, indent=2)}\nEND\nchmod 600 machine.json"
    return {
        "machine_json": machine_json,
        "install": install.commands(addresses),
        "run": [paste, "gleaner/bin/gleaner machine --config machine.json"],
    }
