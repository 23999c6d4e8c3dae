"""One click puts a model on a machine; the next click changes only what must change."""

from __future__ import annotations

from typing import Any

import pytest
from fleet_world import Fleet

from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.services.config_check import check_config
from gleaner.app.services.deploy import deployment_state
from gleaner.app.services.deploy_config import Deploy, Names, deployed, find_names, undeployed
from gleaner.app.services.packages import NewPackage

CAMERA = {"name": "cam", "api": "rdk:component:camera", "model": "gleaner:camera:sim", "attributes": {}}
SIDE = {**CAMERA, "name": "side"}
EMPTY: dict[str, Any] = {"components": [CAMERA], "services": []}
NAMES = Names("shapes-model", "shapes-vision", "cam-shapes", "cam")


def wish(**changes: Any) -> Deploy:
    base = {"organization_id": "org", "model": "shapes", "version": "latest", "threshold": 0.6}
    return Deploy(**{**base, "model_type": "single_label_classification", **changes})


def by_name(config: dict[str, Any], group: str) -> dict[str, Any]:
    return {entry["name"]: entry for entry in config[group]}


def test_a_model_comes_with_package_service_vision_and_overlay() -> None:
    config, names = deployed(EMPTY, wish())
    assert names == NAMES
    assert config["packages"] == [
        {"name": "shapes", "type": "ml_model", "package": "org/shapes", "version": "latest"},
    ]
    services = by_name(config, "services")
    assert services["shapes-model"]["attributes"]["model_path"] == "${packages.ml_model.shapes}/model.onnx"
    assert services["shapes-vision"]["attributes"] == {"mlmodel_name": "shapes-model", "camera_name": "cam"}
    overlay = by_name(config, "components")["cam-shapes"]["attributes"]
    assert overlay["source"] == "cam"
    assert overlay["pipeline"] == [
        {
            "type": "classifications",
            "attributes": {"classifier_name": "shapes-vision", "confidence_threshold": 0.6},
        }
    ]
    assert check_config(config) == [], "what we write, we accept"
    assert EMPTY["services"] == [], "the given configuration is left alone"


def test_deploying_again_keeps_what_a_person_changed() -> None:
    config, _ = deployed(EMPTY, wish())
    by_name(config, "components")["cam-shapes"]["attributes"]["pipeline"][0]["attributes"]["confidence_threshold"] = 0.9
    again, names = deployed(config, wish(version="2", threshold=0.4))
    assert names == NAMES
    assert again["packages"][0]["version"] == "2"
    assert {k: v for k, v in again.items() if k != "packages"} == {k: v for k, v in config.items() if k != "packages"}


def test_detectors_draw_boxes() -> None:
    config, _ = deployed(EMPTY, wish(model_type="object_detection"))
    [stage] = by_name(config, "components")["cam-shapes"]["attributes"]["pipeline"]
    assert stage["type"] == "detections"
    assert stage["attributes"]["detector_name"] == "shapes-vision"
    vision = by_name(config, "services")["shapes-vision"]["attributes"]
    assert vision["default_minimum_confidence"] == 0.05, "the fifty boxes of which most are nothing go to nobody"
    vision["default_minimum_confidence"] = 0.3
    again, _ = deployed(config, wish(model_type="object_detection"))
    kept = by_name(again, "services")["shapes-vision"]["attributes"]
    assert kept["default_minimum_confidence"] == 0.3, "what a person has set stays"


def test_which_camera() -> None:
    two = {"components": [CAMERA, SIDE]}
    with pytest.raises(InvalidInput, match="several cameras") as told:
        deployed(two, wish())
    assert "cam, side" in told.value.hint
    config, names = deployed(two, wish(camera="side"))
    assert names.transform == "side-shapes"
    _, again = deployed(config, wish())
    assert again.camera == "side", "the camera chosen before is chosen still"
    with pytest.raises(InvalidInput, match="no camera 'roof'"):
        deployed(two, wish(camera="roof"))
    config, names = deployed({}, wish())
    assert names.transform == ""
    assert "components" not in config


def test_something_else_of_that_name_is_not_overwritten() -> None:
    taken = {**EMPTY, "services": [{"name": "shapes-model", "api": "rdk:service:motion", "model": "x:y:z"}]}
    with pytest.raises(InvalidInput, match="something else named 'shapes-model'"):
        deployed(taken, wish())


def test_undeploying_takes_away_exactly_what_was_added() -> None:
    config, _ = deployed(EMPTY, wish())
    assert undeployed(config, "org", "shapes") == {**EMPTY, "packages": []}


def test_renamed_services_are_found_again() -> None:
    config, _ = deployed(EMPTY, wish())
    for entry in config["services"]:
        entry["name"] = entry["name"].replace("shapes", "forms")
    config["services"][1]["attributes"]["mlmodel_name"] = "forms-model"
    assert find_names(config, "shapes") == Names("forms-model", "forms-vision", "", "cam")


def status(package: str = "ready", **resources: str) -> dict[str, Any]:
    error = "no such file" if package == "failed" else ""
    return {
        "revision": "3",
        "packages": [{"name": "shapes", "version": "1", "state": package, "error": error}],
        "resources": [{"name": n.replace("_", "-"), "state": s, "error": "boom"} for n, s in resources.items()],
    }


@pytest.mark.parametrize(
    ("said", "online", "state", "error"),
    [
        ({}, True, "offline", ""),
        (status(), False, "offline", ""),
        ({**status(), "revision": "2"}, True, "saving", ""),
        ({"revision": "3", "packages": [], "resources": []}, True, "downloading", ""),
        (status("downloading"), True, "downloading", ""),
        (status("loading"), True, "loading", ""),
        (status("failed"), True, "failed", "no such file"),
        (status(shapes_model="ready"), True, "loading", ""),
        (status(shapes_model="unhealthy"), True, "failed", "shapes-model: boom"),
        (status(shapes_model="ready", shapes_vision="ready"), True, "running", ""),
    ],
)
def test_the_state_follows_the_machine(said: dict[str, Any], online: bool, state: str, error: str) -> None:
    assert deployment_state(said, "3", "shapes", NAMES, online=online) == (state, error)


def test_the_whole_way_of_a_deployment(fleet: Fleet) -> None:
    service, deploy = fleet.context.fleet, fleet.context.deploy
    service.put_config(fleet.owner, fleet.part_id, EMPTY, None)
    about = {"model_type": "single_label_classification", "suggested_threshold": 0.654}
    with pytest.raises(NotFound, match="no package shapes"):
        deploy.deploy(fleet.owner, fleet.part_id, "shapes")
    fleet.context.packages.register(NewPackage(fleet.organization_id, "shapes", "1", about=about), [b"x"])
    made = deploy.deploy(fleet.owner, fleet.part_id, "shapes")
    assert (made.state, made.version, made.wanted_version) == ("offline", "1", "latest")
    revision = service.configs.served(fleet.part_id).revision
    service.reported(fleet.part_id, {**status(shapes_model="ready", shapes_vision="ready"), "revision": revision})
    [model] = fleet.context.ml_models.listed(fleet.owner, fleet.organization_id)
    assert model["deployments"][0]["state"] == "running"
    assert model["deployments"][0]["machine"]["name"] == "rover"
    overlay = by_name(service.configs.current(fleet.part_id).config, "components")["cam-shapes"]
    assert overlay["attributes"]["pipeline"][0]["attributes"]["confidence_threshold"] == 0.65
    deploy.remove(fleet.owner, fleet.part_id, "shapes")
    assert fleet.context.deploy.deployments(fleet.owner, fleet.organization_id, "shapes") == []


def test_only_owners_deploy(fleet: Fleet) -> None:
    with pytest.raises(Exception, match="owner role"):
        fleet.context.deploy.deploy(fleet.part(), fleet.part_id, "shapes")


def test_a_configuration_changed_meanwhile_is_not_overwritten(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    service = fleet.context.fleet
    fleet.context.packages.register(NewPackage(fleet.organization_id, "shapes", "1"), [b"x"])
    stale = service.configs.current(fleet.part_id)
    service.put_config(fleet.owner, fleet.part_id, EMPTY, None)
    monkeypatch.setattr(service.configs, "current", lambda part_id: stale)
    with pytest.raises(Conflict):
        fleet.context.deploy.deploy(fleet.owner, fleet.part_id, "shapes")
