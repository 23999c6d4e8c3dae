"""Machines, parts and locations: made, seen, changed, gone; and where each stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_world import Fleet

from gleaner.app.caller import Caller, CallerKind
from gleaner.app.context import Addresses
from gleaner.app.database import Database
from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.services.fleet_presence import ONLINE_WINDOW_NS, Presence
from gleaner.app.services.fleet_setup import new_setup

STRANGER = Caller(CallerKind.USER, "stranger")


def test_two_machines_of_one_location_have_two_names(fleet: Fleet) -> None:
    service = fleet.context.fleet
    with pytest.raises(Conflict, match="named 'rover'"):
        service.create_machine(fleet.owner, " rover ", fleet.location_id)
    other = service.create_location(fleet.owner, fleet.organization_id, "barn")
    moved = service.create_machine(fleet.owner, "rover", other.id)
    with pytest.raises(Conflict):
        service.update_machine(fleet.owner, moved.id, location_id=fleet.location_id)
    assert [one.name for one in service.machines(fleet.owner)] == ["rover", "rover"]


@pytest.mark.parametrize("name", ["", "   ", "x" * 101])
def test_names_have_a_length(fleet: Fleet, name: str) -> None:
    with pytest.raises(InvalidInput, match="1 to 100"):
        fleet.context.fleet.create_machine(fleet.owner, name, fleet.location_id)


def test_a_location_with_machines_is_not_deleted(fleet: Fleet) -> None:
    service = fleet.context.fleet
    with pytest.raises(Conflict, match="still has 1"):
        service.delete_location(fleet.owner, fleet.location_id)
    service.delete_machine(fleet.owner, fleet.machine.id)
    service.delete_location(fleet.owner, fleet.location_id)
    assert service.locations(fleet.owner, fleet.organization_id) == []


def test_deleting_a_machine_takes_its_secrets(fleet: Fleet) -> None:
    part = fleet.part()
    fleet.context.fleet.put_config(fleet.owner, fleet.part_id, {"components": []}, None)
    fleet.context.fleet.delete_machine(fleet.owner, fleet.machine.id)
    assert fleet.context.fleet.place(part.part_id) is None
    with fleet.context.database.read() as db:
        for table in ("part", "part_secret", "part_config"):
            assert db.exec_driver_sql(f"select count(*) from {table}").scalar() == 0


def test_strangers_see_nothing_and_learn_nothing(fleet: Fleet) -> None:
    service = fleet.context.fleet
    assert service.organizations(STRANGER) == []
    assert service.machines(STRANGER) == []
    for look in (
        lambda: service.machine(STRANGER, fleet.machine.id),
        lambda: service.part(STRANGER, fleet.part_id),
        lambda: service.locations(STRANGER, fleet.organization_id),
        lambda: service.location(STRANGER, fleet.location_id),
        lambda: service.status(STRANGER, fleet.part_id),
    ):
        with pytest.raises(NotFound):
            look()


def test_a_machine_sees_itself_and_changes_nothing(fleet: Fleet) -> None:
    part, service = fleet.part(), fleet.context.fleet
    assert [one.id for one in service.machines(part)] == [fleet.machine.id]
    for change in (
        lambda: service.put_config(part, fleet.part_id, {}, None),
        lambda: service.new_secret(part, fleet.part_id),
        lambda: service.request_restart(part, fleet.part_id),
    ):
        with pytest.raises(Exception, match="owner role"):
            change()


def test_the_main_part_stays_until_another_is_main(fleet: Fleet) -> None:
    service = fleet.context.fleet
    with pytest.raises(InvalidInput, match="main part"):
        service.delete_part(fleet.owner, fleet.part_id)
    arm = service.create_part(fleet.owner, fleet.machine.id, "arm")
    service.mark_main(fleet.owner, arm.id)
    service.delete_part(fleet.owner, fleet.part_id)
    assert service.machine(fleet.owner, fleet.machine.id).main.id == arm.id


def test_a_restart_is_asked_for_once(fleet: Fleet) -> None:
    service = fleet.context.fleet
    assert service.take_restart(fleet.part_id) is False
    service.request_restart(fleet.owner, fleet.part_id)
    assert [service.take_restart(fleet.part_id) for _ in range(2)] == [True, False]


def test_setup_is_ready_to_paste_and_its_secret_works(fleet: Fleet) -> None:
    where = Addresses("https://gleaner.lan:8090", "https://gleaner.lan:8091", "PEM", "ab:cd")
    setup = new_setup(fleet.context.fleet, fleet.context.install, fleet.owner, fleet.part_id, where, "KEY")
    cloud = setup["machine_json"]["cloud"]
    assert cloud["app_address"] == "https://gleaner.lan:8091"
    assert cloud["web_address"] == "https://gleaner.lan:8090"
    assert (cloud["ca_certificate"], cloud["package_key"]) == ("PEM", "KEY")
    assert fleet.context.auth.part_caller(cloud["id"], cloud["secret"]).part_id == fleet.part_id
    assert cloud["secret"] in setup["run"][0]


def test_a_part_waits_for_setup_then_comes_and_goes(fleet: Fleet) -> None:
    now = [1_800_000_000 * 10**9]
    presence = Presence(fleet.context.database, lambda: now[0])
    part = fleet.part_id
    assert presence.online_state(part, None) == "awaiting_setup"
    assert presence.seen(part, {"host": "pi", "version": ""}) is True
    assert presence.seen(part, {"version": "1"}) is False
    assert presence.now(part).info == {"host": "pi", "version": "1"}
    assert presence.online_state(part, None) == "online"
    now[0] += ONLINE_WINDOW_NS
    assert presence.online_state(part, None) == "offline"
    assert presence.gone_offline() == [part]
    assert presence.gone_offline() == [], "told once"
    assert presence.seen(part) is True, "back again"


def test_last_seen_outlives_a_restart(fleet: Fleet, tmp_path: Path) -> None:
    service = fleet.context.fleet
    service.heard_from(fleet.part_id, {"host": "pi"})
    fresh = type(service)(fleet.context.database, fleet.context.events)
    part = fresh.part(fleet.owner, fleet.part_id)
    assert (part.online_state, part.info["host"]) == ("offline", "pi")
    assert part.last_seen_ns


def test_the_status_is_what_the_machine_last_said(fleet: Fleet) -> None:
    service = fleet.context.fleet
    service.reported(fleet.part_id, {"revision": "7", "resources": [{"name": "cam"}], "packages": [], "capture": {}})
    status = service.status(fleet.owner, fleet.part_id)
    assert status["running_revision"] == "7"
    assert status["resources"] == [{"name": "cam"}]
    assert status["online_state"] == "online"
    service.presence.linked(fleet.part_id, False)
    assert service.status(fleet.owner, fleet.part_id)["resources"] == [], "old news is no news"


def test_database_is_encrypted(fleet: Fleet, tmp_path: Path) -> None:
    if fleet.context.database.engine.dialect.name != "sqlite":
        pytest.skip("how PostgreSQL keeps its files is its own matter")
    assert isinstance(fleet.context.database, Database)
    assert not (tmp_path / "app" / "metadata.db").read_bytes().startswith(b"SQLite format 3")
