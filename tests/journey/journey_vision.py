"""How right a deployed model is, asked of the machine itself over its robot API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from grpclib.client import Channel
from viam.media.video import CameraMimeType, ViamImage
from viam.services.vision import VisionClient


def accuracy_on(home: Path, vision: str, pictures: Sequence[tuple[bytes, str]], threshold: float) -> float:
    """Share of JPEG pictures whose best label above the threshold is the expected one ("" = none above it)."""
    # Playwright's synchronous API runs an event loop in this thread already.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(_accuracy(home, vision, pictures, threshold))).result()


async def _accuracy(home: Path, vision: str, pictures: Sequence[tuple[bytes, str]], threshold: float) -> float:
    from gleaner.machine.home import MachineHome

    channel = Channel(path=str(MachineHome(home).socket_path))
    try:
        client = VisionClient(vision, channel)  # type: ignore[arg-type]
        right = 0
        for jpeg, expected in pictures:
            best = await client.get_classifications(ViamImage(jpeg, CameraMimeType.JPEG), 1)
            said = best[0].class_name if best and best[0].confidence >= threshold else ""
            right += said == expected
        return right / len(pictures)
    finally:
        channel.close()
