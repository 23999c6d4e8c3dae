"""The colour detector as a service."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest
from test_vision_mlmodel import Host, StillCamera
from viam.errors import ViamGRPCError
from viam.media.video import CameraMimeType

from gleaner.machine.models import vision_color_detector
from gleaner.machine.models.base import BuildContext


async def build(host: Host, **attributes: object) -> vision_color_detector.ColorDetector:
    parsed = vision_color_detector.SPEC.attributes.model_validate(
        {"detect_color": "#D91F2A", "hue_tolerance_pct": 0.06, "segment_size_px": 100, **attributes}
    )
    context = BuildContext("red", parsed, {}, host, logging.getLogger("test"))  # type: ignore[arg-type]
    return await vision_color_detector.SPEC.build(context)  # type: ignore[return-value]


@pytest.fixture
def host() -> Host:
    picture = np.full((100, 200, 3), 190, np.uint8)
    picture[20:60, 50:150] = (42, 31, 217)  # BGR
    host = Host()
    host.resources["cam", "camera"] = StillCamera(cv2.imencode(".png", picture)[1].tobytes(), CameraMimeType.PNG)
    return host


async def test_a_patch_of_the_colour_is_boxed_with_certainty_and_its_hue_as_name(host: Host) -> None:
    detector = await build(host, camera_name="cam")
    (found,) = await detector.get_detections_from_camera("")
    assert (found.class_name, found.confidence) == ("red", 1.0)
    assert (found.x_min, found.y_min, found.x_max, found.y_max) == (50, 20, 149, 59)
    assert found.x_min_normalized == pytest.approx(0.25)
    result = await detector.capture_all_from_camera("cam", False, True, True)
    assert (result.image, result.classifications) == (None, None)
    assert result.detections
    assert result.detections[0].class_name == "red"


async def test_its_label_can_be_chosen_and_small_patches_left_out(host: Host) -> None:
    assert (await (await build(host, label="stop sign")).get_detections_from_camera("cam"))[0].class_name == "stop sign"
    assert await (await build(host, segment_size_px=5000)).get_detections_from_camera("cam") == []


async def test_it_is_no_classifier(host: Host) -> None:
    detector = await build(host)
    assert (await detector.get_properties()).detections_supported
    with pytest.raises(ViamGRPCError, match="does not implement a Classifier"):
        await detector.get_classifications_from_camera("cam", 1)
