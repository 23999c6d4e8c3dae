"""A webcam through FFmpeg's own V4L2 code, on a device that a preloaded library plays: plugged in, read, unplugged, back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from grpclib import GRPCError
from machine_process import RunningMachine, open_robot, running_machine
from sdk_journey import until
from viam.components.camera import Camera
from viam.proto.robot import ResourceStatus
from viam.robot.client import RobotClient

SIZE = (64, 48)
BLUE_JPEG = simplejpeg.encode_jpeg(np.full((48, 64, 3), (200, 30, 30), np.uint8), quality=90, colorspace="BGR")
GREY_YUYV = bytes([150, 128]) * (SIZE[0] * SIZE[1])


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the camera would be; it is plugged in while the file is there."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("V4L2 cameras are played by a preloaded library, which needs Linux and a C compiler")
    library = tmp_path / "fake_v4l2.so"
    source = Path(__file__).with_name("fake_v4l2.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAKE_V4L2_DEVICE", str(tmp_path / "video-test"))
    return tmp_path / "video-test"


@pytest.fixture
def machine(device: Path, tmp_path: Path) -> Iterator[RunningMachine]:
    webcam = {"name": "cam", "api": "rdk:component:camera", "model": "rdk:builtin:webcam"}
    config = {
        "network": {"bind_address": "localhost:0"},
        "components": [{**webcam, "attributes": {"video_path": str(device)}}],
    }
    with running_machine(tmp_path, config) as running:
        yield running


def plug_in(device: Path, picture: bytes) -> None:
    aside = device.with_suffix(".new")
    aside.write_bytes(picture)
    aside.rename(device)


async def state(robot: RobotClient) -> ResourceStatus:
    return next(each for each in (await robot.get_machine_status()).resources if each.name.name == "cam")


async def read(robot: RobotClient) -> bytes | str:
    """The picture, or why there is none."""
    try:
        images, _ = await Camera.from_robot(robot, "cam").get_images(timeout=5)
    except GRPCError as error:
        return str(error.message)
    return bytes(images[0].data)


async def test_a_webcam_is_plugged_in_read_unplugged_and_back(machine: RunningMachine, device: Path) -> None:
    async with open_robot(machine) as robot:
        absent = await state(robot)
        assert absent.state == ResourceStatus.STATE_UNHEALTHY
        assert f"cannot open {device}: No such file or directory" in absent.error

        plug_in(device, BLUE_JPEG)
        await until(lambda: state(robot), lambda now: now.state == ResourceStatus.STATE_READY, 20, "the webcam")
        await robot.refresh()
        assert await read(robot) == BLUE_JPEG, "MJPEG is passed on as the camera sent it"

        device.unlink()
        await until(lambda: read(robot), lambda got: isinstance(got, str) and "camera cam: " in got, 10, "an error")
        assert (await state(robot)).state == ResourceStatus.STATE_READY

        plug_in(device, GREY_YUYV)
        raw = await until(lambda: read(robot), lambda got: isinstance(got, bytes), 10, "a picture again")
        assert isinstance(raw, bytes)
        pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (48, 64, 3)
        assert np.ptp(pixels) < 10, "a camera without MJPEG is asked for what it has: here all grey"
