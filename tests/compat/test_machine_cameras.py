"""Cameras of every kind on real files, through a whole machine and the unmodified viam-sdk; and one whose device is missing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import numpy as np
import pytest
import simplejpeg
import websockets
from machine_process import RunningMachine, open_robot, running_machine
from sdk_journey import make_key, until
from viam.components.camera import Camera
from viam.proto.robot import ResourceStatus
from viam.robot.client import RobotClient
from viam.services.vision import VisionClient

from demo_stack import DemoStack

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CAMERA, VISION = "rdk:component:camera", "rdk:service:vision"
WIDTH, HEIGHT = 160, 120
BLUE, RED = (200, 30, 30), (30, 30, 220)  # BGR
NO_DEVICE = "/dev/video_none"


def scene(left: int) -> np.ndarray:
    """A blue picture with a red square, 40 px wide, whose left edge is at `left`."""
    pixels = np.full((HEIGHT, WIDTH, 3), BLUE, np.uint8)
    pixels[40:80, left : left + 40] = RED
    return pixels


def write_media(folder: Path) -> None:
    (folder / "photos").mkdir()
    for number in range(3):
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(scene(20 + 30 * number)), quality=92, colorspace="BGR")
        (folder / "photos" / f"{number}.jpg").write_bytes(data)
    (folder / "photo.jpg").write_bytes((folder / "photos" / "0.jpg").read_bytes())
    with av.open(str(folder / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(25):
            for packet in stream.encode(av.VideoFrame.from_ndarray(scene(20 + 3 * number), format="bgr24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def camera(name: str, model: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "api": CAMERA, "model": model, "attributes": attributes}


def transformed(name: str, kind: str, **attributes: Any) -> dict[str, Any]:
    return camera(name, "rdk:builtin:transform", source="photo", pipeline=[{"type": kind, "attributes": attributes}])


def configuration(folder: Path) -> dict[str, Any]:
    red = {"detect_color": "#DC1E1E", "hue_tolerance_pct": 0.05, "segment_size_px": 200, "label": "red"}
    return {
        "network": {"bind_address": "localhost:0"},
        "components": [
            camera("film", "gleaner:camera:video", video_path=str(folder / "film.mp4")),
            camera("photo", "rdk:builtin:image_file", color_image_file_path=str(folder / "photo.jpg")),
            camera("photos", "gleaner:camera:image-dir", path=str(folder / "photos"), frame_rate=50),
            transformed("cropped", "crop", x_min_px=20, y_min_px=40, x_max_px=60, y_max_px=80),
            transformed("small", "resize", width_px=80, height_px=60),
            transformed("turned", "rotate", angle_degs=90),
            transformed("found", "detections", detector_name="reds", confidence_threshold=0.5),
            camera("front", "rdk:builtin:webcam", video_path=NO_DEVICE),
            camera("front-small", "rdk:builtin:transform", source="front",
                   pipeline=[{"type": "resize", "attributes": {"width_px": 8, "height_px": 8}}]),
        ],
        "services": [{"name": "reds", "api": VISION, "model": "rdk:builtin:color_detector", "attributes": red}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMachine]:
    folder = tmp_path_factory.mktemp("cameras")
    write_media(folder)
    with running_machine(folder, configuration(folder)) as running:
        yield running


@pytest.fixture
async def robot(machine: RunningMachine) -> AsyncIterator[RobotClient]:
    async with open_robot(machine) as client:
        yield client


async def look(robot: RobotClient, name: str) -> np.ndarray:
    """(height, width, 3) uint8 BGR."""
    images, metadata = await Camera.from_robot(robot, name).get_images()
    assert images[0].mime_type == "image/jpeg"
    assert metadata.captured_at.seconds > 0
    return np.asarray(cv2.imdecode(np.frombuffer(images[0].data, np.uint8), cv2.IMREAD_COLOR))


def red_columns(pixels: np.ndarray) -> tuple[int, int]:
    """First and last column of the red square."""
    colors = pixels.astype(int)
    found = np.flatnonzero(((colors[..., 2] - colors[..., 0]) > 100).sum(axis=0) > pixels.shape[0] // 6)
    return int(found[0]), int(found[-1])


async def test_a_film_plays(robot: RobotClient) -> None:
    first = red_columns(await look(robot, "film"))[0]
    assert 15 <= first <= 100
    await until(
        lambda: look(robot, "film"), lambda now: abs(red_columns(now)[0] - first) > 6, 10, "the film to move on"
    )


async def test_a_photo_is_given_as_it_is(robot: RobotClient) -> None:
    pixels = await look(robot, "photo")
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert red_columns(pixels) == pytest.approx((20, 59), abs=2)


async def test_a_folder_plays_all_its_photos(robot: RobotClient) -> None:
    seen = set()

    async def places() -> set[int]:
        seen.add(round(red_columns(await look(robot, "photos"))[0], -1))
        return seen

    await until(places, lambda found: found == {20, 50, 80}, 10, "the three photos")


async def test_transforms_crop_resize_and_rotate(robot: RobotClient) -> None:
    cropped, small, turned = [await look(robot, name) for name in ("cropped", "small", "turned")]
    assert cropped.shape == (40, 40, 3)
    assert np.abs(cropped.astype(int).mean(axis=(0, 1)) - RED).max() < 40
    assert small.shape == (60, 80, 3)
    assert red_columns(small) == pytest.approx((10, 29), abs=2)
    assert turned.shape == (WIDTH, HEIGHT, 3)
    assert red_columns(turned) == pytest.approx((40, 79), abs=2)


async def test_a_color_detector_finds_and_the_transform_draws_its_box(robot: RobotClient) -> None:
    [box] = await VisionClient.from_robot(robot, "reds").get_detections_from_camera("photo")
    assert (box.class_name, box.x_min, box.y_min) == ("red", pytest.approx(20, abs=2), pytest.approx(40, abs=2))
    plain, drawn = await look(robot, "photo"), await look(robot, "found")
    assert np.abs(plain.astype(int) - drawn).max(axis=2)[36:84, 16:64].max() > 80


async def test_a_webcam_without_its_device_is_unhealthy_and_says_why(robot: RobotClient) -> None:
    states = {each.name.name: each for each in (await robot.get_machine_status()).resources}
    assert states["photo"].state == ResourceStatus.STATE_READY
    front = states["front"]
    assert front.state == ResourceStatus.STATE_UNHEALTHY
    assert f"camera front: cannot open {NO_DEVICE}: No such file or directory; " in front.error
    assert "front" not in {name.name for name in robot.resource_names}
    assert "depends on camera 'front', which is not ready: camera front: cannot open" in states["front-small"].error


@pytest.mark.slow
async def test_the_app_explains_a_webcam_without_its_device(tmp_path: Path) -> None:
    demo = DemoStack(tmp_path / "demo")
    try:
        await asyncio.to_thread(demo.start)
        key = await make_key(demo)
        async with httpx.AsyncClient(base_url=f"{demo.web}/api", headers=key.headers, trust_env=False) as web:
            part = (await web.get("/machines")).json()[0]["parts"][0]["id"]
            saved = (await web.get(f"/parts/{part}/config")).json()
            config = saved["config"]
            config["components"].append(camera("front", "rdk:builtin:webcam", video_path=NO_DEVICE))
            body = {"config": config, "base_revision": saved["revision"]}
            (await web.put(f"/parts/{part}/config", json=body)).raise_for_status()

            async def states() -> dict[str, dict[str, str]]:
                status = (await web.get(f"/parts/{part}/status")).json()
                return {each["name"]: each for each in status["resources"]}

            shown = await until(states, lambda now: now.get("front", {}).get("error"), 20, "the webcam's error")
            assert shown["front"]["state"] == "unhealthy"
            assert shown["cam"]["state"] == "ready"
            answer = await web.get(f"/parts/{part}/cameras/front/image.jpg")
            assert answer.status_code == 502
            explains(answer.json()["error"])
            address = f"{demo.web.replace('http', 'ws')}/api/parts/{part}/live"
            async with websockets.connect(address, additional_headers=key.headers, proxy=None) as page:
                await page.send(json.dumps({"watch": {"camera": "front", "vision": None, "max_fps": 5}}))
                explains(json.loads(await asyncio.wait_for(page.recv(), 10))["error"])
    finally:
        await asyncio.to_thread(demo.stop)


def explains(error: dict[str, str]) -> None:
    assert error["message"].startswith(f"camera front: cannot open {NO_DEVICE}: No such file or directory; ")
    assert "CONFIGURE" in error["hint"]
