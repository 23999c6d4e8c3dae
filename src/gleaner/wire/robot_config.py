"""A machine configuration as JSON and as `viam.app.v1.RobotConfig`, both ways.

The app serves the message in `RobotService.Config`; the machine reads it back. Everything the message can hold
survives the trip; empty values and defaults may disappear. Keys that only the app resolves (fragments, triggers) and
the addresses of the local `cloud` section have no place in the message and are not carried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from viam.proto.app.robot import RobotConfig

from gleaner.wire.durations import format_duration_ns, parse_duration_ns
from gleaner.wire.frame_config import frame_from_message, frame_to_message
from gleaner.wire.machine_config import ConfigProblem

_CREDENTIALS = {
    "internal": "CREDENTIALS_TYPE_INTERNAL",
    "api-key": "CREDENTIALS_TYPE_API_KEY",
    "robot-secret": "CREDENTIALS_TYPE_ROBOT_SECRET",
    "robot-location-secret": "CREDENTIALS_TYPE_ROBOT_LOCATION_SECRET",
}
_CREDENTIALS_BACK = {message: json for json, message in _CREDENTIALS.items()}

# Where durations are: Go text in the JSON, a protobuf Duration in the message. `*` is any entry of a list.
_DURATIONS = (
    "network.sessions.heartbeat_window",
    "network.traffic_tunnel_endpoints.*.connection_timeout",
    "processes.*.stop_timeout",
    "modules.*.first_run_timeout",
    "remotes.*.connection_check_interval",
    "remotes.*.reconnect_interval",
)


def to_proto(config: Mapping[str, Any]) -> RobotConfig:
    """The message for a configuration. Raises ConfigProblem when a value has the wrong type or form for Viam."""
    message = _copy(config)
    try:
        _each(message, "components.*", lambda c: _resource_to_message(c, "component"))
        _each(message, "services.*", lambda s: _resource_to_message(s, "service"))
        _each(message, "remotes.*.frame", frame_to_message)
        for path in _DURATIONS:
            _each(message, path, _duration_to_message)
        _each(message, "auth.handlers.*.type", lambda kind: _CREDENTIALS.get(kind, kind))
        _each(message, "remotes.*.auth.credentials.type", lambda kind: _CREDENTIALS.get(kind, kind))
        _each(message, "auth.external_auth_config.jwks", lambda keys: {"json": keys})
        _each(message, "modules.*", lambda m: _rename(m, "executable_path", "path"))
        _each(message, "tracing", lambda t: _rename(t, "otlpendpoint", "otlp_endpoint"))
        _each(message, "maintenance.sensor_name", _resource_name_to_message)
        parsed: RobotConfig = ParseDict(message, RobotConfig(), ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigProblem):
            raise
        raise ConfigProblem([("", f"{error}")]) from error
    return parsed


def from_proto(message: RobotConfig) -> dict[str, Any]:
    """The configuration as JSON, in the form that `machine_config.parse_config` reads."""
    config: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    for group in ("components", "services"):
        _each(config, f"{group}.*", partial(_resource_from_message, kind=group[:-1]))
    _each(config, "remotes.*.frame", frame_from_message)
    for path in _DURATIONS:
        _each(config, path, _duration_from_message)
    _each(config, "auth.handlers.*.type", lambda kind: _CREDENTIALS_BACK.get(kind, kind))
    _each(config, "remotes.*.auth.credentials.type", lambda kind: _CREDENTIALS_BACK.get(kind, kind))
    _each(config, "auth.external_auth_config.jwks", lambda keys: keys.get("json", {}))
    _each(config, "modules.*", lambda m: _rename(m, "path", "executable_path"))
    _each(config, "tracing", lambda t: _rename(t, "otlp_endpoint", "otlpendpoint"))
    _each(config, "maintenance.sensor_name", _resource_name_from_message)
    config.pop("overwrite_fragment_status", None)
    return config


def _resource_to_message(resource: Mapping[str, Any], kind: str) -> dict[str, Any]:
    message = dict(resource)
    api = message.get("api") or f"{message.get('namespace') or 'rdk'}:{kind}:{message.get('type') or ''}"
    namespace, _, subtype = api.partition(":")
    model = message.get("model") or ("builtin" if kind == "service" else "")
    message |= {"api": api, "namespace": namespace, "type": subtype.rpartition(":")[2]}
    message["model"] = model if ":" in model or not model else f"rdk:builtin:{model}"
    message["name"] = message.get("name") or ("builtin" if kind == "service" else "")
    entries = [*(message.pop("service_configs", None) or []), *(message.pop("service_config", None) or [])]
    if entries:
        message["service_configs"] = entries
    if message.get("frame"):
        message["frame"] = frame_to_message(message["frame"])
    return {key: value for key, value in message.items() if value is not None}


def _resource_from_message(message: Mapping[str, Any], kind: str) -> dict[str, Any]:
    resource = dict(message)
    namespace, subtype = resource.pop("namespace", "") or "rdk", resource.pop("type", "")
    resource["api"] = resource.get("api") or f"{namespace}:{kind}:{subtype}"
    if "frame" in resource:
        resource["frame"] = frame_from_message(resource["frame"])
    return resource


def _duration_to_message(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not a duration: write it like 500ms, 2s or 1m30s, in quotes")
    value = parse_duration_ns(text)
    return f"{'-' if value < 0 else ''}{abs(value) // 10**9}.{abs(value) % 10**9:09d}s"


def _duration_from_message(text: str) -> str:
    whole, _, fraction = text.removesuffix("s").lstrip("-").partition(".")
    value = int(whole) * 10**9 + int(fraction.ljust(9, "0") or 0)
    return format_duration_ns(-value if text.startswith("-") else value)


def _resource_name_to_message(name: Any) -> Any:
    """`rdk:component:sensor/s1` as a ResourceName; a text that is no full name is carried as the bare name."""
    api, slash, short = str(name).partition("/")
    parts = api.split(":")
    if not slash or len(parts) != 3:
        return {"name": str(name)}
    return {"namespace": parts[0], "type": parts[1], "subtype": parts[2], "name": short}


def _resource_name_from_message(name: Mapping[str, str]) -> str:
    if not name.get("subtype"):
        return name.get("name", "")
    return f"{name.get('namespace', '')}:{name.get('type', '')}:{name['subtype']}/{name.get('name', '')}"


def _rename(value: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: item for key, item in value.items()}


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _each(root: Any, path: str, change: Callable[[Any], Any]) -> None:
    """Replace every value at the path by `change(value)`; paths that are not there are passed over."""
    for holder, key in _places(root, path.split(".")):
        if holder[key] is not None:
            holder[key] = change(holder[key])


def _places(value: Any, path: list[str]) -> Iterator[tuple[Any, Any]]:
    head, rest = path[0], path[1:]
    keys: list[Any] = []
    if head == "*" and isinstance(value, list):
        keys = list(range(len(value)))
    elif isinstance(value, dict) and head in value:
        keys = [head]
    for key in keys:
        if rest:
            yield from _places(value[key], rest)
        else:
            yield value, key
