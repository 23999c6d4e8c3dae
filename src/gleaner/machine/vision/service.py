"""The part of a vision service that is the same whatever sees: cameras, decoding off the event loop, and Viam's messages."""

from __future__ import annotations

import abc
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from grpclib import Status
from pydantic import BaseModel, Field
from viam.components.camera import Camera
from viam.errors import ViamGRPCError
from viam.media.video import ViamImage
from viam.proto.common import PointCloudObject
from viam.proto.service.vision import Classification, Detection, Detection3D, GetPropertiesResponse
from viam.services.vision import CaptureAllResult, Vision

from gleaner.machine.models.base import CaptureMethod, Host
from gleaner.machine.vision.detect import Box


class VisionProblem(ViamGRPCError):
    """A vision call cannot be answered; the message says what, why and what to do."""

    def __init__(self, message: str, grpc_code: Status = Status.INVALID_ARGUMENT) -> None:
        super().__init__(message, grpc_code)

    def __str__(self) -> str:
        return self.message


class CaptureAllParams(BaseModel):
    """Capture a camera's picture together with what the service sees in it."""

    camera_name: str = Field(title="Camera", description="Camera whose pictures are looked at.")
    min_confidence_score: float = Field(
        default=0.0, ge=0, le=1, title="Lowest confidence kept", description="What is less certain is not stored."
    )


SOURCE_KEY = "camera_name"
"""In `extra` of a call that sends a picture: whose it is."""
VISION_CAPTURE = (CaptureMethod("CaptureAllFromCamera", "Picture with what is seen in it", 1.0, CaptureAllParams),)


@dataclass(frozen=True)
class Seen:
    """What one look at a picture gave; None for a role the service does not have."""

    classes: list[tuple[str, float]] | None
    boxes: list[Box] | None
    size: tuple[int, int]
    """(height, width) of the picture."""
    inference_ms: float
    faint: list[Box] = field(default_factory=list)
    """Boxes that are not certain enough to be reported; only where boxes are followed over frames."""


class PictureVision(Vision):
    """Implements every vision call on top of `look`."""

    classifies: bool = False
    detects: bool = False

    def __init__(self, name: str, camera_name: str, host: Host) -> None:
        super().__init__(name)
        self._camera_name = camera_name
        self._host = host

    @abc.abstractmethod
    async def look(self, picture: bytes, count: int, timeout: float | None) -> Seen:
        """Decodes and judges one encoded picture; `count` most confident classes, all when ≤ 0. Raises VisionProblem."""

    def named(self, boxes: list[Box], seen: Seen, source: str) -> list[Box]:
        """`boxes` as they are reported; `source` says which camera, or whose pictures, they are of."""
        return boxes

    async def refresh(self) -> None:
        """Brings `classifies` and `detects` up to date with the model behind the service."""

    async def get_classifications(
        self,
        image: ViamImage,
        count: int,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> list[Classification]:
        await self._need("classifies", "Classifier")
        return _classifications(await self.look(image.data, count, timeout))

    async def get_classifications_from_camera(
        self,
        camera_name: str,
        count: int,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> list[Classification]:
        await self._need("classifies", "Classifier")
        image, _captured_at = await self._shoot(camera_name, extra, timeout)
        return _classifications(await self.look(image.data, count, timeout))

    async def get_detections(
        self, image: ViamImage, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None, **_: Any
    ) -> list[Detection]:
        await self._need("detects", "Detector")
        source = (extra or {}).get(SOURCE_KEY)
        return self._detections(await self.look(image.data, 0, timeout), source if isinstance(source, str) else "")

    async def get_detections_from_camera(
        self, camera_name: str, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None, **_: Any
    ) -> list[Detection]:
        await self._need("detects", "Detector")
        image, _captured_at = await self._shoot(camera_name, extra, timeout)
        return self._detections(await self.look(image.data, 0, timeout), camera_name or self._camera_name)

    async def capture_all_from_camera(
        self,
        camera_name: str,
        return_image: bool = False,
        return_classifications: bool = False,
        return_detections: bool = False,
        return_object_point_clouds: bool = False,
        return_detections_3d: bool = False,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> CaptureAllResult:
        """One picture and all that is asked of it; roles the service does not have are left out, not errors."""
        await self.refresh()
        image, captured_at = await self._shoot(camera_name, extra, timeout)
        result = CaptureAllResult(image=image if return_image else None, extra={"captured_at": captured_at})
        wants_classes, wants_boxes = return_classifications and self.classifies, return_detections and self.detects
        if wants_classes or wants_boxes:
            seen = await self.look(image.data, 0, timeout)
            best_first = sorted(_classifications(seen), key=lambda c: -c.confidence)
            result.classifications = best_first if wants_classes else None
            source = camera_name or self._camera_name
            result.detections = self._detections(seen, source) if wants_boxes else None
            result.extra = {"captured_at": captured_at, "inference_ms": round(seen.inference_ms, 3)}
        return result

    async def get_object_point_clouds(self, camera_name: str, **_: Any) -> list[PointCloudObject]:
        raise VisionProblem(f"vision service {self.name} does not implement a 3D segmenter", Status.UNIMPLEMENTED)

    async def get_detections_3d(self, camera_name: str, **_: Any) -> list[Detection3D]:
        raise VisionProblem(f"vision service {self.name} does not implement a 3D detector", Status.UNIMPLEMENTED)

    async def get_properties(
        self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None, **_: Any
    ) -> GetPropertiesResponse:
        await self.refresh()
        return GetPropertiesResponse(
            classifications_supported=self.classifies,
            detections_supported=self.detects,
            object_point_clouds_supported=False,
            default_camera=self._camera_name or None,
        )

    def _detections(self, seen: Seen, source: str) -> list[Detection]:
        height, width = seen.size
        return [_detection(box, height, width) for box in self.named(seen.boxes or [], seen, source)]

    async def _need(self, role: str, title: str) -> None:
        await self.refresh()
        if not getattr(self, role):
            raise VisionProblem(f"vision model {self.name} does not implement a {title}", Status.UNIMPLEMENTED)

    async def _shoot(
        self, camera_name: str, extra: Mapping[str, Any] | None, timeout: float | None
    ) -> tuple[ViamImage, str]:
        """The camera's first picture, and when it was taken (ISO)."""
        name = camera_name or self._camera_name
        if not name:
            raise VisionProblem("no camera name provided and no default camera found")
        camera = self._host.resource(name, "camera")
        if camera is None:
            raise VisionProblem(
                f"could not find camera {name!r}: check its name, and that it is ready", Status.NOT_FOUND
            )
        images, metadata = await cast(Camera, camera).get_images(extra=dict(extra or {}), timeout=timeout)
        if not images:
            raise VisionProblem(f"camera {name!r} gave no picture", Status.UNAVAILABLE)
        taken_ns = metadata.captured_at.ToNanoseconds() or time.time_ns()
        return images[0], datetime.fromtimestamp(taken_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _classifications(seen: Seen) -> list[Classification]:
    return [Classification(class_name=label, confidence=confidence) for label, confidence in seen.classes or ()]


def _detection(box: Box, height: int, width: int) -> Detection:
    return Detection(
        x_min=box.x_min,
        y_min=box.y_min,
        x_max=box.x_max,
        y_max=box.y_max,
        confidence=box.confidence,
        class_name=box.label,
        x_min_normalized=box.x_min / width,
        y_min_normalized=box.y_min / height,
        x_max_normalized=box.x_max / width,
        y_max_normalized=box.y_max / height,
    )
