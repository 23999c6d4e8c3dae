"""`rdk:builtin:color_detector`: boxes around patches of one colour, without any model."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Self

from pydantic import Field, model_validator

from gleaner.machine.models.base import Attributes, BuildContext, Host, ModelSpec
from gleaner.machine.vision.color import color_range, find_blobs, hue_name
from gleaner.machine.vision.detect import Box
from gleaner.machine.vision.service import VISION_CAPTURE, PictureVision, Seen, VisionProblem
from gleaner.wire.picture import PictureProblem, read_rgb


class ColorDetectorAttributes(Attributes):
    detect_color: str = Field(
        title="Colour", description="Colour to look for, as #RRGGBB.", json_schema_extra={"format": "color"}
    )
    hue_tolerance_pct: float = Field(
        gt=0, le=1, title="Hue tolerance", description="Share of the colour circle that counts as the same hue."
    )
    saturation_cutoff_pct: float = Field(
        default=0.2, ge=0, le=1, title="Lowest saturation", description="Greyer pixels never count."
    )
    value_cutoff_pct: float = Field(
        default=0.3, ge=0, le=1, title="Lowest brightness", description="Darker pixels never count."
    )
    segment_size_px: int = Field(
        default=5000, ge=0, title="Smallest box", description="Width times height.", json_schema_extra={"unit": "px"}
    )
    label: str = Field(default="", title="Label", description="Name of what is found; empty names the hue.")
    camera_name: str = Field(default="", title="Default camera", description="Used when a call names no camera.")

    @model_validator(mode="after")
    def _usable_color(self) -> Self:
        color_range(self.detect_color, self.hue_tolerance_pct, self.saturation_cutoff_pct, self.value_cutoff_pct)
        return self


class ColorDetector(PictureVision):
    detects = True

    def __init__(self, name: str, attributes: ColorDetectorAttributes, host: Host) -> None:
        super().__init__(name, attributes.camera_name, host)
        self._wanted = color_range(
            attributes.detect_color,
            attributes.hue_tolerance_pct,
            attributes.saturation_cutoff_pct,
            attributes.value_cutoff_pct,
        )
        self._label = attributes.label or hue_name(self._wanted.hue_deg)
        self._least_box_px = attributes.segment_size_px

    async def look(self, picture: bytes, count: int, timeout: float | None) -> Seen:
        try:
            return await asyncio.to_thread(self._find, picture)
        except PictureProblem as error:
            raise VisionProblem(f"vision service {self.name} cannot use the picture: {error}") from error

    def _find(self, picture: bytes) -> Seen:
        pixels = read_rgb(picture)
        began = time.perf_counter()
        boxes = [Box(self._label, 1.0, *corners) for corners in find_blobs(pixels, self._wanted, self._least_box_px)]
        inference_ms = (time.perf_counter() - began) * 1000
        return Seen(None, boxes, (pixels.shape[0], pixels.shape[1]), inference_ms)


def _dependencies(attributes: Any) -> list[str]:
    return [attributes.camera_name] if attributes.camera_name else []


async def _build(context: BuildContext) -> ColorDetector:
    return ColorDetector(context.name, context.attributes, context.host)


SPEC = ModelSpec(
    api="rdk:service:vision",
    model="rdk:builtin:color_detector",
    title="Colour detector",
    description="Draws boxes around patches of one colour. Needs no training.",
    icon="droplet",
    attributes=ColorDetectorAttributes,
    build=_build,
    dependencies=_dependencies,
    capture=VISION_CAPTURE,
)
