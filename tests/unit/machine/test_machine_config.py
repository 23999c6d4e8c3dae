from __future__ import annotations

from typing import Any

import pytest

from gleaner.wire.link import is_notice, pack_pipe, unpack_pipe
from gleaner.wire.machine_config import ConfigProblem, expand_environment, format_path, parse_config


def problems(value: Any) -> dict[str, str]:
    with pytest.raises(ConfigProblem) as problem:
        parse_config(value)
    return dict(problem.value.problems)


def test_old_style_and_new_style_mean_the_same() -> None:
    old = {"components": [{"name": "c", "type": "camera", "model": "webcam"}], "services": [{"type": "data_manager"}]}
    new = {
        "components": [{"name": "c", "api": "rdk:component:camera", "model": "rdk:builtin:webcam"}],
        "services": [{"name": "builtin", "api": "rdk:service:data_manager", "model": "rdk:builtin:builtin"}],
    }
    assert parse_config(old) == parse_config(new)


def test_capture_methods_are_found_whatever_the_service_is_called() -> None:
    entries = [
        {"type": kind, "attributes": {"capture_methods": [{"method": "ReadImage", "capture_frequency_hz": 2}]}}
        for kind in ("data_manager", "rdk:service:data_manager", "other")
    ]
    [camera] = parse_config(
        {"components": [{"name": "c", "api": "rdk:component:camera", "service_configs": entries}]}
    ).components
    assert [method.capture_frequency_hz for method in camera.capture_methods()] == [2, 2]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"components": [{"api": "rdk:component:camera"}]}, "components[0].name"),
        ({"components": [{"name": "-x", "api": "rdk:component:camera"}]}, "components[0].name"),
        ({"services": [{"name": "v", "api": "vision"}]}, "services[0].api"),
        ({"services": [5]}, "services[0]"),
        ({"packages": [{"name": "p", "package": "o/p", "type": "song"}]}, "packages[0].type"),
        ({"cloud": {"id": "p", "refresh_interval_s": 0}}, "cloud.refresh_interval_s"),
        ({"network": {"bind_address": 5}}, "network.bind_address"),
        ([], ""),
    ],
)
def test_problems_name_their_place(value: Any, path: str) -> None:
    assert path in problems(value)


def test_every_problem_is_named_at_once() -> None:
    assert set(problems({"components": [{"api": "x"}, {"name": "a", "api": "y"}]})) == {
        "components[0].name",
        "components[0].api",
        "components[1].api",
    }


def test_two_resources_of_one_api_cannot_share_a_name() -> None:
    camera = {"name": "c", "api": "rdk:component:camera"}
    assert (
        "two resources of rdk:component:camera are named 'c': rename one"
        in problems({"components": [camera, camera]})[""]
    )
    parse_config({"components": [camera], "services": [{"name": "c", "api": "rdk:service:vision"}]})


def test_unknown_top_level_keys_are_kept() -> None:
    assert (parse_config({"fragments": ["f"]}).model_extra or {})["fragments"] == ["f"]


def test_only_known_environment_variables_are_put_in() -> None:
    text = '{"a": "${HOME_OF_A}", "b": "${packages.x}", "c": "${UNKNOWN}", "d": "$HOME_OF_A"}'
    assert expand_environment(text, {"HOME_OF_A": "/a"}) == text.replace("${HOME_OF_A}", "/a")


def test_paths_are_written_as_in_javascript() -> None:
    assert format_path(("components", 0, "attributes", "x", 1)) == "components[0].attributes.x[1]"
    assert format_path(()) == ""


def test_pipe_frames() -> None:
    assert unpack_pipe(pack_pipe(4_000_000_000, b"abc")) == (4_000_000_000, b"abc")
    assert unpack_pipe(pack_pipe(1)) == (1, b"")
    with pytest.raises(ValueError, match="at least 4 bytes"):
        unpack_pipe(b"\x00")


def test_notices_of_newer_apps_are_recognised_as_unknown() -> None:
    assert is_notice({"type": "restart"})
    assert not is_notice({"type": "dance"})
    assert not is_notice(["restart"])


def test_a_part_id_that_was_copied_with_spaces_is_still_the_parts() -> None:
    """Headers drop them and ids of files would not: every capture would arrive as one that was changed on its way."""
    cloud = parse_config({"cloud": {"id": " part-1\n", "secret": " s3cret "}}).cloud
    assert cloud is not None
    assert (cloud.id, cloud.secret) == ("part-1", "s3cret")
