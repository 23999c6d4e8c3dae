"""Configurations: checked before they are saved, every version kept, nobody's change lost."""

from __future__ import annotations

from typing import Any

import pytest
from fleet_world import Fleet

from gleaner.app.errors import ConfigRejected, Conflict
from gleaner.app.services.config_check import check_config
from gleaner.app.services.packages import NewPackage

CAMERA: dict[str, Any] = {"name": "cam", "api": "rdk:component:camera", "model": "gleaner:camera:sim", "attributes": {}}


def config(**changes: Any) -> dict[str, Any]:
    return {"components": [{**CAMERA, **changes}], "services": []}


def capturing(**method: Any) -> dict[str, Any]:
    attributes = {"capture_methods": [{"method": "GetImages", "capture_frequency_hz": 1, **method}]}
    return config(service_configs=[{"type": "rdk:service:data_manager", "attributes": attributes}])


CAPTURE = "components[0].service_configs[0].attributes.capture_methods[0]"


@pytest.mark.parametrize(
    "good",
    [
        {},
        config(),
        capturing(),
        # Not in the catalogue: from a module, or a newer machine.
        config(model="acme:camera:stereo", attributes={"anything": 1}),
        # Placeholders stand for values that only the machine knows.
        config(model="gleaner:camera:image-dir", attributes={"path": "${packages.archive.photos}/x"}),
        {"services": [{"type": "data_manager", "attributes": {}}]},
    ],
)
def test_good_configurations_have_no_problems(good: dict[str, Any]) -> None:
    assert check_config(good) == []


@pytest.mark.parametrize(
    ("bad", "path", "says"),
    [
        ([], "", "JSON object"),
        (config(name="a b"), "components[0].name", "starts with a letter"),
        ({"components": [CAMERA, CAMERA]}, "", "two resources"),
        (config(attributes={"widht_px": 1}), "components[0].attributes.widht_px", "no such attribute"),
        (config(attributes={"width_px": "wide"}), "components[0].attributes.width_px", "not of type"),
        (config(attributes={"width_px": -1}), "components[0].attributes.width_px", "too small"),
        (config(model="gleaner:camera:image-dir"), "components[0].attributes.path", "is required"),
        (capturing(method="Smell"), f"{CAPTURE}.method", "cannot capture 'Smell'"),
        (capturing(capture_frequency_hz=-1), f"{CAPTURE}.capture_frequency_hz", "negative"),
        (capturing(capture_frequency_hz="often"), f"{CAPTURE}.capture_frequency_hz", "must be a number, not 'often'"),
    ],
)
def test_each_problem_has_its_path(bad: Any, path: str, says: str) -> None:
    problems = check_config(bad)
    assert [(one.path, says in one.message) for one in problems] == [(path, True)], problems


def test_a_misspelt_attribute_is_guessed() -> None:
    [problem] = check_config(config(attributes={"widht_px": 1}))
    assert problem.hint == "Did you mean 'width_px'?"


def test_a_bad_configuration_is_not_saved(fleet: Fleet) -> None:
    with pytest.raises(ConfigRejected) as told:
        fleet.context.fleet.put_config(fleet.owner, fleet.part_id, config(name="a b"), None)
    assert told.value.problems[0].path == "components[0].name"
    assert fleet.context.fleet.configs.current(fleet.part_id).revision == "0"


def test_a_stale_base_is_refused_and_the_first_change_stays(fleet: Fleet) -> None:
    service = fleet.context.fleet
    base = service.configs.served(fleet.part_id).revision
    first = service.put_config(fleet.owner, fleet.part_id, config(), base)
    with pytest.raises(Conflict, match="changed by Owner"):
        service.put_config(fleet.owner, fleet.part_id, {"components": []}, base)
    assert service.configs.current(fleet.part_id).config == config()
    service.put_config(fleet.owner, fleet.part_id, {"components": []}, first)
    assert [one.config for one in service.configs.history(fleet.part_id)] == [{"components": []}, config()]


def test_saving_what_is_there_already_changes_nothing(fleet: Fleet) -> None:
    service = fleet.context.fleet
    first = service.put_config(fleet.owner, fleet.part_id, config(), None)
    assert service.put_config(fleet.owner, fleet.part_id, config(), None) == first
    assert len(service.configs.history(fleet.part_id)) == 1


def test_machines_are_told_of_a_change(fleet: Fleet) -> None:
    told: list[tuple[str, str]] = []
    fleet.context.fleet.config_listeners.append(lambda part_id, revision: told.append((part_id, revision)))
    revision = fleet.context.fleet.put_config(fleet.owner, fleet.part_id, config(), None)
    assert told == [(fleet.part_id, revision)]


def test_latest_becomes_the_newest_version_and_a_new_one_changes_the_revision(fleet: Fleet) -> None:
    service, packages = fleet.context.fleet, fleet.context.packages
    entry = {"name": "m", "package": f"{fleet.organization_id}/m", "type": "ml_model", "version": "latest"}
    before = service.put_config(fleet.owner, fleet.part_id, {"packages": [entry]}, None)
    assert service.configs.served(fleet.part_id).config["packages"][0]["version"] == "latest", "there is none yet"
    told: list[str] = []
    service.config_listeners.append(lambda part_id, revision: told.append(revision))
    for version in ("1", "2"):
        packages.register(NewPackage(fleet.organization_id, "m", version), [b"x"])
        served = service.configs.served(fleet.part_id)
        assert served.config["packages"][0]["version"] == version
    assert len({before, *told}) == 3
    assert service.configs.current(fleet.part_id).config["packages"] == [entry], "the user's own words stay"
    # An editor that loaded the page before the new model came may still save.
    service.put_config(fleet.owner, fleet.part_id, {"packages": []}, told[0])
