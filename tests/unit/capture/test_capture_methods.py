"""Each capturable method, read from a real viam-sdk resource object of that kind."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from viam.media.video import CameraMimeType, NamedImage, ViamImage
from viam.proto.app.data import Annotations
from viam.proto.common import GeoPoint, Orientation, Pose, ResponseMetadata, Vector3
from viam.proto.component.arm import JointPositions
from viam.proto.service.vision import Classification, Detection
from viam.services.vision import CaptureAllResult

from gleaner.machine.capture.errors import BadCaptureParameters, MethodNotCapturable
from gleaner.machine.capture.methods import Blob, Call, find_method
from gleaner.wire.sensor_data import encode_struct


class Answering:
    """A resource whose every async getter answers what the test says, and which remembers the `extra` it got."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers
        self.extras: list[dict[str, Any]] = []
        self.arguments: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._answers:
            raise AttributeError(name)

        async def answer(*arguments: Any, extra: dict[str, Any] | None = None, **_options: Any) -> Any:
            self.extras.append(extra or {})
            self.arguments.append(arguments)
            return self._answers[name]

        return answer


def picture(size: tuple[int, int] = (40, 30), extension: str = ".jpg") -> bytes:
    worked, encoded = cv2.imencode(extension, np.full((size[1], size[0], 3), 90, np.uint8))
    assert worked
    return encoded.tobytes()


async def read(api: str, method: str, resource: Any, **params: Any) -> Any:
    row = find_method(api, method)
    row.check(api, params)
    return await row.read(Call(resource, params))


POWER = {"get_voltage": (0.0, False), "get_current": (1.5, True), "get_power": 2.0}
MOVEMENT = {
    "get_position": (GeoPoint(latitude=40.7, longitude=0.0), 12.5),
    "get_linear_velocity": Vector3(x=0, y=1, z=2),
    "get_angular_velocity": Vector3(x=3, y=0, z=0),
    "get_linear_acceleration": Vector3(x=0, y=0, z=9.8),
    "get_compass_heading": 0.0,
    "get_orientation": Orientation(o_x=0, o_y=0, o_z=1, theta=90),
}
XYZ = {"x": 0.0, "y": 1.0, "z": 2.0}
TABULAR = [
    ("power_sensor", "Voltage", POWER, {"volts": 0.0, "is_ac": False}),
    ("power_sensor", "Current", POWER, {"amperes": 1.5, "is_ac": True}),
    ("power_sensor", "Power", POWER, {"watts": 2.0}),
    ("movement_sensor", "LinearVelocity", MOVEMENT, {"linear_velocity": XYZ}),
    ("movement_sensor", "AngularVelocity", MOVEMENT, {"angular_velocity": {"x": 3.0, "y": 0.0, "z": 0.0}}),
    ("movement_sensor", "CompassHeading", MOVEMENT, {"value": 0.0}),
    (
        "movement_sensor",
        "Position",
        MOVEMENT,
        {"coordinate": {"latitude": 40.7, "longitude": 0.0}, "altitude_m": 12.5},
    ),
    (
        "movement_sensor",
        "Orientation",
        MOVEMENT,
        {"orientation": {"o_x": 0.0, "o_y": 0.0, "o_z": 1.0, "theta": 90.0}},
    ),
    (
        "arm",
        "EndPosition",
        {"get_end_position": Pose(x=1, y=2, z=3, o_z=1, theta=4)},
        {"pose": {"x": 1.0, "y": 2.0, "z": 3.0, "o_x": 0.0, "o_y": 0.0, "o_z": 1.0, "theta": 4.0}},
    ),
    (
        "arm",
        "JointPositions",
        {"get_joint_positions": JointPositions(values=[1, 0])},
        {"positions": {"values": [1.0, 0.0]}},
    ),
    ("gantry", "Position", {"get_position": [1.0, 0.0]}, {"positions_mm": [1.0, 0.0]}),
    ("gantry", "Lengths", {"get_lengths": [5.0]}, {"lengths_mm": [5.0]}),
    ("motor", "Position", {"get_position": 0.0}, {"position": 0.0}),
    ("motor", "IsPowered", {"is_powered": (False, 0.0)}, {"is_on": False, "power_pct": 0.0}),
    ("servo", "Position", {"get_position": 90}, {"position_deg": 90}),
    ("encoder", "TicksCount", {"get_position": (7.0, 1)}, {"value": 7.0, "position_type": 1}),
]


@pytest.mark.parametrize(("kind", "method", "answers", "expected"), TABULAR, ids=[f"{k}.{m}" for k, m, *_ in TABULAR])
async def test_a_tabular_method_has_viams_fields(
    kind: str, method: str, answers: dict[str, Any], expected: dict[str, Any]
) -> None:
    resource = Answering(**answers)
    captured = await read(f"rdk:component:{kind}", method, resource)
    assert captured == expected
    encode_struct(captured)
    assert resource.extras == [{"fromDataManagement": True}]


async def test_readings_carry_viams_value_types_and_the_users_parameters() -> None:
    readings = {"where": GeoPoint(latitude=1, longitude=2), "spin": Vector3(x=1, y=2, z=3), "n": 4, "list": [1, "a"]}
    resource = Answering(get_readings=readings)
    captured = await read("rdk:component:sensor", "Readings", resource, depth=3)
    assert captured == {
        "readings": {
            "where": {"lat": 1.0, "lng": 2.0, "_type": "geopoint"},
            "spin": {"x": 1.0, "y": 2.0, "z": 3.0, "_type": "vector3"},
            "n": 4,
            "list": [1, "a"],
        }
    }
    assert resource.extras == [{"depth": 3, "fromDataManagement": True}]


async def test_a_command_is_captured_with_its_answer() -> None:
    resource = Answering(do_command={"state": "idle"})
    captured = await read("rdk:component:base", "DoCommand", resource, docommand_input={"get": "state"})
    assert captured == {"docommand_output": {"state": "idle"}}
    assert resource.arguments == [({"get": "state"},)]


async def test_board_methods_name_their_pin() -> None:
    pin = Answering(get=True)
    captured = await read("rdk:component:board", "Gpios", Answering(gpio_pin_by_name=pin), pin_name="11")
    assert captured == {"high": True}


@pytest.mark.parametrize(
    ("api", "method", "params", "words"),
    [
        ("rdk:component:board", "Analogs", {}, "reader_name"),
        ("rdk:component:board", "Gpios", {"pin_name": ""}, "pin_name"),
        ("rdk:component:base", "DoCommand", {}, "docommand_input"),
        ("rdk:service:vision", "CaptureAllFromCamera", {}, "camera_name"),
        ("rdk:service:vision", "CaptureAllFromCamera", {"camera_name": "c", "min_confidence_score": 2}, "0 to 1"),
        ("rdk:component:camera", "ReadImage", {"mime_type": 3}, "mime_type"),
    ],
)
def test_missing_parameters_are_named(api: str, method: str, params: dict[str, Any], words: str) -> None:
    with pytest.raises(BadCaptureParameters, match=words):
        find_method(api, method).check(api, params)


def test_an_unknown_method_says_which_there_are() -> None:
    with pytest.raises(MethodNotCapturable, match="DoCommand, GetImages, GetWorldPose, NextPointCloud, ReadImage"):
        find_method("rdk:component:camera", "GetReadings")


# --- pictures --------------------------------------------------------------------------------------------------------

CAPTURED_AT = ResponseMetadata(captured_at=Timestamp(seconds=1_700_000_000, nanos=5))
JPEG, PNG = CameraMimeType.JPEG, CameraMimeType.PNG


async def test_get_images_makes_one_blob_of_each_picture_with_the_cameras_time() -> None:
    images = [NamedImage("color", picture(), JPEG), NamedImage("", picture(extension=".png"), PNG)]
    blobs = await read("rdk:component:camera", "GetImages", Answering(get_images=(images, CAPTURED_AT)))
    assert [b.mime_type for b in blobs] == ["image/jpeg", "image/png"]
    assert {b.received_ns for b in blobs} == {1_700_000_000_000_000_005}
    assert [c.label for c in Annotations.FromString(blobs[0].annotations).classifications] == ["color"]
    assert blobs[1].annotations == b""


async def test_the_only_picture_of_a_camera_is_not_labelled_with_its_source() -> None:
    camera = Answering(get_images=([NamedImage("color", picture(), JPEG)], CAPTURED_AT))
    [blob] = await read("rdk:component:camera", "GetImages", camera)
    assert blob.annotations == b""


async def test_read_image_takes_the_wanted_type_when_the_camera_has_it() -> None:
    images = [NamedImage("a", picture(extension=".png"), PNG), NamedImage("b", picture(), JPEG)]
    [blob] = await read("rdk:component:camera", "ReadImage", Answering(get_images=(images, ResponseMetadata())))
    assert blob == Blob(images[1].data, "image/jpeg", ".jpeg")


async def test_read_image_converts_when_it_has_not() -> None:
    camera = Answering(get_images=([NamedImage("a", picture(), JPEG)], ResponseMetadata()))
    [blob] = await read("rdk:component:camera", "ReadImage", camera, mime_type="image/png")
    assert (blob.mime_type, blob.extension) == ("image/png", ".png")
    assert blob.payload.startswith(b"\x89PNG")


async def test_a_camera_without_a_picture_is_an_error() -> None:
    with pytest.raises(ValueError, match="no picture"):
        await read("rdk:component:camera", "ReadImage", Answering(get_images=([], ResponseMetadata())))


async def test_a_point_cloud_is_a_pcd() -> None:
    camera = Answering(get_point_cloud=(b"VERSION .7", CameraMimeType.PCD))
    assert await read("rdk:component:camera", "NextPointCloud", camera) == [
        Blob(b"VERSION .7", "pointcloud/pcd", ".pcd")
    ]


async def test_what_a_vision_service_saw_becomes_annotations() -> None:
    result = CaptureAllResult(
        image=ViamImage(picture((200, 100)), JPEG),
        detections=[
            Detection(x_min=20, y_min=10, x_max=100, y_max=60, confidence=0.9, class_name="red star_3_20261124_120005"),
            Detection(x_min=0, y_min=0, x_max=1, y_max=1, confidence=0.2, class_name="noise"),
        ],
        classifications=[Classification(class_name="arena", confidence=0.7)],
    )
    vision = Answering(capture_all_from_camera=result)
    [blob] = await read(
        "rdk:service:vision", "CaptureAllFromCamera", vision, camera_name="cam", min_confidence_score=0.5
    )
    annotations = Annotations.FromString(blob.annotations)
    [box] = annotations.bboxes
    assert (box.label, box.confidence) == ("red star", pytest.approx(0.9)), (
        "the label of what is followed, not its name"
    )
    corners = (box.x_min_normalized, box.y_min_normalized, box.x_max_normalized, box.y_max_normalized)
    assert corners == pytest.approx((0.1, 0.1, 0.5, 0.6))
    assert [(c.label, c.confidence) for c in annotations.classifications] == [("arena", pytest.approx(0.7))]
    assert vision.extras == [{"fromDataManagement": True}]
