"""The simulated camera and base, as a machine and an unmodified viam-sdk client meet them."""

from __future__ import annotations

import asyncio
import time

import pytest
import simplejpeg
from camera_pictures import until
from grpclib.testing import ChannelFor
from viam.components.base import Vector3
from viam.components.base.client import BaseClient
from viam.components.base.service import BaseRPCService
from viam.components.camera.client import CameraClient
from viam.components.camera.service import CameraRPCService
from viam.errors import ViamGRPCError
from viam.resource.manager import ResourceManager

from gleaner.machine.models import (
    base_sim,
    camera_image_dir,
    camera_sim,
    camera_transform,
    camera_video,
    camera_webcam,
    find,
)
from gleaner.machine.models.base_sim import SimBase
from gleaner.machine.models.camera_image_file import SPEC as IMAGE_FILE
from gleaner.machine.models.pictures import CameraProblem
from gleaner.sim import truth
from gleaner.sim.geometry import Pose
from gleaner.sim.world import World

SPECS = [
    base_sim.SPEC,
    camera_sim.SPEC,
    camera_image_dir.SPEC,
    camera_transform.SPEC,
    camera_video.SPEC,
    camera_webcam.SPEC,
    IMAGE_FILE,
]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


@pytest.fixture
def base():
    clock = Clock()
    return SimBase("base", World(clock), sleep=clock.sleep)


async def test_an_unmodified_client_drives_and_sees(build):
    camera, base = await build(camera_sim.SPEC), await build(base_sim.SPEC)
    base.name = "base"
    manager = ResourceManager([camera, base])
    async with ChannelFor([CameraRPCService(manager), BaseRPCService(manager)]) as channel:
        eyes, wheels = CameraClient("cam", channel), BaseClient("base", channel)
        before_ns = time.time_ns()
        images, metadata = await eyes.get_images()
        assert before_ns <= metadata.captured_at.ToNanoseconds() <= time.time_ns()
        assert simplejpeg.decode_jpeg(images[0].data).shape == (480, 640, 3)
        pose = await wheels.do_command({"place": {"x_mm": 0, "y_mm": 0, "heading_deg": 10}})
        assert (pose["x_mm"], pose["heading_deg"]) == (0, 10)
        await wheels.spin(20, 120)
        assert (await wheels.do_command({"get_pose": {}}))["heading_deg"] == pytest.approx(30, abs=0.1)
        await wheels.set_velocity(Vector3(x=0, y=300, z=0), Vector3(x=0, y=0, z=10))
        assert await wheels.is_moving()
        await wheels.stop()
        properties = await eyes.get_properties()
        assert properties.intrinsic_parameters.width_px == 640
        assert properties.frame_rate == 30
        assert (await wheels.get_properties()).width_meters == pytest.approx(0.3)
        assert await eyes.get_geometries() == []


async def test_the_camera_rides_on_the_base_of_the_same_world_only(build):
    here, _ = (
        await build(camera_sim.SPEC, frame_rate=240),
        await build(camera_sim.SPEC, world="elsewhere", frame_rate=240),
    )
    base = await build(base_sim.SPEC)
    first = (await here.get_images())[0][0].data
    await base.do_command({"place": {"x_mm": 0, "y_mm": 0, "heading_deg": 180}})

    async def sees_something_else() -> bool:
        return (await here.get_images())[0][0].data != first

    await until(sees_something_else)


async def test_nobody_looking_renders_nothing_and_everybody_looking_renders_once(build):
    camera = await build(camera_sim.SPEC, frame_rate=0.1)
    assert camera.source.frames == 0
    answers = await asyncio.gather(*(camera.get_images() for _ in range(25)))
    assert camera.source.frames == 1
    assert len({a[1].captured_at.ToNanoseconds() for a in answers}) == 1


async def test_reconfiguring_the_camera_leaves_the_rover_where_it_is(build):
    base, camera = await build(base_sim.SPEC), await build(camera_sim.SPEC)
    await base.do_command({"place": {"x_mm": 700, "y_mm": 0, "heading_deg": 0}})
    await camera.close()
    await camera.close()
    again = await build(camera_sim.SPEC, seed=8, width_px=320, height_px=240)
    images, _ = await again.get_images()
    assert images[0].width == 320
    assert (await base.get_status())["x_mm"] == 700


async def test_move_straight_returns_when_it_has_arrived(base):
    start = await base.get_status()
    await base.move_straight(400, 300)
    end = await base.get_status()
    assert ((end["x_mm"] - start["x_mm"]) ** 2 + (end["y_mm"] - start["y_mm"]) ** 2) ** 0.5 == pytest.approx(
        400, abs=0.5
    )
    assert not await base.is_moving()


async def test_a_cancelled_move_stops_the_rover():
    base = SimBase("base", World())
    moving = asyncio.create_task(base.move_straight(2000, 100))
    await until(base.is_moving)
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving
    await until(lambda: base.world.rover().at_rest)


async def test_a_stop_ends_a_move_at_once(base):
    base._sleep = asyncio.sleep
    base.world = World()
    moving = asyncio.create_task(base.spin(360, 20))
    await until(base.is_moving)
    await base.stop()
    async with asyncio.timeout(5):
        await moving


@pytest.mark.parametrize(
    "command", [{}, {"dance": 1}, {"place": {}}, {"place": {"x_mm": "a", "y_mm": 0}}, {"place": 3}]
)
async def test_an_unknown_command_says_what_is_known(base, command):
    with pytest.raises(ViamGRPCError) as caught:
        await base.do_command(command)
    assert "place" in caught.value.message


async def test_a_speed_that_is_no_number_is_refused(base):
    with pytest.raises(ViamGRPCError):
        await base.set_power(Vector3(x=0, y=float("nan"), z=0), Vector3(x=0, y=0, z=0))


async def test_power_and_pose_give_the_signs_in_view(base):
    """What the journey test does: place the rover, and know what is in front of it."""
    status = await base.do_command({"place": {"x_mm": 1000, "y_mm": -140, "heading_deg": 0}})
    seen = truth.visible(Pose(status["x_mm"], status["y_mm"], status["heading_deg"]))
    assert [s.label for s in seen] == ["red_star"]


@pytest.mark.parametrize(
    ("names", "message"), [(["a", "a"], "twice"), (["nose"], "has no source 'nose'")], ids=["duplicate", "unknown"]
)
async def test_source_filters_are_checked(build, names, message):
    camera = await build(camera_sim.SPEC)
    with pytest.raises(CameraProblem, match=message):
        await camera.get_images(filter_source_names=names)
    with pytest.raises(CameraProblem, match="no point cloud"):
        await camera.get_point_cloud()


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.model)
def test_every_attribute_can_be_drawn_as_a_form(spec):
    schema = spec.attributes.model_json_schema()
    for name, field in schema["properties"].items():
        assert field.get("title"), name
        assert field.get("description"), name
    assert schema["additionalProperties"] is False
    assert spec.title
    assert spec.description
    if ":camera" in spec.api:
        assert [c.method for c in spec.capture] == ["GetImages", "ReadImage"]


@pytest.mark.parametrize(
    ("api", "model", "expected"),
    [
        ("rdk:component:camera", "gleaner:builtin:sim", camera_sim.SPEC),
        ("rdk:component:base", "gleaner:builtin:sim", base_sim.SPEC),
        ("rdk:component:camera", "viam:camera:ffmpeg", camera_video.SPEC),
    ],
)
def test_other_names_find_the_model(api, model, expected):
    assert find(api, model) is expected
