"""How right a deployed model is, asked of the machine itself over its robot API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import simplejpeg
from grpclib.client import Channel
from viam.gen.service.vision.v1.vision_grpc import VisionServiceStub
from viam.gen.service.vision.v1.vision_pb2 import GetClassificationsRequest

from gleaner.machine.home import MachineHome


def accuracy_on(home: Path, vision: str, pictures: Sequence[tuple[bytes, str]], threshold: float) -> float:
    """Share of JPEG pictures whose best label above the threshold is the expected one ("" = none above it)."""
    # Playwright's synchronous API runs an event loop in this thread already.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(_accuracy(home, vision, pictures, threshold))).result()


async def _accuracy(home: Path, vision: str, pictures: Sequence[tuple[bytes, str]], threshold: float) -> float:
    channel = Channel(path=str(MachineHome(home).socket_path))
    try:
        # Not viam-sdk's client: it cannot read the size of these photos, whose JPEG headers carry EXIF data.
        stub = VisionServiceStub(channel)
        right = 0
        for jpeg, expected in pictures:
            height, width, _colour, _sampling = simplejpeg.decode_jpeg_header(jpeg)
            request = GetClassificationsRequest(
                name=vision, image=jpeg, width=width, height=height, mime_type="image/jpeg", n=1
            )
            best = (await stub.GetClassifications(request)).classifications
            said = best[0].class_name if best and best[0].confidence >= threshold else ""
            right += said == expected
        return right / len(pictures)
    finally:
        channel.close()
