"""`rdk:builtin:webcam`: a USB or built-in camera (v4l2). MJPEG from the camera is passed on undecoded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gleaner.machine.models.base import Attributes, BuildContext, ModelSpec
from gleaner.machine.models.frame_camera import CAMERA_CAPTURE, Distortion, FrameCamera, Intrinsics, quality_field
from gleaner.machine.models.frames import DeviceLost, DriverSource, Feed
from gleaner.machine.models.pictures import Picture, encode_jpeg, jpeg_picture

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

EMPTY_WAIT_S = 0.004
"""Between two looks at a device that has no picture yet. A blocking read could not be stopped when the camera hangs."""
SILENT_S = 5.0
"""A camera that gives nothing for so long has hung; it is closed and opened again."""


class WebcamAttributes(Attributes):
    video_path: str = Field(
        default="",
        title="Device",
        description="E.g. /dev/video0 or a name below /dev/v4l/by-id; empty takes the first that works.",
    )
    width_px: int = Field(
        default=0,
        ge=0,
        le=10_000,
        title="Width",
        description="0 leaves it to the camera.",
        json_schema_extra={"unit": "px"},
    )
    height_px: int = Field(
        default=0,
        ge=0,
        le=10_000,
        title="Height",
        description="0 leaves it to the camera.",
        json_schema_extra={"unit": "px"},
    )
    frame_rate: float = Field(
        default=0,
        ge=0,
        le=240,
        title="Frame rate",
        description="0 leaves it to the camera.",
        json_schema_extra={"unit": "Hz"},
    )
    format: Literal["", "MJPEG", "YUYV"] = Field(
        default="", title="Format", description="Empty prefers MJPEG, which costs no work at all."
    )
    intrinsic_parameters: Intrinsics | None = Field(
        default=None, title="Intrinsics", description="Focal lengths and centre, when known."
    )
    distortion_parameters: Distortion | None = Field(
        default=None, title="Distortion", description="Of the lens, when known."
    )
    quality: int = quality_field()


def devices(folder: Path = Path("/dev")) -> list[str]:
    """Video devices that exist, lowest number first."""
    found = [p for p in folder.glob("video*") if p.name[5:].isdigit()]
    return [str(p) for p in sorted(found, key=lambda p: int(p.name[5:]))]


Opener = Callable[[str, dict[str, str]], "InputContainer"]


NONBLOCK = "+4"
"""AVFMT_FLAG_NONBLOCK of FFmpeg's avformat.h: its option `fflags` has no name for it."""


def open_v4l2(path: str, options: dict[str, str]) -> InputContainer:
    import av

    return av.open(path, format="v4l2", options={**options, "fflags": NONBLOCK}, timeout=(SILENT_S, SILENT_S))


class WebcamDriver:
    """Reads one camera into a feed."""

    def __init__(
        self,
        name: str,
        attributes: WebcamAttributes,
        opener: Opener = open_v4l2,
        find: Callable[[], Sequence[str]] = devices,
    ) -> None:
        self._name = name
        self._settings = attributes
        self._open = opener
        self._find = find
        self._opened: InputContainer | None = None

    def open(self) -> None:
        """For the `run` that follows. Raises DeviceLost, naming the devices there are, when the camera is absent or busy."""
        self._opened = self._first_that_opens()

    def run(self, feed: Feed) -> None:
        """Until the feed stops. Raises DeviceLost, naming the devices there are, when it is absent, busy or unplugged."""
        import av

        container, self._opened = self._opened or self._first_that_opens(), None
        try:
            with container:
                self._follow(container, feed)
        except (av.FFmpegError, OSError) as error:
            raise DeviceLost(
                f"camera {self._name}: the device stopped answering ({error.strerror or error}): was it unplugged?"
            ) from error

    def _first_that_opens(self) -> InputContainer:
        import av

        present = self._find()
        wanted = [self._settings.video_path] if self._settings.video_path else list(present)
        there_are = (
            f"devices here: {', '.join(present)}; is another program using it?"
            if present
            else "there is no /dev/video* on this machine: plug the camera in"
        )
        if not wanted:
            raise DeviceLost(f"camera {self._name}: {there_are}")
        faults = []
        for path in wanted:
            for options in self._option_sets():
                try:
                    return self._open(path, options)
                except (av.FFmpegError, OSError) as error:
                    fault = f"{path}: {error.strerror or error}"
            faults.append(fault)
        raise DeviceLost(f"camera {self._name}: cannot open {'; '.join(faults)}; {there_are}")

    def _option_sets(self) -> list[dict[str, str]]:
        settings: dict[str, str] = {}
        if self._settings.width_px and self._settings.height_px:
            settings["video_size"] = f"{self._settings.width_px}x{self._settings.height_px}"
        if self._settings.frame_rate:
            settings["framerate"] = f"{self._settings.frame_rate:g}"
        formats = {"MJPEG": ["mjpeg"], "YUYV": ["yuyv422"], "": ["mjpeg", ""]}[self._settings.format]
        return [{**settings, **({"input_format": f} if f else {})} for f in formats]

    def _follow(self, container: InputContainer, feed: Feed) -> None:
        import av

        stream = container.streams.video[0]
        packets = container.demux(stream)
        heard_s = time.monotonic()
        while not feed.stopping.is_set():
            try:
                packet = next(packets)
            except av.BlockingIOError:
                if time.monotonic() - heard_s > SILENT_S:
                    raise DeviceLost(f"camera {self._name}: no picture for {SILENT_S:g} s; opening it again") from None
                feed.stopping.wait(EMPTY_WAIT_S)
                packets = container.demux(stream)
                continue
            except StopIteration:
                raise DeviceLost(f"camera {self._name}: the device ended its stream: was it unplugged?") from None
            if packet.size:
                heard_s = time.monotonic()
                self._show(feed, packet, stream.codec_context.name, (stream.width, stream.height))

    def _show(self, feed: Feed, packet: av.Packet[Any], codec: str, size: tuple[int, int]) -> None:
        captured_at_ns = time.time_ns()
        if codec == "mjpeg":
            data = complete_jpeg(bytes(packet))
            if data is not None:
                feed.publish(lambda: Picture(data, "image/jpeg", size[0], size[1], captured_at_ns))
            return
        if feed.is_wanted():
            for frame in packet.decode():
                feed.publish(partial(_encode, frame, self._settings.quality, captured_at_ns))


def _encode(frame: av.VideoFrame, quality: int, captured_at_ns: int) -> Picture:
    import numpy as np

    return jpeg_picture(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8), quality, captured_at_ns)


def complete_jpeg(data: bytes) -> bytes | None:
    """A camera's MJPEG picture as a JPEG file, or None when it was torn on the way.

    Many cameras leave out the Huffman tables, because they are always the standard ones; browsers need them.
    """
    if not data.startswith(b"\xff\xd8") or not data.rstrip(b"\x00").endswith(b"\xff\xd9"):
        return None
    header = data[: data.find(b"\xff\xda")]
    return data if b"\xff\xc4" in header else header + _huffman_tables() + data[len(header) :]


@cache
def _huffman_tables() -> bytes:
    """The standard tables (ITU T.81 annex K.3), as libjpeg writes them when it does not optimise."""
    import numpy as np

    whole = encode_jpeg(np.zeros((16, 16, 3), np.uint8), 75)
    tables, at = b"", 2
    while whole[at + 1] != 0xDA:
        length = 2 + int.from_bytes(whole[at + 2 : at + 4], "big")
        if whole[at + 1] == 0xC4:
            tables += whole[at : at + length]
        at += length
    return tables


async def build(context: BuildContext) -> FrameCamera:
    attributes: WebcamAttributes = context.attributes
    driver = WebcamDriver(context.name, attributes)
    # A camera that cannot be opened is a resource that cannot start: the machine shows why, and tries again by itself.
    # One that is lost later stays, gives its error on reads, and is opened again by its source.
    await asyncio.to_thread(driver.open)
    source = DriverSource(context.name, driver.run, context.log, max_age_s=0.5, join_s=2.0)
    inner, lens = attributes.intrinsic_parameters, attributes.distortion_parameters
    return FrameCamera(
        context.name,
        source,
        frame_rate=attributes.frame_rate,
        intrinsics=inner.message() if inner else None,
        distortion=lens.message() if lens else None,
    )


SPEC = ModelSpec(
    api="rdk:component:camera",
    model="rdk:builtin:webcam",
    title="Webcam",
    description="A USB or built-in camera.",
    attributes=WebcamAttributes,
    build=build,
    icon="camera",
    capture=CAMERA_CAPTURE,
)
