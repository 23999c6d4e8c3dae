"""`gleaner:camera:video`: a video file or a network stream (RTSP, HTTP), opened again when it is lost.

A file plays at its own speed and pauses while nobody looks. A stream cannot pause: its packets are kept, undecoded, back to
the last key frame, and decoded once somebody looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field

from gleaner.machine.models.base import Attributes, BuildContext, ModelSpec
from gleaner.machine.models.frame_camera import CAMERA_CAPTURE, FrameCamera, quality_field
from gleaner.machine.models.frames import DeviceLost, DriverSource, Feed
from gleaner.machine.models.pictures import Picture, jpeg_picture

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

READ_TIMEOUT_S = 4.0
MAX_KEPT_PACKETS = 900
"""Half a minute at 30 a second. A stream with rarer key frames starts showing at its next one."""


class VideoAttributes(Attributes):
    video_path: str = Field(
        min_length=1,
        title="File or address",
        description="Path of a video on the machine, or rtsp://, http:// or https:// of a stream.",
    )
    loop: bool = Field(
        default=True, title="Repeat", description="Start a file again after its end; otherwise its last picture stays."
    )
    rtsp_transport: str = Field(
        default="tcp",
        pattern="^(tcp|udp)$",
        title="RTSP transport",
        description="tcp loses no pictures, udp is a little faster.",
    )
    quality: int = quality_field()


class VideoDriver:
    """Plays one file or stream into a feed."""

    def __init__(self, name: str, attributes: VideoAttributes, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._settings = attributes
        self._clock = clock
        self._is_stream = "://" in attributes.video_path

    def run(self, feed: Feed) -> None:
        """Until the feed stops. Raises DeviceLost when the stream breaks or the file cannot be opened."""
        import av

        if not self._is_stream:
            feed.wait_until_wanted()
        try:
            with self._open() as container:
                if not container.streams.video:
                    raise DeviceLost(
                        f"camera {self._name}: {self._where()} has no video in it: choose another video_path"
                    )
                if self._is_stream:
                    self._follow(container, feed)
                else:
                    self._play(container, feed)
        except (av.FFmpegError, OSError) as error:
            raise DeviceLost(
                f"camera {self._name}: {self._where()} cannot be played: {error.strerror or error}; check video_path"
            ) from error

    def _where(self) -> str:
        """The path without a password: it goes into logs."""
        if not self._is_stream:
            return self._settings.video_path
        parts = urlsplit(self._settings.video_path)
        return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"

    def _open(self) -> InputContainer:
        import av

        options = (
            {"rtsp_transport": self._settings.rtsp_transport} if self._settings.video_path.startswith("rtsp") else {}
        )
        path = self._settings.video_path if self._is_stream else str(Path(self._settings.video_path).expanduser())
        return av.open(path, timeout=(READ_TIMEOUT_S, READ_TIMEOUT_S), options=options)

    def _play(self, container: InputContainer, feed: Feed) -> None:
        """Publishes each picture of a file at its time; the clock stands still while nobody looks."""
        container.streams.video[0].thread_type = "AUTO"
        started_s, first_s = self._clock(), None
        last: av.VideoFrame | None = None
        for frame in container.decode(video=0):
            if not feed.is_wanted():
                paused_s = self._clock()
                feed.wait_until_wanted()
                started_s += self._clock() - paused_s
            shown_s = float(frame.time or 0.0)
            first_s = shown_s if first_s is None else first_s
            if feed.stopping.wait(max(0.0, started_s + shown_s - first_s - self._clock())):
                return
            self._show(feed, frame)
            last = frame
        if last is None:
            raise DeviceLost(
                f"camera {self._name}: {self._where()} holds no picture that can be decoded: choose another video_path"
            )
        while not self._settings.loop and not feed.stopping.wait(0.1):
            self._show(feed, last)

    def _follow(self, container: InputContainer, feed: Feed) -> None:
        """Publishes the pictures of a live stream, decoding only while somebody looks."""
        container.streams.video[
            0
        ].thread_type = "SLICE"  # decoding several pictures at once would show each of them later
        kept: list[av.Packet[Any]] = []
        is_whole = False  # `kept` continues what the decoder knows, or begins with a key frame
        for packet in container.demux(video=0):
            if feed.stopping.is_set():
                return
            if not packet.size:
                continue
            if packet.is_keyframe:
                kept, is_whole = [], True
            if len(kept) >= MAX_KEPT_PACKETS:
                kept, is_whole = [], False
            if not is_whole:
                continue
            kept.append(packet)
            if feed.is_wanted():
                frames = [frame for one in kept for frame in one.decode()]
                kept = []
                if frames:
                    self._show(feed, frames[-1])
        raise DeviceLost(f"camera {self._name}: {self._where()} ended; opening it again")

    def _show(self, feed: Feed, frame: av.VideoFrame) -> None:
        captured_at_ns = time.time_ns()
        quality = self._settings.quality

        def make() -> Picture:
            import numpy as np

            return jpeg_picture(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8), quality, captured_at_ns)

        feed.publish(make)


async def build(context: BuildContext) -> FrameCamera:
    attributes: VideoAttributes = context.attributes
    if "://" not in attributes.video_path and not Path(attributes.video_path).expanduser().is_file():
        raise FileNotFoundError(f"camera {context.name}: {attributes.video_path} is not a file: correct video_path")
    driver = VideoDriver(context.name, attributes)
    source = DriverSource(context.name, driver.run, context.log, max_age_s=0.5, join_s=READ_TIMEOUT_S + 2)
    return FrameCamera(context.name, source)


SPEC = ModelSpec(
    api="rdk:component:camera",
    model="gleaner:camera:video",
    aliases=("gleaner:builtin:video", "rdk:builtin:ffmpeg", "viam:camera:ffmpeg"),
    title="Video or stream",
    description="Plays a video file, or an IP camera's RTSP or HTTP stream.",
    attributes=VideoAttributes,
    build=build,
    icon="camera",
    capture=CAMERA_CAPTURE,
)
