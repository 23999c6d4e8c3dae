"""A trained model behind Viam's RPCs: what an unmodified client sees over a real socket."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpclib.client import Channel
from grpclib.server import Server
from test_vision_mlmodel import Host, StillCamera, channel_mean_model, onnx_service, plain_jpeg, vision_service
from viam.resource.manager import ResourceManager
from viam.services.mlmodel import MLModelClient
from viam.services.mlmodel.service import MLModelRPCService
from viam.services.vision import VisionClient
from viam.services.vision.service import VisionRPCService


@pytest.fixture
async def channel(tmp_path: Path) -> Any:
    host = Host()
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    model = await onnx_service(host, channel_mean_model(tmp_path / "m.onnx"), tmp_path / "labels.txt")
    host.resources["cam", "camera"] = StillCamera(plain_jpeg((250, 30, 120)))
    manager = ResourceManager([model, await vision_service(host, camera_name="cam")])
    server = Server([VisionRPCService(manager), MLModelRPCService(manager)])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        await server.start(sock=listening)
        async with Channel(*listening.getsockname()) as channel:
            yield channel
        server.close()
        await server.wait_closed()
    await manager.close()


async def test_a_client_gets_labels_picture_and_timings_in_one_call(channel: Channel) -> None:
    result = await VisionClient("eyes", channel).capture_all_from_camera(
        "cam", return_image=True, return_classifications=True, return_detections=True
    )
    assert result.image is not None
    assert (result.image.width, result.image.height) == (64, 48)
    assert result.classifications is not None
    assert result.classifications[0].class_name == "red"
    assert result.extra is not None
    assert set(result.extra) == {"captured_at", "inference_ms"}


async def test_a_client_reads_roles_and_the_default_camera(channel: Channel) -> None:
    properties = await VisionClient("eyes", channel).get_properties()
    assert properties.classifications_supported
    assert not properties.detections_supported


async def test_a_client_can_ask_the_model_itself(channel: Channel) -> None:
    client = MLModelClient("model", channel)
    metadata = await client.metadata()
    assert list(metadata.input_info[0].shape) == [1, 16, 24, 3]
    answer = await client.infer({"image": np.full((1, 16, 24, 3), 51, np.uint8)})
    assert answer["probability"].ravel().tolist() == pytest.approx([0.2] * 3)
