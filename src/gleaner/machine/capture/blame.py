"""Who keeps the event loop from running: found in the stack of its thread, so that the driver can be named."""

from __future__ import annotations

import sys
from types import FrameType

_OURS = ("/asyncio/", "/gleaner/machine/capture/", "/uvloop/")


def where_is(thread_id: int, wanted: object) -> str | None:
    """`function (file:line)` in which the thread is, if `wanted` is the `self` of a frame below it; else None."""
    innermost = frame = sys._current_frames().get(thread_id)
    while frame is not None:
        if frame.f_locals.get("self") is wanted:
            return _words(_drivers_frame(innermost, frame))
        frame = frame.f_back
    return None


def _drivers_frame(innermost: FrameType | None, below: FrameType) -> FrameType:
    """The innermost frame that is not the standard library's or ours: `time.sleep` helps nobody, its caller does."""
    frame = innermost
    while frame is not None and frame is not below:
        if not any(part in frame.f_code.co_filename for part in _OURS):
            return frame
        frame = frame.f_back
    return below


def _words(frame: FrameType) -> str:
    name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
    return f"{name} ({frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno})"
