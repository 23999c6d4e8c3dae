"""The viam-sdk camera that serves a `FrameSource`, and the settings that camera models share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from grpclib import Status
from pydantic import BaseModel, ConfigDict, Field
from viam.components.camera import Camera
from viam.media.video import NamedImage
from viam.proto.common import Geometry, ResponseMetadata
from viam.proto.component.camera import DistortionParameters, GetPropertiesResponse, IntrinsicParameters

from gleaner.machine.models.base import CaptureMethod
from gleaner.machine.models.frames import FrameSource
from gleaner.machine.models.pictures import CameraProblem, SizedImage

DEFAULT_TIMEOUT_S = 10.0

SOURCE_NAME = ""
"""Of the only image of a camera with one imager, as Viam's transform camera has it. A captured picture is labelled with its source
name, so any word here would turn up as a label in the gallery."""


class ReadImageParams(BaseModel):
    """Capture one picture in a given format."""

    mime_type: Literal["image/jpeg", "image/png"] = Field(
        default="image/jpeg", title="Mime type", description="Format the picture is stored in."
    )


class GetImagesParams(BaseModel):
    """Capture all pictures of a camera."""

    filter_source_names: list[str] = Field(
        default_factory=list,
        title="Sources",
        description="Capture only these imagers of the camera; empty captures all of them.",
    )


CAMERA_CAPTURE = (
    CaptureMethod("GetImages", "All images", 1.0, GetImagesParams),
    CaptureMethod("ReadImage", "One image", 1.0, ReadImageParams),
)


def quality_field() -> Any:
    return Field(
        default=85,
        ge=1,
        le=100,
        title="JPEG quality",
        description="Higher is sharper and larger.",
        json_schema_extra={"unit": "%"},
    )


def frame_rate_field(default: float, description: str = "Most pictures per second.") -> Any:
    return Field(
        default=default, gt=0, le=240, title="Frame rate", description=description, json_schema_extra={"unit": "Hz"}
    )


class Intrinsics(BaseModel):
    """Of a pinhole camera, with Viam's names."""

    model_config = ConfigDict(extra="forbid")

    width_px: int = Field(default=0, ge=0, title="Width", json_schema_extra={"unit": "px"})
    height_px: int = Field(default=0, ge=0, title="Height", json_schema_extra={"unit": "px"})
    fx: float = Field(default=0, title="Focal length x", json_schema_extra={"unit": "px"})
    fy: float = Field(default=0, title="Focal length y", json_schema_extra={"unit": "px"})
    ppx: float = Field(default=0, title="Centre x", json_schema_extra={"unit": "px"})
    ppy: float = Field(default=0, title="Centre y", json_schema_extra={"unit": "px"})

    def message(self) -> IntrinsicParameters:
        return IntrinsicParameters(
            width_px=self.width_px,
            height_px=self.height_px,
            focal_x_px=self.fx,
            focal_y_px=self.fy,
            center_x_px=self.ppx,
            center_y_px=self.ppy,
        )


class Distortion(BaseModel):
    """Brown–Conrady: three radial and two tangential terms."""

    model_config = ConfigDict(extra="forbid")

    rk1: float = Field(default=0, title="Radial 1")
    rk2: float = Field(default=0, title="Radial 2")
    rk3: float = Field(default=0, title="Radial 3")
    tp1: float = Field(default=0, title="Tangential 1")
    tp2: float = Field(default=0, title="Tangential 2")

    def message(self) -> DistortionParameters:
        return DistortionParameters(
            model="brown_conrady", parameters=[self.rk1, self.rk2, self.rk3, self.tp1, self.tp2]
        )


class FrameCamera(Camera):
    """A viam-sdk camera on a FrameSource, which it starts and stops: one colour picture per read."""

    def __init__(self, name: str, source: FrameSource, *, frame_rate: float = 0.0, intrinsics: IntrinsicParameters | None = None,
                 distortion: DistortionParameters | None = None, on_close: Callable[[], None] = lambda: None) -> None:  # fmt: skip
        super().__init__(name)
        self.source = source
        self._frame_rate = frame_rate
        self._intrinsics = intrinsics
        self._distortion = distortion
        self._on_close = on_close
        self._closed = False
        source.start()

    async def get_images(
        self,
        *,
        filter_source_names: Sequence[str] | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> tuple[Sequence[NamedImage], ResponseMetadata]:
        check_source_filter(self.name, filter_source_names, SOURCE_NAME)
        picture = await self.source.read(DEFAULT_TIMEOUT_S if timeout is None else timeout)
        return [SizedImage(SOURCE_NAME, picture)], response_metadata(picture.captured_at_ns)

    async def get_point_cloud(
        self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None, **_: Any
    ) -> tuple[bytes, str]:
        raise CameraProblem(f"camera {self.name} has no depth, so it has no point cloud", Status.UNIMPLEMENTED)

    async def get_properties(self, *, timeout: float | None = None, **_: Any) -> GetPropertiesResponse:
        return GetPropertiesResponse(
            supports_pcd=False,
            mime_types=["image/jpeg"],
            frame_rate=self._frame_rate,
            intrinsic_parameters=self._intrinsics,
            distortion_parameters=self._distortion,
        )

    async def get_geometries(
        self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Sequence[Geometry]:
        return []

    async def get_status(self, *, timeout: float | None = None, **_: Any) -> Mapping[str, Any]:
        return {"state": str(self.source.state), "error": self.source.error, "frames": self.source.frames}

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self.source.stop)
            self._on_close()


def check_source_filter(camera: str, names: Sequence[str] | None, *known: str) -> None:
    """Raises CameraProblem (INVALID_ARGUMENT) for a name given twice or a source this camera does not have."""
    names = list(names or ())
    if len(set(names)) != len(names):
        raise CameraProblem(
            f"camera {camera}: filter_source_names lists a name twice: {', '.join(names)}", Status.INVALID_ARGUMENT
        )
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CameraProblem(
            f"camera {camera} has no source {unknown[0]!r}: it has a single one; leave filter_source_names empty",
            Status.INVALID_ARGUMENT,
        )


def response_metadata(captured_at_ns: int) -> ResponseMetadata:
    metadata = ResponseMetadata()
    metadata.captured_at.FromNanoseconds(captured_at_ns)
    return metadata
