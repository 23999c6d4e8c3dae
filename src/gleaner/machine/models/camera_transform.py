"""`rdk:builtin:transform`: another camera's picture, turned, resized, cropped, and with what a vision service sees in it.

Stages run in order on the frame of one read, so labels always belong to the picture they are drawn on. The vision service
is looked up by name at every frame: a missing one is an error of that read, and the next read works once it is there.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from grpclib import Status
from pydantic import BaseModel, ConfigDict, Field
from viam.components.camera import Camera
from viam.media.video import CameraMimeType, NamedImage
from viam.proto.common import Geometry, ResponseMetadata
from viam.proto.component.camera import GetPropertiesResponse
from viam.services.vision import Vision

from gleaner.machine.models import overlay
from gleaner.machine.models.base import Attributes, BuildContext, Host, ModelSpec
from gleaner.machine.models.frame_camera import (
    CAMERA_CAPTURE,
    SOURCE_NAME,
    Distortion,
    Intrinsics,
    check_source_filter,
    quality_field,
)
from gleaner.machine.models.pictures import BgrFrame, CameraProblem, SizedImage, decode_image, jpeg_picture
from gleaner.machine.vision.service import SOURCE_KEY
from gleaner.wire.jpeg import exif_orientation
from gleaner.wire.track_names import short_name, split_track

NONE_OF_THESE = "VIAM_UNKNOWN"
"""Class that Viam-trained models use for "none of these"; never drawn."""


class _Stage(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RotateAttributes(_Stage):
    angle_degs: float = Field(
        default=180.0, ge=-360, le=360, title="Angle", description="Clockwise.", json_schema_extra={"unit": "°"}
    )


class ResizeAttributes(_Stage):
    width_px: int = Field(default=0, ge=0, le=10_000, title="Width", json_schema_extra={"unit": "px"})
    height_px: int = Field(default=0, ge=0, le=10_000, title="Height", json_schema_extra={"unit": "px"})


class CropAttributes(_Stage):
    """Shares of the picture when neither maximum exceeds 1, pixels otherwise."""

    x_min_px: float = Field(default=0, title="Left")
    y_min_px: float = Field(default=0, title="Top")
    x_max_px: float = Field(default=0, title="Right")
    y_max_px: float = Field(default=0, title="Bottom")
    overlay_crop_box: bool = Field(default=False, title="Draw the box instead of cropping")


class DetectionsAttributes(_Stage):
    detector_name: str = Field(min_length=1, title="Vision service")
    confidence_threshold: float = Field(default=0.0, ge=0, le=1, title="Lowest confidence drawn")
    valid_labels: list[str] = Field(default_factory=list, title="Only these labels", description="Empty draws all.")


class ClassificationsAttributes(_Stage):
    classifier_name: str = Field(min_length=1, title="Vision service")
    confidence_threshold: float = Field(default=0.0, ge=0, le=1, title="Lowest confidence drawn")
    max_classifications: int = Field(default=1, ge=1, le=100, title="Most labels drawn")
    valid_labels: list[str] = Field(default_factory=list, title="Only these labels", description="Empty draws all.")


class RotateStage(_Stage):
    type: Literal["rotate"]
    attributes: RotateAttributes = Field(default_factory=RotateAttributes)


class ResizeStage(_Stage):
    type: Literal["resize"]
    attributes: ResizeAttributes = Field(default_factory=ResizeAttributes)


class CropStage(_Stage):
    type: Literal["crop"]
    attributes: CropAttributes = Field(default_factory=CropAttributes)


class DetectionsStage(_Stage):
    type: Literal["detections"]
    attributes: DetectionsAttributes


class ClassificationsStage(_Stage):
    type: Literal["classifications"]
    attributes: ClassificationsAttributes


Stage = Annotated[
    RotateStage | ResizeStage | CropStage | DetectionsStage | ClassificationsStage, Field(discriminator="type")
]


class TransformAttributes(Attributes):
    source: str = Field(min_length=1, title="Camera", description="Name of the camera whose pictures are transformed.")
    pipeline: list[Stage] = Field(
        title="Steps", description="Run in order: rotate, resize, crop, detections, classifications."
    )
    intrinsic_parameters: Intrinsics | None = Field(
        default=None, title="Intrinsics", description="Of the resulting picture, when known."
    )
    distortion_parameters: Distortion | None = Field(
        default=None, title="Distortion", description="Of the resulting picture, when known."
    )
    quality: int = quality_field()


class TransformCamera(Camera):
    """Reads its source, runs the stages, gives a JPEG."""

    def __init__(self, name: str, source: Camera, attributes: TransformAttributes, host: Host) -> None:
        super().__init__(name)
        self._source = source
        self._attributes = attributes
        self._host = host

    async def get_images(
        self,
        *,
        filter_source_names: Sequence[str] | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> tuple[Sequence[NamedImage], ResponseMetadata]:
        check_source_filter(self.name, filter_source_names, SOURCE_NAME)
        images, metadata = await self._source.get_images(extra=dict(extra or {}), timeout=timeout)
        if not images:
            raise CameraProblem(f"camera {self.name}: its source {self._attributes.source} gave no picture")
        shown = _Shown(await to_thread(decode_image, images[0].data), images[0])
        for stage in self._attributes.pipeline:
            frame = await self._run(stage, shown, timeout)
            shown = shown if frame is shown.frame else _Shown(frame)
        captured_at_ns = metadata.captured_at.ToNanoseconds()
        picture = await to_thread(jpeg_picture, shown.frame, self._attributes.quality, captured_at_ns)
        return [SizedImage(SOURCE_NAME, picture)], metadata

    async def _run(self, stage: Stage, shown: _Shown, timeout: float | None) -> BgrFrame:
        match stage:
            case RotateStage():
                return await to_thread(overlay.rotate, shown.frame, stage.attributes.angle_degs)
            case ResizeStage():
                size = stage.attributes
                return await to_thread(overlay.resize, shown.frame, size.width_px, size.height_px)
            case CropStage():
                return await to_thread(_crop, self.name, shown.frame, stage.attributes)
            case DetectionsStage():
                return await self._detections(stage.attributes, shown, timeout)
            case ClassificationsStage():
                return await self._classifications(stage.attributes, shown, timeout)

    async def _detections(self, stage: DetectionsAttributes, shown: _Shown, timeout: float | None) -> BgrFrame:
        vision = self._vision("source_detector cant find vision service", stage.detector_name)
        image = await shown.image()
        # A thing keeps its id whether somebody asks for the camera or for what is drawn over it, but only where both see the same.
        extra = {SOURCE_KEY: self.name if shown.untouched is None else self._attributes.source}
        found = await _ask(
            lambda: vision.get_detections(image, extra=extra, timeout=timeout), self.name, stage.detector_name
        )
        chosen = [d for d in found if _passes(d.class_name, d.confidence, stage)]
        boxes = [
            overlay.Box((d.x_min, d.y_min, d.x_max, d.y_max), f"{short_name(d.class_name)}: {d.confidence:.2f}")
            for d in chosen
        ]
        try:
            return await to_thread(overlay.draw_boxes, shown.frame, boxes)
        except ValueError as error:
            raise CameraProblem(
                f"camera {self.name}: {stage.detector_name} gave an impossible box: {error}", Status.INTERNAL
            ) from error

    async def _classifications(
        self, stage: ClassificationsAttributes, shown: _Shown, timeout: float | None
    ) -> BgrFrame:
        vision = self._vision("source_classifier can't find vision service", stage.classifier_name)
        image, count = await shown.image(), stage.max_classifications
        found = await _ask(
            lambda: vision.get_classifications(image, count, timeout=timeout), self.name, stage.classifier_name
        )
        best = sorted(found, key=lambda c: -c.confidence)[
            :count
        ]  # the N best first, only then the threshold, as Viam does
        lines = [
            f"{c.class_name}: {c.confidence:.2f}"
            for c in best
            if c.class_name != NONE_OF_THESE and _passes(c.class_name, c.confidence, stage)
        ]
        return await to_thread(overlay.draw_lines, shown.frame, lines)

    def _vision(self, problem: str, name: str) -> Vision:
        service = self._host.resource(name, "vision")
        if service is None:
            raise CameraProblem(
                f'{problem} "{name}": add it to the configuration or wait until it is ready', Status.NOT_FOUND
            )
        return cast(Vision, service)

    async def get_point_cloud(
        self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None, **_: Any
    ) -> tuple[bytes, str]:
        raise CameraProblem(f"camera {self.name} transforms pictures, it has no point cloud", Status.UNIMPLEMENTED)

    async def get_properties(self, *, timeout: float | None = None, **_: Any) -> GetPropertiesResponse:
        answer = GetPropertiesResponse(supports_pcd=False, mime_types=["image/jpeg"])
        if self._attributes.intrinsic_parameters is not None:
            answer.intrinsic_parameters.CopyFrom(self._attributes.intrinsic_parameters.message())
        if self._attributes.distortion_parameters is not None:
            answer.distortion_parameters.CopyFrom(self._attributes.distortion_parameters.message())
        return answer

    async def get_geometries(
        self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Sequence[Geometry]:
        return []

    async def get_status(self, *, timeout: float | None = None, **_: Any) -> Mapping[str, Any]:
        return {"source": self._attributes.source, "steps": [stage.type for stage in self._attributes.pipeline]}


@dataclass(frozen=True)
class _Shown:
    """The frame between two steps, and the source's own bytes while nothing has changed it."""

    frame: BgrFrame
    untouched: NamedImage | None = None

    async def image(self) -> NamedImage:
        """What the vision service is shown: the source's bytes where possible, so that the label here carries the very confidence
        that the service gives for that camera everywhere else."""
        source = self.untouched
        if source is not None and source.mime_type == CameraMimeType.JPEG and exif_orientation(source.data) == 1:
            return source
        return SizedImage(SOURCE_NAME, await to_thread(jpeg_picture, self.frame, 95, 0))


def _passes(label: str, confidence: float, stage: DetectionsAttributes | ClassificationsAttributes) -> bool:
    wanted = {name.lower() for name in stage.valid_labels}
    known = {label.lower(), split_track(label)[0].lower()}
    return confidence >= stage.confidence_threshold and (not wanted or bool(known & wanted))


async def _ask(call: Callable[[], Awaitable[Sequence[Any]]], camera: str, service: str) -> Sequence[Any]:
    try:
        return await call()
    except NotImplementedError as error:
        raise CameraProblem(
            f"camera {camera}: vision service {service} cannot do this step: use a service whose model can",
            Status.UNIMPLEMENTED,
        ) from error


def _crop(camera: str, frame: BgrFrame, stage: CropAttributes) -> BgrFrame:
    try:
        return overlay.crop(
            frame, (stage.x_min_px, stage.y_min_px, stage.x_max_px, stage.y_max_px), draw_only=stage.overlay_crop_box
        )
    except ValueError as error:
        raise CameraProblem(f"camera {camera}: {error}", Status.INVALID_ARGUMENT) from error


def check_pipeline(attributes: TransformAttributes) -> None:
    """What can be told without a picture. Raises ValueError with the path of the fault."""
    if not attributes.pipeline:
        raise ValueError(
            "pipeline has no transforms in it: add one of rotate, resize, crop, detections, classifications"
        )
    for at, stage in enumerate(attributes.pipeline):
        try:
            if isinstance(stage, ResizeStage):
                overlay.check_size(stage.attributes.width_px, stage.attributes.height_px)
            if isinstance(stage, CropStage):
                a = stage.attributes
                overlay.check_crop((a.x_min_px, a.y_min_px, a.x_max_px, a.y_max_px))
        except ValueError as error:
            raise ValueError(f"pipeline[{at}]: {error}") from error


async def build(context: BuildContext) -> TransformCamera:
    attributes: TransformAttributes = context.attributes
    check_pipeline(attributes)
    source = context.dependencies.get(attributes.source)
    if not isinstance(source, Camera):
        raise ValueError(
            f"camera {context.name}: its source {attributes.source!r} is not a camera of this machine: correct source"
        )
    return TransformCamera(context.name, source, attributes, context.host)


SPEC = ModelSpec(
    api="rdk:component:camera",
    model="rdk:builtin:transform",
    title="Transform",
    description="Another camera's picture with labels, boxes, a crop or a turn.",
    attributes=TransformAttributes,
    build=build,
    dependencies=lambda attributes: (attributes.source,),
    icon="camera",
    capture=CAMERA_CAPTURE,
)
