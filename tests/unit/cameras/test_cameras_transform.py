"""The transform camera, against the public description of Viam's (order of steps, of filters, messages)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from camera_pictures import picture
from pydantic import ValidationError
from viam.proto.service.vision import Classification, Detection
from viam.services.vision import Vision

from gleaner.machine.models import camera_transform
from gleaner.machine.models.frame_camera import FrameCamera
from gleaner.machine.models.frames import OnDemandSource
from gleaner.machine.models.pictures import CameraProblem, decode_image, jpeg_picture

STAMP_NS = 1_700_000_000_123_456_000


class FixedVision(Vision):
    """Answers what the test says, and remembers the size of the picture it was shown."""

    def __init__(
        self,
        classes: Sequence[tuple[str, float]] = (),
        boxes: Sequence[tuple[str, float, tuple[int, int, int, int]]] = (),
    ):
        super().__init__("see")
        self.classes, self.boxes = classes, boxes
        self.shown: list[tuple[int, int]] = []
        self.data: list[bytes] = []
        self.extras: list[Any] = []

    async def get_classifications(self, image: Any, count: int, **_: Any) -> list[Classification]:
        self.shown.append((image.width, image.height))
        self.data.append(image.data)
        return [Classification(class_name=n, confidence=c) for n, c in self.classes]

    async def get_detections(self, image: Any, *, extra: Any = None, **_: Any) -> list[Detection]:
        self.extras.append(extra)
        self.shown.append((image.width, image.height))
        return [
            Detection(class_name=n, confidence=c, x_min=b[0], y_min=b[1], x_max=b[2], y_max=b[3])
            for n, c, b in self.boxes
        ]

    async def get_classifications_from_camera(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the overlay must use the frame it has")

    get_detections_from_camera = get_classifications_from_camera
    get_detections_3d = get_object_point_clouds = capture_all_from_camera = get_properties = (
        get_classifications_from_camera
    )


@pytest.fixture
async def source():
    frames = OnDemandSource("raw", lambda: jpeg_picture(picture(320, 240), 95, STAMP_NS), 200)
    camera = FrameCamera("raw", frames)
    yield camera
    await camera.close()


@pytest.fixture
def transformed(build, source):
    async def make(*pipeline: dict[str, Any], **more: Any):
        return await build(camera_transform.SPEC, {"raw": source}, source="raw", pipeline=list(pipeline), **more)

    return make


async def frame_of(camera) -> np.ndarray:
    images, _ = await camera.get_images()
    assert images[0].name == ""
    assert images[0].mime_type == "image/jpeg"
    return decode_image(images[0].data)


def red_text(frame: np.ndarray) -> np.ndarray:
    """(height, width) mask of overlay red over the blue left half of the picture."""
    left = frame[:, :160].astype(int)
    return (left[:, :, 2] > 150) & (left[:, :, 0] < 110)


def step(kind: str, **attributes: Any) -> dict[str, Any]:
    return {"type": kind, "attributes": attributes}


async def test_steps_run_in_order(transformed):
    first = await frame_of(
        await transformed(step("crop", x_min_px=0, y_min_px=0, x_max_px=0.5, y_max_px=1), step("rotate", angle_degs=90))
    )
    second = await frame_of(
        await transformed(step("rotate", angle_degs=90), step("crop", x_min_px=0, y_min_px=0, x_max_px=0.5, y_max_px=1))
    )
    assert first.shape == (160, 240, 3)
    assert second.shape == (320, 120, 3)


async def test_rotate_defaults_to_180(transformed):
    frame = await frame_of(await transformed({"type": "rotate"}))
    assert frame[100, 20, 2] > 150  # the red right half is on the left now


async def test_the_capture_time_is_the_sources(transformed):
    camera = await transformed(step("resize", width_px=64, height_px=32))
    images, metadata = await camera.get_images()
    assert metadata.captured_at.ToNanoseconds() == STAMP_NS
    assert (images[0].width, images[0].height) == (64, 32)


async def test_a_confident_label_is_written_on_the_picture(transformed, host):
    host.resources["see", "vision"] = FixedVision([("dull", 0.1), ("red_star", 0.93)])
    frame = await frame_of(await transformed(step("classifications", classifier_name="see", confidence_threshold=0.5)))
    mask = red_text(frame)
    assert mask.sum() > 200
    assert 30 <= np.flatnonzero(mask.any(axis=0))[0] <= 37


@pytest.mark.parametrize(
    ("classes", "attributes", "lines"),
    [
        ([("a", 0.6), ("b", 0.7)], {}, 1),  # the best one only, by default
        ([("a", 0.6), ("b", 0.7)], {"max_classifications": 2}, 2),
        ([("a", 0.6), ("b", 0.7)], {"max_classifications": 2, "confidence_threshold": 0.65}, 1),
        ([("a", 0.5)], {"confidence_threshold": 0.5}, 1),  # ≥
        ([("a", 0.49)], {"confidence_threshold": 0.5}, 0),
        ([("a", 0.6), ("b", 0.7)], {"valid_labels": ["A"]}, 0),  # top N first, then labels: b won, a is not looked at
        ([("a", 0.6), ("b", 0.7)], {"valid_labels": ["A"], "max_classifications": 2}, 1),  # letter case does not matter
        ([("VIAM_UNKNOWN", 0.9), ("b", 0.7)], {}, 0),  # won by "none of these": nothing is shown
        ([("VIAM_UNKNOWN", 0.9), ("b", 0.7)], {"max_classifications": 2}, 1),  # and it takes no line
        ([], {}, 0),
    ],
)
async def test_which_labels_are_written(transformed, host, classes, attributes, lines):
    host.resources["see", "vision"] = FixedVision(classes)
    mask = red_text(await frame_of(await transformed(step("classifications", classifier_name="see", **attributes))))
    rows = [mask[30 + 30 * n + 8 : 30 + 30 * n + 26].sum() > 30 for n in range(3)]
    assert sum(rows) == lines
    assert rows == sorted(rows, reverse=True)


async def test_boxes_over_the_threshold_with_a_wanted_label_are_drawn(transformed, host):
    boxes = [("cat", 0.9, (20, 120, 80, 200)), ("CAT", 0.3, (90, 120, 150, 200)), ("dog", 0.9, (90, 20, 150, 80))]
    host.resources["see", "vision"] = FixedVision(boxes=boxes)
    camera = await transformed(step("detections", detector_name="see", confidence_threshold=0.5, valid_labels=["Cat"]))
    mask = red_text(await frame_of(camera))
    assert mask[190, 18:24].any()
    assert not mask[190, 86:94].any()
    assert not mask[20:80, 86:94].any()


async def test_things_that_are_followed_are_drawn_with_their_number_and_found_by_their_label(transformed, host):
    vision = host.resources["see", "vision"] = FixedVision(boxes=[("cat_3_20261124_120005", 0.9, (20, 120, 80, 200))])
    wanted = step("detections", detector_name="see", valid_labels=["Cat"])
    drawn = await frame_of(await transformed(wanted))
    vision.boxes = [("cat #3", 0.9, (20, 120, 80, 200))]
    plain = step("detections", detector_name="see", valid_labels=["cat #3"])
    assert np.array_equal(drawn, await frame_of(await transformed(plain)))
    turned = await transformed(step("rotate"), wanted)
    await frame_of(turned)
    assert vision.extras == [{"camera_name": "raw"}, {"camera_name": "raw"}, {"camera_name": turned.name}]


async def test_a_box_outside_the_picture_is_an_error_of_the_read(transformed, host):
    host.resources["see", "vision"] = FixedVision(boxes=[("cat", 0.9, (300, 200, 400, 230))])
    with pytest.raises(CameraProblem, match="outside the picture of 320×240"):
        await frame_of(await transformed(step("detections", detector_name="see")))


async def test_the_vision_service_sees_the_frame_that_is_drawn_on(transformed, host):
    vision = host.resources["see", "vision"] = FixedVision([("a", 0.9)])
    await frame_of(
        await transformed(step("resize", width_px=100, height_px=50), step("classifications", classifier_name="see"))
    )
    assert vision.shown == [(100, 50)]


async def test_an_untouched_picture_is_shown_to_the_service_byte_for_byte(transformed, host, source):
    """The confidence on the picture is then the very one that the vision service's own panel shows."""
    vision = host.resources["see", "vision"] = FixedVision([("a", 0.9)])
    camera = await transformed(
        step("classifications", classifier_name="see", confidence_threshold=0.99),  # draws nothing
        step("classifications", classifier_name="see"),
        step("classifications", classifier_name="see"),
    )
    await camera.get_images()
    original = (await source.get_images())[0][0].data
    assert [data == original for data in vision.data] == [True, True, False]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (step("classifications", classifier_name="see"), "source_classifier can't find vision service"),
        (step("detections", detector_name="see"), "source_detector cant find vision service"),
    ],
)
async def test_a_missing_vision_service_fails_the_read_and_recovers(transformed, host, stage, message):
    camera = await transformed(stage)
    with pytest.raises(CameraProblem, match=message):
        await camera.get_images()
    host.resources["see", "vision"] = FixedVision([("a", 0.9)])
    await camera.get_images()


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ([], "pipeline has no transforms in it"),
        ([step("resize", width_px=0, height_px=10)], r"pipeline\[0\]: new width for resize transform cannot be 0"),
        (
            [step("rotate"), step("crop", x_min_px=5, y_min_px=0, x_max_px=5, y_max_px=9)],
            r"pipeline\[1\]: cannot crop image to 0 width",
        ),
        ([step("identity")], "identity"),
        ([step("detections")], "detector_name"),
    ],
)
async def test_a_pipeline_that_cannot_work_is_refused_when_built(transformed, pipeline, message):
    with pytest.raises((ValueError, ValidationError), match=message):
        await transformed(*pipeline)


async def test_a_missing_source_camera_is_named(build):
    with pytest.raises(ValueError, match="'nowhere' is not a camera"):
        await build(camera_transform.SPEC, {}, source="nowhere", pipeline=[step("rotate")])


async def test_the_given_intrinsics_are_reported(transformed):
    camera = await transformed(
        step("rotate"),
        intrinsic_parameters={"width_px": 320, "height_px": 240, "fx": 1, "fy": 2, "ppx": 3, "ppy": 4},
        distortion_parameters={"rk1": 0.5},
    )
    answer = await camera.get_properties()
    assert (answer.intrinsic_parameters.focal_y_px, answer.intrinsic_parameters.center_x_px) == (2, 3)
    assert list(answer.distortion_parameters.parameters) == [0.5, 0, 0, 0, 0]


async def test_the_source_is_a_dependency():
    attributes = camera_transform.TransformAttributes(source="raw", pipeline=[{"type": "rotate"}])
    assert list(camera_transform.SPEC.dependencies(attributes)) == ["raw"]
