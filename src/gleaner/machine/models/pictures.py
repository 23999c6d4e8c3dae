"""One camera picture as a value, and how frames become pictures and pictures frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from grpclib import Status
from viam.errors import ViamGRPCError
from viam.media.video import CameraMimeType, NamedImage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    BgrFrame: TypeAlias = npt.NDArray[np.uint8]
else:
    # A camera that passes its pictures through never needs numpy, which costs 11 MB.
    BgrFrame = Any


class CameraProblem(ViamGRPCError):
    """A picture could not be given. The message says which camera, why, and what to do."""

    def __init__(self, message: str, grpc_code: Status = Status.UNAVAILABLE) -> None:
        super().__init__(message, grpc_code)

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Picture:
    """One encoded picture and when the light fell on the sensor."""

    data: bytes
    mime_type: str
    width_px: int
    height_px: int
    captured_at_ns: int


class SizedImage(NamedImage):
    """A NamedImage of known size. The SDK's own constructor walks a JPEG byte by byte and can run past its end."""

    def __init__(self, name: str, picture: Picture) -> None:
        self.name = name
        self._data = picture.data
        self._mime_type = CameraMimeType.from_string(picture.mime_type)
        self._width, self._height = picture.width_px, picture.height_px


def encode_jpeg(frame: BgrFrame, quality: int) -> bytes:
    """(height, width, 3) BGR → JPEG."""
    import numpy as np
    import simplejpeg

    return bytes(
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame), quality=quality, colorspace="BGR", colorsubsampling="420", fastdct=True
        )
    )


def jpeg_picture(frame: BgrFrame, quality: int, captured_at_ns: int) -> Picture:
    return Picture(encode_jpeg(frame, quality), "image/jpeg", frame.shape[1], frame.shape[0], captured_at_ns)


def decode_image(data: bytes) -> BgrFrame:
    """JPEG, PNG and what else OpenCV reads → (height, width, 3) BGR, upright. Raises CameraProblem."""
    import cv2
    import numpy as np

    frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if frame is None:
        raise CameraProblem(
            f"{len(data)} bytes are not a picture that can be read (JPEG, PNG, BMP, WebP, TIFF)", Status.DATA_LOSS
        )
    return np.asarray(frame, np.uint8)
