"""What the contract of the data calls is tried on: a running app with pictures, readings, and clients of the raw services."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import cv2
import numpy as np
from sdk_app_world import World
from viam.app.data_client import DataClient
from viam.utils import create_filter

START = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
_numbers = count(1)


@dataclass
class Called:
    """One call of one SDK method, and where."""

    world: World
    data: DataClient

    @property
    def organization_id(self) -> str:
        return self.world.organization_id

    @property
    def part_id(self) -> str:
        return self.world.part_id

    async def picture(self, tags: list[str] | None = None, component: str = "cam") -> str:
        """A new picture's id."""
        moment = START + timedelta(seconds=next(_numbers))
        return await self.data.binary_data_capture_upload(
            a_picture(),
            part_id=self.part_id,
            component_type="rdk:component:camera",
            component_name=component,
            method_name="GetImages",
            file_extension=".jpg",
            tags=tags,
            data_request_times=(moment, moment),
        )

    async def readings(self, component: str, *values: Any) -> None:
        moments = [START + timedelta(seconds=number) for number in range(len(values))]
        await self.data.tabular_data_capture_upload(
            [{"readings": {"celsius": value}} for value in values],
            part_id=self.part_id,
            component_type="rdk:component:sensor",
            component_name=component,
            method_name="Readings",
            data_request_times=[(moment, moment) for moment in moments],
        )

    async def count(self, **filter_: Any) -> int:
        return (await self.data.binary_data_by_filter(create_filter(**filter_), count_only=True))[1]

    async def metadata(self, item: str) -> Any:
        [found] = await self.data.binary_data_by_ids([item], include_binary_data=False)
        return found.metadata


def a_picture() -> bytes:
    pixels = np.random.default_rng(next(_numbers)).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
