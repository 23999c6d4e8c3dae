"""Any machine configuration that Viam's message can hold is the same after JSON → message → JSON."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gleaner.wire.durations import format_duration_ns, parse_duration_ns
from gleaner.wire.frame_config import orientation_vector_degrees
from gleaner.wire.machine_config import ConfigProblem, parse_config
from gleaner.wire.robot_config import from_proto, to_proto

names = st.from_regex(r"[a-zA-Z0-9][-a-zA-Z0-9_]{0,20}", fullmatch=True)
text = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(text, values, max_size=4)
durations = st.integers(0, 10**15).map(format_duration_ns)
flags = st.booleans()
lengths = st.floats(-1e6, 1e6)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


orientations = st.one_of(
    st.fixed_dictionaries({"type": st.just(kind), "value": st.fixed_dictionaries(dict.fromkeys(keys, lengths))})
    for kind, keys in {
        "ov_degrees": ("th", "x", "y", "z"),
        "ov_radians": ("th", "x", "y", "z"),
        "euler_angles": ("roll", "pitch", "yaw"),
        "axis_angles": ("th", "x", "y", "z"),
        "quaternion": ("w", "x", "y", "z"),
    }.items()
)
positions = st.fixed_dictionaries(dict.fromkeys("xyz", lengths))
sizes = st.floats(0.5, 1e4)
geometries = st.one_of(
    st.fixed_dictionaries({"type": st.just("box"), "x": sizes, "y": sizes, "z": sizes}),
    st.fixed_dictionaries({"type": st.just("sphere"), "r": sizes}),
    st.fixed_dictionaries({"type": st.just("capsule"), "r": sizes, "l": sizes}),
    st.fixed_dictionaries({"type": st.just("point")}),
)
frames = st.fixed_dictionaries(
    {"parent": names}, optional={"translation": positions, "orientation": orientations, "geometry": geometries}
)
service_configs = st.lists(st.fixed_dictionaries({"type": st.just("data_manager"), "attributes": objects}), max_size=2)


def resources(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    optional = {"attributes": objects, "depends_on": st.lists(names, max_size=3), "service_configs": service_configs}
    optional["log_configuration"] = st.just({"level": "debug"})
    if kind == "component":
        optional["frame"] = frames
    required = {
        "name": names,
        "api": st.just(f"rdk:{kind}:thing"),
        "model": st.sampled_from(["rdk:builtin:fake", "acme:tools:saw"]),
    }
    return st.fixed_dictionaries(required, optional=optional)


configs = some(
    components=st.lists(resources("component"), max_size=3, unique_by=lambda r: r["name"]),
    services=st.lists(resources("service"), max_size=3, unique_by=lambda r: r["name"]),
    packages=st.lists(
        st.fixed_dictionaries(
            {"name": names, "package": text, "version": text, "type": st.sampled_from(["ml_model", "module"])}
        ),
        max_size=2,
    ),
    modules=st.lists(
        some(
            name=names,
            executable_path=text,
            type=text,
            env=st.dictionaries(names, text, max_size=2),
            log_level=text,
            module_id=text,
            tcp_mode=flags,
            first_run_timeout=durations,
        ),
        max_size=2,
    ),
    processes=st.lists(
        some(
            id=names, name=text, args=st.lists(text, max_size=2), stop_signal=st.integers(0, 30), stop_timeout=durations
        ),
        max_size=2,
    ),
    remotes=st.lists(
        some(
            name=names,
            address=text,
            frame=frames,
            insecure=flags,
            prefix=text,
            reconnect_interval=durations,
            auth=some(entity=text, credentials=st.fixed_dictionaries({"type": st.just("api-key"), "payload": text})),
        ),
        max_size=2,
    ),
    network=some(
        bind_address=text,
        no_tls=flags,
        sessions=some(heartbeat_window=durations),
        traffic_tunnel_endpoints=st.lists(some(port=st.integers(1, 65535), connection_timeout=durations), max_size=2),
    ),
    auth=some(
        handlers=st.lists(
            st.fixed_dictionaries({"type": st.sampled_from(["api-key", "robot-location-secret"]), "config": objects}),
            max_size=2,
        ),
        tls_auth_entities=st.lists(text, max_size=2),
        external_auth_config=st.fixed_dictionaries({"jwks": objects}),
    ),
    cloud=some(
        id=text,
        fqdn=text,
        location_secrets=st.lists(some(id=text, secret=text), max_size=2),
        primary_org_id=text,
        machine_id=text,
    ),
    jobs=st.lists(some(name=names, schedule=text, resource=text, method=text, command=objects), max_size=2),
    log=st.lists(some(pattern=text, level=text), max_size=2),
    maintenance=st.fixed_dictionaries(
        {"sensor_name": st.sampled_from(["rdk:component:sensor/s1", "s1"]), "maintenance_allowed_key": text}
    ),
    tracing=some(enabled=flags, disk=flags, console=flags, otlpendpoint=text),
    revision=text,
    debug=flags,
    enable_web_profile=flags,
    disable_log_deduplication=flags,
)


def without_empty(value: Any, inside_free_object: bool = False) -> Any:
    """Empty values mean the same as missing ones, except inside attributes, where every value counts."""
    if isinstance(value, dict):
        items = {
            key: without_empty(item, inside_free_object or key in ("attributes", "config", "command", "jwks"))
            for key, item in value.items()
        }
        return (
            items
            if inside_free_object
            else {k: v for k, v in items.items() if v not in ({}, [], "", None, 0, False, "0s")}
        )
    if isinstance(value, list):
        return [without_empty(item, inside_free_object) for item in value]
    return value


@settings(deadline=None)  # a busy machine is not a failure
@given(configs)
def test_every_value_survives_the_trip_through_the_message(config: dict[str, Any]) -> None:
    assert without_empty(from_proto(to_proto(config))) == without_empty(config)


@settings(deadline=None)  # a busy machine is not a failure
@given(configs)
def test_the_message_survives_the_trip_through_json(config: dict[str, Any]) -> None:
    message = to_proto(config)
    assert to_proto(from_proto(message)) == message


@given(st.integers(-(10**17), 10**17))
def test_durations_are_exact(value_ns: int) -> None:
    assert parse_duration_ns(format_duration_ns(value_ns)) == value_ns


def test_old_style_resources_get_their_triplets() -> None:
    message = to_proto(
        {
            "components": [{"name": "cam", "type": "camera", "model": "webcam"}],
            "services": [{"type": "data_manager"}],
        }
    )
    camera, manager = message.components[0], message.services[0]
    assert (camera.api, camera.type, camera.model) == ("rdk:component:camera", "camera", "rdk:builtin:webcam")
    assert (manager.name, manager.api, manager.model) == ("builtin", "rdk:service:data_manager", "rdk:builtin:builtin")
    parsed = parse_config(from_proto(message))
    assert [r.api for r in parsed.resources()] == ["rdk:component:camera", "rdk:service:data_manager"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"network": {"sessions": {"heartbeat_window": "soon"}}}, "'soon' is not a duration"),
        ({"network": {"sessions": {"heartbeat_window": 5}}}, "write it like 500ms"),
        (
            {"components": [{"name": "a", "frame": {"orientation": {"type": "sideways"}}}]},
            "orientation type 'sideways' is not known",
        ),
        ({"components": [{"name": ["a"], "api": "rdk:component:base"}]}, "name"),
        ({"components": "none"}, "components"),
    ],
)
def test_what_the_message_cannot_hold_is_named(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigProblem, match=expected):
        to_proto(config)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (None, (0, 0, 1, 0)),
        ({"type": "quaternion", "value": {"w": 1, "x": 0, "y": 0, "z": 0}}, (0, 0, 1, 0)),
        # A quarter turn about z leaves the axis and shows up in theta.
        ({"type": "axis_angles", "value": {"th": 1.5707963267948966, "x": 0, "y": 0, "z": 1}}, (0, 0, 1, 90)),
        # A quarter turn about y lays +z onto +x.
        ({"type": "euler_angles", "value": {"pitch": 1.5707963267948966}}, (1, 0, 0, 0)),
        ({"type": "ov_radians", "value": {"th": 3.141592653589793, "x": 0, "y": 0, "z": 2}}, (0, 0, 1, 180)),
    ],
)
def test_orientations_become_vectors_in_degrees(
    orientation: dict[str, Any] | None, expected: tuple[float, ...]
) -> None:
    assert orientation_vector_degrees(orientation) == pytest.approx(expected, abs=1e-6)
