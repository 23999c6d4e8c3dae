"""Camera frames, fetched once for everyone who watches the same camera with the same vision service.

A source fetches only while somebody wants a frame, and only the newest counts: a viewer that was slow gets the frame that
is new when it asks again, never a queue of old ones. While a viewer still sends its frame the next one is being fetched.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gleaner.app.errors import AppError
from gleaner.app.live.robot import Picture, Robot
from gleaner.wire.picture import PictureProblem, picture_size, read_rgb

#: After a failure, so that a camera that is not ready is asked once a second and the page sees it come back.
RETRY_S = 1.0
_HEADER_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Frame:
    """`problem` is set instead of, or beside, a picture: a failing model does not take the picture away."""

    seq: int
    packed: bytes = b""
    """The message for a page: header length, header, picture."""
    picture: Picture | None = None
    problem: AppError | None = None


class FrameSource:
    """Frames of one camera of one machine. Its task runs between `acquire` and the last `release`."""

    def __init__(self, robot: Callable[[], Robot], camera: str, vision: str) -> None:
        self._robot = robot
        self._camera = camera
        self._vision = vision
        self._frame = Frame(0)
        self._changed = asyncio.Condition()
        self._wanted = asyncio.Event()
        self._is_fetching = False
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None

    def acquire(self) -> None:
        self._watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._fetch(), name=f"frames of {self._camera}")

    def release(self) -> bool:
        """Tells whether nobody watches any more; the task has been told to end then."""
        self._watchers -= 1
        if self._watchers == 0 and self._task is not None:
            self._task.cancel()
            self._task = None
        return self._watchers == 0

    def want(self) -> None:
        """Starts fetching the next frame now, unless one is on its way."""
        if not self._is_fetching:
            self._wanted.set()

    async def newer_than(self, seq: int) -> Frame:
        """The newest frame with a number above `seq`, waiting for it if need be."""
        if self._frame.seq <= seq:
            self.want()
        async with self._changed:
            await self._changed.wait_for(lambda: self._frame.seq > seq)
            return self._frame

    @property
    def seq(self) -> int:
        return self._frame.seq

    async def _fetch(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._is_fetching = True
            frame = await self._next()
            self._is_fetching = False
            async with self._changed:
                self._frame = frame
                self._changed.notify_all()
            if frame.problem is not None:
                await asyncio.sleep(RETRY_S)

    async def _next(self) -> Frame:
        seq, problem = self._frame.seq + 1, None
        started = time.perf_counter()
        try:
            robot = self._robot()
            try:
                picture = await robot.image_with_vision(self._camera, self._vision) if self._vision else None
            except AppError as error:
                problem, picture = error, None
            picture = picture or await robot.image(self._camera)
            fetch_ms = (time.perf_counter() - started) * 1000
            return Frame(seq, pack_frame(seq, picture, fetch_ms), picture, problem)
        except AppError as error:
            return Frame(seq, problem=problem or error)


class Frames:
    """Every source in use, by (part, camera, vision)."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, str, str], FrameSource] = {}

    def acquire(self, part_id: str, camera: str, vision: str, robot: Callable[[], Robot]) -> FrameSource:
        key = (part_id, camera, vision)
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = FrameSource(robot, camera, vision)
        source.acquire()
        return source

    def release(self, part_id: str, camera: str, vision: str) -> None:
        key = (part_id, camera, vision)
        if self._sources[key].release():
            del self._sources[key]


def pack_frame(seq: int, picture: Picture, fetch_ms: float) -> bytes:
    """One binary message of the live WebSocket (docs/architecture.md)."""
    try:
        height, width = picture_size(picture.data)
    except PictureProblem:
        height = width = 0
    header = {
        "seq": seq,
        "captured_at": picture.captured_at,
        "width": width,
        "height": height,
        "mime_type": picture.mime_type,
        "detections": [_normalized(box, width, height) for box in picture.detections],
        "classifications": list(picture.classifications),
        "inference_ms": picture.inference_ms,
        "fetch_ms": round(fetch_ms, 2),
    }
    data = json.dumps(header).encode()
    return _HEADER_LENGTH.pack(len(data)) + data + picture.data


def as_jpeg(picture: Picture) -> bytes:
    """The picture as JPEG, whatever the camera sends. Blocking. Raises PictureProblem."""
    if picture.mime_type.startswith("image/jpeg") and picture.data[:2] == b"\xff\xd8":
        return picture.data
    import simplejpeg

    encoded: bytes = simplejpeg.encode_jpeg(read_rgb(picture.data), quality=85)
    return encoded


def _normalized(box: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """Machines that fill in only pixels get their boxes divided by the picture's size."""
    box = dict(box)
    x0, y0, x1, y1 = box.pop("px")
    if not (box["x_max"] or box["y_max"]) and width and height:
        box |= {"x_min": x0 / width, "y_min": y0 / height, "x_max": x1 / width, "y_max": y1 / height}
    return box
