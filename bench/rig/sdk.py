"""Uploads of one unmodified viam-sdk client to a real app on loopback, each answered after the durable commit."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Iterator

from viam.app.data_client import DataClient
from viam.app.viam_client import ViamClient
from viam.rpc.dial import DialOptions

from rig.app import App

_START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def sdk_uploads_per_s(app: App, numbers: range, in_flight: int, picture: Callable[[int], bytes]) -> float:
    return asyncio.run(_measure(app, numbers, in_flight, picture))


async def _measure(app: App, numbers: range, in_flight: int, picture: Callable[[int], bytes]) -> float:
    key_id, key = await asyncio.to_thread(app.owner_key)
    options = DialOptions.with_api_key(key, key_id)
    options.insecure = True
    client = await ViamClient.create_from_dial_options(options, app_url=app.grpc_address)
    try:
        waiting = iter(numbers)
        began = time.perf_counter()
        await asyncio.gather(*(_send(client.data_client, app.part_id, waiting, picture) for _ in range(in_flight)))
        return len(numbers) / (time.perf_counter() - began)
    finally:
        client.close()


async def _send(data: DataClient, part_id: str, numbers: Iterator[int], picture: Callable[[int], bytes]) -> None:
    for number in numbers:
        when = _START + dt.timedelta(seconds=number)
        await data.binary_data_capture_upload(
            binary_data=picture(number),
            part_id=part_id,
            component_type="rdk:component:camera",
            component_name="cam",
            method_name="ReadImage",
            file_extension=".jpg",
            tags=["bench"],
            data_request_times=(when, when),
        )
