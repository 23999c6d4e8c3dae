"""The methods whose captures are pictures and point clouds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from viam.proto.app.data import Annotations, BoundingBox, Classification

from gleaner.machine.capture.errors import BadCaptureParameters
from gleaner.machine.capture.methods import Blob, Call
from gleaner.wire.capture_file import extension_for
from gleaner.wire.track_names import split_track

JPEG = "image/jpeg"
PNG = "image/png"
_ENCODABLE = (JPEG, PNG)


def check_read_image(api: str, params: Mapping[str, Any]) -> None:
    mime_type = params.get("mime_type", JPEG)
    if not isinstance(mime_type, str):
        raise BadCaptureParameters(f"additional_params of ReadImage on {api}: mime_type must be text like image/jpeg")


def check_capture_all(api: str, params: Mapping[str, Any]) -> None:
    if not params.get("camera_name"):
        raise BadCaptureParameters(
            f"additional_params of CaptureAllFromCamera on {api} must name the camera: camera_name"
        )
    score = params.get("min_confidence_score", 0)
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise BadCaptureParameters(f"min_confidence_score is {score!r}, expected a number from 0 to 1")


async def read_image(call: Call) -> list[Blob]:
    """One picture in the wanted type; the first one converted when the camera has none of that type."""
    wanted = call.params.get("mime_type") or JPEG
    images, metadata = await call.resource.get_images(extra=call.extra)
    if not images:
        raise ValueError("the camera returned no picture")
    chosen = next((image for image in images if str(image.mime_type) == wanted), images[0])
    payload, mime_type = chosen.data, str(chosen.mime_type)
    if mime_type != wanted and wanted in _ENCODABLE:
        payload, mime_type = await asyncio.to_thread(_convert, payload, wanted), wanted
    return [Blob(payload, mime_type, extension_for(mime_type), received_ns=_captured_at_ns(metadata))]


async def get_images(call: Call) -> list[Blob]:
    """Every picture a blob of its own, labelled with its source's name where the camera has several.

    Viam labels a single picture too; then the label says nothing and only looks like something that was recognised.
    """
    names = call.params.get("filter_source_names")
    images, metadata = await call.resource.get_images(filter_source_names=names, extra=call.extra)
    received_ns = _captured_at_ns(metadata)
    blobs = []
    for image in images:
        is_one_of_several = len(images) > 1 and image.name
        label = Annotations(classifications=[Classification(label=image.name)] if is_one_of_several else [])
        mime_type = str(image.mime_type)
        blobs.append(Blob(image.data, mime_type, "", label.SerializeToString(), received_ns))
    return blobs


async def next_point_cloud(call: Call) -> list[Blob]:
    payload, mime_type = await call.resource.get_point_cloud(extra=call.extra)
    return [Blob(payload, str(mime_type) or "pointcloud/pcd", ".pcd")]


async def capture_all_from_camera(call: Call) -> list[Blob]:
    """The picture with what the vision service saw in it."""
    result = await call.resource.capture_all_from_camera(
        call.params["camera_name"],
        return_image=True,
        return_classifications=True,
        return_detections=True,
        extra=call.extra,
    )
    if result.image is None:
        raise ValueError("the vision service returned no picture")
    least = float(call.params.get("min_confidence_score") or 0)
    annotations = Annotations(
        bboxes=_boxes(result.detections or (), result.image, least),
        classifications=[
            Classification(label=c.class_name, confidence=c.confidence)
            for c in result.classifications or ()
            if c.confidence >= least
        ],
    )
    return [Blob(result.image.data, str(result.image.mime_type), "", annotations.SerializeToString())]


def _boxes(detections: Iterable[Any], image: Any, least: float) -> list[BoundingBox]:
    boxes = []
    for found in detections:
        if found.confidence < least:
            continue
        corners = _corners(found, image.width, image.height)
        if corners is not None:
            x_min, y_min, x_max, y_max = corners
            boxes.append(
                BoundingBox(
                    label=split_track(found.class_name)[0],  # what was seen; a label per thing would teach nothing
                    confidence=found.confidence,
                    x_min_normalized=x_min,
                    y_min_normalized=y_min,
                    x_max_normalized=x_max,
                    y_max_normalized=y_max,
                )
            )
    return boxes


def _corners(found: Any, width: int | None, height: int | None) -> tuple[float, float, float, float] | None:
    """Normalized corners of a detection; None when neither they nor the picture's size are known."""
    if found.HasField("x_max_normalized"):
        corners = (found.x_min_normalized, found.y_min_normalized, found.x_max_normalized, found.y_max_normalized)
    elif width and height:
        corners = (found.x_min / width, found.y_min / height, found.x_max / width, found.y_max / height)
    else:
        return None
    x_min, y_min, x_max, y_max = (min(1.0, max(0.0, float(c))) for c in corners)
    return x_min, y_min, x_max, y_max


def _captured_at_ns(metadata: Any) -> int | None:
    at = metadata.captured_at
    time_ns: int = at.seconds * 1_000_000_000 + at.nanos
    return time_ns or None


def _convert(payload: bytes, mime_type: str) -> bytes:
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("the camera's picture cannot be decoded to convert it")
    worked, encoded = cv2.imencode(".jpg" if mime_type == JPEG else ".png", image)
    if not worked:
        raise ValueError(f"the camera's picture cannot be encoded as {mime_type}")
    return encoded.tobytes()
