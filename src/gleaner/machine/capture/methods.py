"""What can be captured: one row per (API, method), read straight from the resource object.

A row's `read` calls the resource and returns either one reading (a dictionary, snake_case like Viam's protobuf fields,
zeros included) or blobs (one file each). Names and shapes: Viam's public data-capture documentation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from gleaner.machine.capture.errors import BadCaptureParameters, MethodNotCapturable
from gleaner.wire.world_pose import Frames

FROM_DATA_MANAGEMENT = "fromDataManagement"
"""Truthy in `extra` of every call, so that a driver can veto with NoCaptureToStoreError."""


@dataclass(frozen=True)
class Blob:
    """One binary capture. `annotations` is serialized `viam.app.data.v1.Annotations`."""

    payload: bytes
    mime_type: str
    extension: str = ""
    annotations: bytes = b""
    received_ns: int | None = None
    """When the device took it; None: when the call returned."""


Captured = Mapping[str, Any] | Sequence[Blob]


@dataclass(frozen=True)
class Call:
    resource: Any
    params: Mapping[str, Any]
    interval_s: float = 1.0
    """From one tick to the next: the length of a clip."""
    frames: Callable[[], Frames] = dict
    """The frames of the machine's components as they are now, by name."""
    name: str = ""
    """The resource's in this machine; a remote's knows itself by the other machine's."""

    @property
    def extra(self) -> dict[str, Any]:
        return {FROM_DATA_MANAGEMENT: True}


Read = Callable[[Call], Awaitable[Captured]]
Check = Callable[[str, Mapping[str, Any]], None]


def _nothing_to_check(_api: str, _params: Mapping[str, Any]) -> None:
    return None


@dataclass(frozen=True)
class Method:
    """`read` may raise anything the driver raises. `check` raises BadCaptureParameters before capture begins."""

    read: Read
    is_binary: bool = False
    check: Check = _nothing_to_check
    read_now: Callable[[Call], Captured] | None = None
    """For a resource that `is_instant`: the same as `read`, in any thread and at once."""


@runtime_checkable
class InstantReadings(Protocol):
    """A sensor that has its values at hand: it is read in the scheduler's thread, up to thousands of times a second."""

    def readings_now(self, *, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        """As `get_readings`, from any thread and without ever waiting."""


def is_instant(resource: Any) -> bool:
    return isinstance(resource, InstantReadings)


def find_method(api: str, method: str) -> Method:
    """Raises MethodNotCapturable, naming what the API does have."""
    row = TABLE.get((api, method))
    if row is None and method == "DoCommand":
        return Method(_do_command, check=_requires("docommand_input"))
    if row is None and method == "GetWorldPose" and ":component:" in api:
        return Method(_world_pose)
    if row is None:
        everywhere = {"DoCommand", "GetWorldPose"} if ":component:" in api else {"DoCommand"}
        known = sorted({name for (row_api, name) in TABLE if row_api == api} | everywhere)
        raise MethodNotCapturable(
            f"cannot capture {method!r} of {api}: it has {', '.join(known)}. Correct the method in capture_methods"
        )
    return row


def _requires(*names: str) -> Check:
    def check(api: str, params: Mapping[str, Any]) -> None:
        for name in names:
            if params.get(name) in (None, ""):
                raise BadCaptureParameters(
                    f"additional_params for {api} must have {name!r}: add it to the capture method"
                )

    return check


# --- tabular rows ----------------------------------------------------------------------------------------------------


def _values(getter: str, shape: Callable[[Any], Mapping[str, Any]]) -> Method:
    """A row that calls one getter and puts its answer into Viam's field names."""

    async def read(call: Call) -> Captured:
        return shape(await getattr(call.resource, getter)(extra=call.extra))

    return Method(read)


async def _readings(call: Call) -> Captured:
    extra = {**call.params, **call.extra}
    readings = await call.resource.get_readings(extra=extra)
    return {"readings": {key: plain_reading(value) for key, value in readings.items()}}


def _readings_now(call: Call) -> Captured:
    readings = call.resource.readings_now(extra={**call.params, **call.extra})
    return {"readings": {key: plain_reading(value) for key, value in readings.items()}}


async def _do_command(call: Call) -> Captured:
    command = dict(call.params["docommand_input"])
    return {"docommand_output": dict(await call.resource.do_command(command))}


async def _world_pose(call: Call) -> Captured:
    from gleaner.wire.world_pose import world_pose

    return {"pose": asdict(world_pose(call.frames(), call.name))}


async def _slam_position(call: Call) -> Captured:
    pose = await call.resource.get_position(timeout=None)
    return {"pose": {**_xyz(pose), **_orientation(pose)}}


async def _slam_map(call: Call) -> Captured:
    chunks = await call.resource.get_point_cloud_map(timeout=None)
    return [Blob(b"".join(chunks), "pointcloud/pcd", ".pcd")]


async def _analog(call: Call) -> Captured:
    analog = await call.resource.analog_by_name(call.params["reader_name"])
    value = await analog.read(extra=call.extra)
    return {
        "value": value.value,
        "min_range": value.min_range,
        "max_range": value.max_range,
        "step_size": value.step_size,
    }


async def _gpio(call: Call) -> Captured:
    pin = await call.resource.gpio_pin_by_name(call.params["pin_name"])
    return {"high": await pin.get(extra=call.extra)}


async def _ticks(call: Call) -> Captured:
    value, position_type = await call.resource.get_position(extra=call.extra)
    return {"value": value, "position_type": int(position_type)}


def plain_reading(value: Any) -> Any:
    """viam-sdk's value types as the dictionaries that its readings carry on the wire."""
    match type(value).__name__:
        case "Vector3":
            return {"x": value.x, "y": value.y, "z": value.z, "_type": "vector3"}
        case "GeoPoint":
            return {"lat": value.latitude, "lng": value.longitude, "_type": "geopoint"}
        case "Orientation":
            return {
                "ox": value.o_x,
                "oy": value.o_y,
                "oz": value.o_z,
                "theta": value.theta,
                "_type": "orientation_vector_degrees",
            }
    return value


def _xyz(vector: Any) -> dict[str, float]:
    return {"x": vector.x, "y": vector.y, "z": vector.z}


def _orientation(value: Any) -> dict[str, float]:
    return {"o_x": value.o_x, "o_y": value.o_y, "o_z": value.o_z, "theta": value.theta}


def _position(answer: Any) -> dict[str, Any]:
    point, altitude_m = answer
    return {
        "coordinate": {"latitude": point.latitude, "longitude": point.longitude},
        "altitude_m": altitude_m,
    }


def _table() -> dict[tuple[str, str], Method]:
    from gleaner.machine.capture import audio, pictures

    readings = Method(_readings, read_now=_readings_now)
    rows: dict[str, dict[str, Method]] = {
        "camera": {
            "ReadImage": Method(pictures.read_image, True, pictures.check_read_image),
            "GetImages": Method(pictures.get_images, True),
            "NextPointCloud": Method(pictures.next_point_cloud, True),
        },
        "sensor": {"Readings": readings},
        "power_sensor": {
            "Voltage": _values("get_voltage", lambda v: {"volts": v[0], "is_ac": v[1]}),
            "Current": _values("get_current", lambda v: {"amperes": v[0], "is_ac": v[1]}),
            "Power": _values("get_power", lambda v: {"watts": v}),
            "Readings": readings,
        },
        "movement_sensor": {
            "Position": _values("get_position", _position),
            "LinearVelocity": _values("get_linear_velocity", lambda v: {"linear_velocity": _xyz(v)}),
            "AngularVelocity": _values("get_angular_velocity", lambda v: {"angular_velocity": _xyz(v)}),
            "LinearAcceleration": _values("get_linear_acceleration", lambda v: {"linear_acceleration": _xyz(v)}),
            "CompassHeading": _values("get_compass_heading", lambda v: {"value": v}),
            "Orientation": _values("get_orientation", lambda v: {"orientation": _orientation(v)}),
            "Readings": readings,
        },
        "board": {
            "Analogs": Method(_analog, check=_requires("reader_name")),
            "Gpios": Method(_gpio, check=_requires("pin_name")),
        },
        "arm": {
            "EndPosition": _values("get_end_position", lambda v: {"pose": {**_xyz(v), **_orientation(v)}}),
            "JointPositions": _values("get_joint_positions", lambda v: {"positions": {"values": list(v.values)}}),
        },
        "gantry": {
            "Position": _values("get_position", lambda v: {"positions_mm": list(v)}),
            "Lengths": _values("get_lengths", lambda v: {"lengths_mm": list(v)}),
        },
        "motor": {
            "Position": _values("get_position", lambda v: {"position": v}),
            "IsPowered": _values("is_powered", lambda v: {"is_on": v[0], "power_pct": v[1]}),
        },
        "servo": {"Position": _values("get_position", lambda v: {"position_deg": v})},
        "encoder": {"TicksCount": Method(_ticks)},
        "audio_in": {"GetAudio": Method(audio.get_audio, True, audio.check_get_audio)},
    }
    table = {(f"rdk:component:{kind}", name): row for kind, methods in rows.items() for name, row in methods.items()}
    table["rdk:service:slam", "Position"] = Method(_slam_position)
    table["rdk:service:slam", "PointCloudMap"] = Method(_slam_map, True)
    table["rdk:service:vision", "CaptureAllFromCamera"] = Method(
        pictures.capture_all_from_camera, True, pictures.check_capture_all
    )
    return table


TABLE = _table()
