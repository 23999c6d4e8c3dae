from __future__ import annotations

from typing import Any

import pytest
from machine_fakes import Shelf, World, brain, config, thing

from gleaner.machine.placeholders import resolve
from gleaner.machine.planning import Plan, Surroundings, plan_resources


def plans(*components: dict[str, Any], **kwargs: Any) -> dict[str, Plan]:
    return {plan.key.name: plan for plan in plan_resources(config(*components, **kwargs), Surroundings(World().specs))}


def test_dependencies_come_first() -> None:
    planned = plans(thing("a", needs=["b"]), {**thing("b"), "depends_on": ["rdk:component:sensor/c"]}, thing("c"))
    assert list(planned) == ["c", "b", "a"]
    assert [str(key) for key in planned["b"].dependencies] == ["rdk:component:sensor/c"]


@pytest.mark.parametrize(
    ("component", "error"),
    [
        (thing("a", width_px=0), "components[0].attributes.width_px: must be at least 1, not 0"),
        (thing("a", widht=5), "components[0].attributes.widht: is not known here"),
        (thing("a", model="test:thing:on"), "Did you mean test:thing:one? Known: test:thing:one, test:thing:two."),
        (
            {**thing("a"), "api": "rdk:component:senor"},
            "no models for rdk:component:senor. Did you mean rdk:component:sensor?",
        ),
        (thing("a", needs=["b"]), "components[0].attributes: depends on 'b', which is not in the configuration"),
        ({**thing("a"), "depends_on": ["b"]}, "components[0].depends_on: depends on 'b'"),
        # A resource never means itself by its own name.
        ({**thing("a"), "depends_on": ["a"]}, "depends on 'a', which is not in the configuration"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(component: dict[str, Any], error: str) -> None:
    assert error in plans(component)["a"].error


def test_every_attribute_problem_is_named() -> None:
    error = plans(thing("a", width_px="wide", folder=5))["a"].error
    assert "attributes.width_px" in error
    assert "attributes.folder" in error


def test_a_cycle_is_shown_on_its_members_only() -> None:
    planned = plans(
        thing("a", needs=["b"]), thing("b", needs=["c"]), thing("c", needs=["a"]), thing("d", needs=["a"]), thing("e")
    )
    sensor = "rdk:component:sensor"
    assert planned["a"].error == f"components[0]: depends on itself: {sensor}/a → {sensor}/b → {sensor}/c → {sensor}/a"
    assert "depends on itself" in planned["c"].error
    assert planned["d"].error == planned["e"].error == ""


def test_aliases_are_models_and_capture_settings_do_not_rebuild() -> None:
    plain = plans(thing("a", model="test:thing:alias"))["a"]
    captured = {
        **thing("a", model="test:thing:alias"),
        "service_configs": [{"type": "data_manager", "attributes": {"capture_methods": []}}],
    }
    assert plain.error == ""
    assert plans(captured)["a"].signature == plain.signature
    assert plans(thing("a", model="test:thing:alias", width_px=2))["a"].signature != plain.signature


def test_a_resource_may_depend_on_another_of_the_same_name() -> None:
    planned = plan_resources(config(thing("x", needs=["x"]), services=(brain("x"),)), Surroundings(World().specs))
    assert [str(plan.key) for plan in planned] == ["rdk:service:mlmodel/x", "rdk:component:sensor/x"]


def test_placeholders_are_replaced_at_any_depth() -> None:
    shelf = Shelf()
    shelf.put("signs", "3", "/data/signs-3")
    attributes = {
        "a": ["${packages.signs}/m.onnx", {"b": "${packages.ml_model.signs}"}],
        "c": "${environment.WHO} ${environment.NOBODY}",
    }
    resolved = resolve(attributes, shelf, {"WHO": "me"})
    assert resolved.attributes == {
        "a": ["/data/signs-3/m.onnx", {"b": "/data/signs-3"}],
        "c": "me ${environment.NOBODY}",
    }
    assert list(resolved.packages) == ["signs"]


def test_unknown_packages_stay_as_written_and_missing_ones_are_waited_for() -> None:
    shelf = Shelf()
    shelf.put("late", "1", None, "downloading")
    assert resolve("${packages.other}", shelf).attributes == "${packages.other}"
    [plan] = plan_resources(
        config(services=(brain("b", folder="${packages.late}"),)), Surroundings(World().specs, shelf)
    )
    assert plan.waits_for == "waits for package 'late': downloading"
    assert plan.error == ""
