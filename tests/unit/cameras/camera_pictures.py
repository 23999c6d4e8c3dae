"""Tiny pictures and videos made on the spot, and waiting for a condition."""

from __future__ import annotations

import asyncio
import inspect
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import simplejpeg


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Waits for a condition (plain or async) to hold; TimeoutError when it does not."""
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(0.005)


def picture(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """A smooth picture that survives compression: left half blue, right half red, with a gradient."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : width // 2, 0] = 200
    frame[:, width // 2 :, 2] = 200
    frame[:, :, 1] = (np.linspace(0, 120, height) + seed)[:, None].astype(np.uint8)
    return frame


def jpeg(frame: np.ndarray) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=92, colorspace="BGR"))


def with_orientation(data: bytes, orientation: int, order: str = "<") -> bytes:
    """A JPEG with an EXIF block that says how the camera was held."""
    mark = b"II" if order == "<" else b"MM"
    tiff = mark + struct.pack(f"{order}HIHHHIHH", 42, 8, 1, 0x0112, 3, 1, orientation, 0) + struct.pack(f"{order}I", 0)
    body = b"Exif\x00\x00" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def write_video(
    path: Path, frames: int = 8, rate: int = 50, codec: str = "mjpeg", size: tuple[int, int] = (64, 48)
) -> Path:
    """Frame number n has brightness 20 + 20 n."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(frames):
            shade = np.full((size[1], size[0], 3), 20 + 20 * (number % 12), np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(shade, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
