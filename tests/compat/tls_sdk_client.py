"""An unmodified viam-sdk client in a process of its own: it uploads a picture over TLS, finds it and prints what it got.

Arguments: the app's gRPC address, key id, key, part id, a picture file. `ViamClient` probes TLS with a blocking
connection of its own, which would stand in the way of anything else on the test's event loop.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from viam.app.viam_client import ViamClient
from viam.rpc.dial import DialOptions
from viam.utils import create_filter


async def main(address: str, key_id: str, key: str, part_id: str, picture: str) -> None:
    client = await ViamClient.create_from_dial_options(DialOptions.with_api_key(key, key_id), app_url=address)
    try:
        data = client.data_client
        moment = datetime(2026, 3, 4, tzinfo=UTC)
        content = Path(picture).read_bytes()
        uploaded = await data.binary_data_capture_upload(
            content,
            part_id=part_id,
            component_type="rdk:component:camera",
            component_name="sdk-camera",
            method_name="GetImages",
            file_extension=".jpg",
            tags=["by_sdk"],
            data_request_times=(moment, moment),
        )
        found, count, _ = await data.binary_data_by_filter(create_filter(tags=["by_sdk"]))
        listed, _, _ = await data.binary_data_by_filter(create_filter(tags=["by_sdk"]), include_binary_data=False)
    finally:
        client.close()
    result = {
        "uploaded": uploaded,
        "found": [one.metadata.binary_data_id for one in listed],
        "count": count,
        "same": [one.binary == content for one in found],
        "uri": listed[0].metadata.uri,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:6]))
