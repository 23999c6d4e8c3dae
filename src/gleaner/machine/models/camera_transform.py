"""`rdk:builtin:transform`: another camera's picture, turned, resized, cropped, and with what a vision service sees in it.

Stages run in order on the frame of one read, so labels always belong to the picture they are drawn on. The vision service
is looked up by name at every frame: a missing one is an error of that read, and the next read works once it is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, cast

from grpclib import Status
from pydantic import BaseModel, ConfigDict, Field
from viam.components.camera import Camera
from viam.media.video import NamedImage
from viam.proto.common import Geometry, ResponseMetadata
from viam.proto.component.camera import DistortionParameters, GetPropertiesResponse, IntrinsicParameters
from viam.services.vision import Vision

from gleaner.machine.models import overlay
from gleaner.machine.models.base import Attributes, BuildContext, Host, ModelSpec
from gleaner.machine.models.frame_camera import CAMERA_CAPTURE, SOURCE_NAME, check_source_filter, quality_field
from gleaner.machine.models.pictures import BgrFrame, CameraProblem, SizedImage, decode_image, jpeg_picture

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


class Intrinsics(_Stage):
    width_px: int = 0
    height_px: int = 0
    fx: float = 0
    fy: float = 0
    ppx: float = 0
    ppy: float = 0


class Distortion(_Stage):
    rk1: float = 0
    rk2: float = 0
    rk3: float = 0
    tp1: float = 0
    tp2: float = 0


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
        from asyncio import to_thread

        check_source_filter(self.name, filter_source_names, SOURCE_NAME)
        images, metadata = await self._source.get_images(extra=dict(extra or {}), timeout=timeout)
        if not images:
            raise CameraProblem(f"camera {self.name}: its source {self._attributes.source} gave no picture")
        frame = await to_thread(decode_image, images[0].data)
        for stage in self._attributes.pipeline:
            frame = await self._run(stage, frame, timeout)
        picture = await to_thread(jpeg_picture, frame, self._attributes.quality, metadata.captured_at.ToNanoseconds())
        return [SizedImage(SOURCE_NAME, picture)], metadata

    async def _run(self, stage: Stage, frame: BgrFrame, timeout: float | None) -> BgrFrame:
        match stage:
            case RotateStage():
                return overlay.rotate(frame, stage.attributes.angle_degs)
            case ResizeStage():
                return overlay.resize(frame, stage.attributes.width_px, stage.attributes.height_px)
            case CropStage():
                return _crop(self.name, frame, stage.attributes)
            case DetectionsStage():
                return await self._detections(stage.attributes, frame, timeout)
            case ClassificationsStage():
                return await self._classifications(stage.attributes, frame, timeout)

    async def _detections(self, stage: DetectionsAttributes, frame: BgrFrame, timeout: float | None) -> BgrFrame:
        vision = self._vision("source_detector cant find vision service", stage.detector_name)
        image = await _as_image(frame)
        found = await _ask(lambda: vision.get_detections(image, timeout=timeout), self.name, stage.detector_name)
        wanted = {label.lower() for label in stage.valid_labels}
        chosen = [
            d
            for d in found
            if d.confidence >= stage.confidence_threshold and (not wanted or d.class_name.lower() in wanted)
        ]
        boxes = [
            overlay.Box((d.x_min, d.y_min, d.x_max, d.y_max), f"{d.class_name}: {d.confidence:.2f}") for d in chosen
        ]
        try:
            return overlay.draw_boxes(frame, boxes)
        except ValueError as error:
            raise CameraProblem(
                f"camera {self.name}: {stage.detector_name} gave an impossible box: {error}", Status.INTERNAL
            ) from error

    async def _classifications(
        self, stage: ClassificationsAttributes, frame: BgrFrame, timeout: float | None
    ) -> BgrFrame:
        vision = self._vision("source_classifier can't find vision service", stage.classifier_name)
        image = await _as_image(frame)
        count = stage.max_classifications
        found = await _ask(
            lambda: vision.get_classifications(image, count, timeout=timeout), self.name, stage.classifier_name
        )
        best = sorted(found, key=lambda c: -c.confidence)[
            :count
        ]  # the N best first, only then the threshold: as Viam does
        wanted = {label.lower() for label in stage.valid_labels}
        lines = [
            f"{c.class_name}: {c.confidence:.2f}"
            for c in best
            if c.confidence >= stage.confidence_threshold
            and (not wanted or c.class_name.lower() in wanted)
            and c.class_name != NONE_OF_THESE
        ]
        return overlay.draw_lines(frame, lines)

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
        inner, lens = self._attributes.intrinsic_parameters, self._attributes.distortion_parameters
        if inner is not None:
            answer.intrinsic_parameters.CopyFrom(
                IntrinsicParameters(
                    width_px=inner.width_px,
                    height_px=inner.height_px,
                    focal_x_px=inner.fx,
                    focal_y_px=inner.fy,
                    center_x_px=inner.ppx,
                    center_y_px=inner.ppy,
                )
            )
        if lens is not None:
            answer.distortion_parameters.CopyFrom(
                DistortionParameters(
                    model="brown_conrady", parameters=[lens.rk1, lens.rk2, lens.rk3, lens.tp1, lens.tp2]
                )
            )
        return answer

    async def get_geometries(
        self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Sequence[Geometry]:
        return []

    async def get_status(self, *, timeout: float | None = None, **_: Any) -> Mapping[str, Any]:
        return {"source": self._attributes.source, "steps": [stage.type for stage in self._attributes.pipeline]}


async def _as_image(frame: BgrFrame) -> NamedImage:
    """What the classifier is shown: high quality, for a second compression must not change what it sees."""
    from asyncio import to_thread

    return SizedImage(SOURCE_NAME, await to_thread(jpeg_picture, frame, 95, 0))


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
