"""`rdk:builtin:image_file`: one picture from a file, read again when the file changes."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import Field

from gleaner.machine.models.base import Attributes, BuildContext, ModelSpec
from gleaner.machine.models.frame_camera import CAMERA_CAPTURE, FrameCamera, frame_rate_field, quality_field
from gleaner.machine.models.frames import OnDemandSource
from gleaner.machine.models.photo_files import load_photo
from gleaner.machine.models.pictures import CameraProblem, Picture


class ImageFileAttributes(Attributes):
    color_image_file_path: str = Field(
        min_length=1, title="Picture file", description="Path of a JPEG, PNG, BMP, WebP or TIFF file on the machine."
    )
    frame_rate: float = frame_rate_field(30.0, "How often the file is looked at, at most.")
    quality: int = quality_field()


async def build(context: BuildContext) -> FrameCamera:
    attributes: ImageFileAttributes = context.attributes
    path = Path(attributes.color_image_file_path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"camera {context.name}: {path} is not a file: correct color_image_file_path")
    seen: dict[tuple[int, int], Picture] = {}

    def make() -> Picture:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp not in seen:
                picture = load_photo(path, attributes.quality)
                seen.clear()
                seen[stamp] = picture
        except OSError as error:
            raise CameraProblem(f"camera {context.name}: {path} cannot be read: {error.strerror or error}") from error
        known = seen[stamp]
        return Picture(known.data, known.mime_type, known.width_px, known.height_px, time.time_ns())

    source = OnDemandSource(context.name, make, attributes.frame_rate)
    return FrameCamera(context.name, source, frame_rate=attributes.frame_rate)


SPEC = ModelSpec(
    api="rdk:component:camera",
    model="rdk:builtin:image_file",
    title="Picture file",
    description="Shows one picture from a file on the machine.",
    attributes=ImageFileAttributes,
    build=build,
    icon="camera",
    capture=CAMERA_CAPTURE,
)
