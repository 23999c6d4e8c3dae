"""The unmodified viam-sdk goes the whole way without a browser, on what `gleaner demo` starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from grpclib import GRPCError
from sdk_journey import (
    Key,
    app_client,
    drive_to,
    make_key,
    pose_in_front_of,
    pose_of,
    robot_client,
    until,
    upload_by_all_ways,
)
from viam.app.app_client import RobotPart
from viam.app.viam_client import ViamClient
from viam.components.base import Base
from viam.components.camera import Camera
from viam.components.sensor import Sensor
from viam.gen.service.datamanager.v1.data_manager_grpc import DataManagerServiceStub
from viam.gen.service.datamanager.v1.data_manager_pb2 import SyncRequest
from viam.media.video import CameraMimeType, ViamImage
from viam.proto.app.mltraining import ModelType, TrainingStatus
from viam.proto.common import Vector3
from viam.proto.robot import GetSessionsRequest, ResourceStatus
from viam.robot.client import RobotClient
from viam.services.vision import VisionClient
from viam.utils import create_filter

from demo_stack import DemoStack
from gleaner.sim import views

# viam-sdk leaves connections open that the collector finds at any later time.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LABELS = ("red_star", "blue_star", "black_triangle")
MODEL = "sdk-shapes"
OVERLAY = f"cam-{MODEL}"
ENDED = {
    TrainingStatus.TRAINING_STATUS_COMPLETED,
    TrainingStatus.TRAINING_STATUS_FAILED,
    TrainingStatus.TRAINING_STATUS_CANCELED,
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoStack]:
    stack = DemoStack(tmp_path_factory.mktemp("demo"))
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_sdk_goes_from_pictures_to_a_machine_that_recognises(demo: DemoStack, tmp_path: Path) -> None:
    key = await make_key(demo)
    async with app_client(demo, key) as app, robot_client(demo, key) as robot:
        part = await find_the_rover(app, key)
        await use_the_rover(robot, part)
        await captured_pictures_reach_the_app(app, robot, part)
        dataset = await make_dataset(app, key, part, tmp_path)
        version = await train(app, key, dataset)
        threshold = await suggested_threshold(demo, key, version)
        await deploy(app, key, part, threshold)
        await until_ready(robot, f"{MODEL}-model", f"{MODEL}-vision", OVERLAY)
        await robot.refresh()
        await the_deployed_model_is_right(robot, threshold)
        await the_rover_recognises_what_it_sees(robot, threshold)
        await its_logs_tell(app, part)


async def find_the_rover(app: ViamClient, key: Key) -> RobotPart:
    fleet = app.app_client
    assert [each.id for each in await fleet.list_organizations()] == [key.organization_id]
    [location] = await fleet.list_locations(key.organization_id)
    [machine] = await fleet.list_robots(location.id)
    assert machine.name == "rover"
    [part] = await fleet.get_robot_parts(machine.id)
    assert part.main_part
    return part


async def use_the_rover(robot: RobotClient, part: RobotPart) -> None:
    await until_ready(robot, "cam", "base", "computer")
    await robot.refresh()
    metadata = await robot.get_cloud_metadata()
    assert (metadata.machine_part_id, metadata.machine_id) == (part.id, part.robot)
    images, about = await Camera.from_robot(robot, "cam").get_images()
    assert images[0].data.startswith(b"\xff\xd8")
    assert about.captured_at.seconds > 0
    readings = await Sensor.from_robot(robot, "computer").get_readings()
    assert any("cpu" in name for name in readings), readings
    await drive_about(robot)


async def drive_about(robot: RobotClient) -> None:
    base = Base.from_robot(robot, "base")
    start = await pose_of(base)
    await base.move_straight(200, 400)
    await base.spin(90, 100)
    there = await pose_of(base)
    assert abs(there.x_mm - start.x_mm) + abs(there.y_mm - start.y_mm) > 100
    assert round(abs(there.heading_deg - start.heading_deg)) in (90, 270)
    await base.set_velocity(Vector3(), Vector3(z=20))
    assert await base.is_moving()
    sessions = await robot._client.GetSessions(GetSessionsRequest())
    assert robot._sessions_client._current_id in [session.id for session in sessions.sessions]
    await base.stop()
    await until(base.is_moving, lambda moving: not moving, 5, "the rover to stand")


async def captured_pictures_reach_the_app(app: ViamClient, robot: RobotClient, part: RobotPart) -> None:
    """What the rover captures by itself, sent now instead of at the next interval."""
    await DataManagerServiceStub(robot._channel).Sync(SyncRequest(name="data-manager"))
    captured = create_filter(part_id=part.id, component_name="cam", method="GetImages")

    async def count() -> int:
        return (await app.data_client.binary_data_by_filter(captured, count_only=True))[1]

    await until(count, bool, 15, "a captured picture")


async def make_dataset(app: ViamClient, key: Key, part: RobotPart, folder: Path) -> str:
    data = app.data_client
    dataset = await data.create_dataset("sdk-pictures", key.organization_id)
    for number, label in enumerate((*LABELS, None)):
        ids = await upload_by_all_ways(data, part.id, folder, label, 16, seed=100 + number)
        assert len(set(ids)) == 16
        await data.add_binary_data_to_dataset_by_ids(ids, dataset)
        if label:
            found, count, _ = await data.binary_data_by_filter(create_filter(tags=[label]), include_binary_data=False)
            assert (count, {one.metadata.binary_data_id for one in found}) == (16, set(ids))
        await data.add_tags_to_binary_data_by_ids(["by-sdk"], ids[:3])
        await data.remove_tags_from_binary_data_by_ids(["by-sdk"], ids[:1])
    inside = create_filter(dataset_id=dataset)
    assert (await data.binary_data_by_filter(inside, count_only=True))[1] == 16 * 4
    assert {*LABELS, "by-sdk"} <= set(await data.tags_by_filter(inside))
    await box_one_picture(app, create_filter(dataset_id=dataset, tags=["red_star"]))
    return dataset


async def box_one_picture(app: ViamClient, where: Any) -> None:
    [first], _, _ = await app.data_client.binary_data_by_filter(where, limit=1)
    assert cv2.imdecode(np.frombuffer(first.binary, np.uint8), cv2.IMREAD_COLOR) is not None
    picture = first.metadata.binary_data_id
    box = await app.data_client.add_bounding_box_to_image_by_id(picture, "red_star", 0.2, 0.3, 0.6, 0.7)
    [again] = await app.data_client.binary_data_by_ids([picture], include_binary_data=False)
    assert [(one.id, one.label) for one in again.metadata.annotations.bboxes] == [(box, "red_star")]


async def train(app: ViamClient, key: Key, dataset: str) -> str:
    """The new model's version."""
    training = app.ml_training_client
    kind = ModelType.MODEL_TYPE_SINGLE_LABEL_CLASSIFICATION
    job = await training.submit_training_job(key.organization_id, dataset, MODEL, "", kind, list(LABELS))
    done = await until(lambda: training.get_training_job(job), lambda got: got.status in ENDED, 120, "the training")
    assert done.status == TrainingStatus.TRAINING_STATUS_COMPLETED, done.error_status
    assert done.synced_model_id == f"{key.organization_id}/{MODEL}"
    return str(done.model_version)


async def suggested_threshold(demo: DemoStack, key: Key, version: str) -> float:
    path = f"/api/ml_models/{MODEL}/versions/{version}/report?organization_id={key.organization_id}"
    async with httpx.AsyncClient(base_url=demo.web, headers=key.headers, trust_env=False) as web:
        report = (await web.get(path)).raise_for_status().json()
    return float(report["summary"]["suggested_threshold"])


async def deploy(app: ViamClient, key: Key, part: RobotPart, threshold: float) -> None:
    """By hand what the Deploy button does: package, ML model, vision service and a camera with an overlay."""
    fleet = app.app_client
    current = await fleet.get_robot_part(part.id)
    config: dict[str, Any] = dict(current.robot_config or {})
    package = f"{key.organization_id}/{MODEL}"
    folder = f"${{packages.ml_model.{MODEL}}}"
    stage = {"classifier_name": f"{MODEL}-vision", "confidence_threshold": threshold}
    overlay = {"source": "cam", "pipeline": [{"type": "classifications", "attributes": stage}]}
    config["packages"] = [{"name": MODEL, "package": package, "type": "ml_model", "version": "latest"}]
    config["services"] = [
        *config["services"],
        {
            "name": f"{MODEL}-model",
            "api": "rdk:service:mlmodel",
            "model": "gleaner:mlmodel:onnx-cpu",
            "attributes": {"model_path": f"{folder}/model.onnx", "label_path": f"{folder}/labels.txt"},
        },
        {
            "name": f"{MODEL}-vision",
            "api": "rdk:service:vision",
            "model": "rdk:builtin:mlmodel",
            "attributes": {"mlmodel_name": f"{MODEL}-model", "camera_name": "cam"},
        },
    ]
    config["components"] = [
        *config["components"],
        {"name": OVERLAY, "api": "rdk:component:camera", "model": "rdk:builtin:transform", "attributes": overlay},
    ]
    changed = await fleet.update_robot_part(part.id, part.name, config, last_known_update=current.last_updated)
    assert [each["name"] for each in (changed.robot_config or {})["packages"]] == [MODEL]  # type: ignore[index, union-attr, call-overload]
    with pytest.raises(GRPCError):
        await fleet.update_robot_part(part.id, part.name, config, last_known_update=current.last_updated)


async def until_ready(robot: RobotClient, *names: str) -> None:
    async def ask() -> dict[str, ResourceStatus]:
        return {each.name.name: each for each in (await robot.get_machine_status()).resources}

    def ready(states: dict[str, ResourceStatus]) -> bool:
        return all(name in states and states[name].state == ResourceStatus.STATE_READY for name in names)

    await until(ask, ready, 30, f"{', '.join(names)} to be ready")


async def the_deployed_model_is_right(robot: RobotClient, threshold: float) -> None:
    """On views from places and moments that it was not trained on."""
    vision = VisionClient.from_robot(robot, f"{MODEL}-vision")
    assert (await vision.get_properties()).classifications_supported
    right = total = 0
    for label in (*LABELS, None):
        for view in views.labelled_views(label, 12, seed=2025):
            best = await vision.get_classifications(ViamImage(view.jpeg, CameraMimeType.JPEG), 1)
            said = best[0].class_name if best and best[0].confidence >= threshold else None
            right, total = right + (said == label), total + 1
    print(f"right on {right} of {total} at {threshold:.2f}")
    assert right / total >= 0.9


async def the_rover_recognises_what_it_sees(robot: RobotClient, threshold: float) -> None:
    base, vision = Base.from_robot(robot, "base"), VisionClient.from_robot(robot, f"{MODEL}-vision")
    for seed in range(5):
        await drive_to(base, pose_in_front_of("red_star", seed))
        [best, *_] = await vision.get_classifications_from_camera("cam", 3)
        if best.class_name == "red_star" and best.confidence >= threshold:
            break
    else:
        pytest.fail("the rover stood in front of the red star five times and never recognised it")
    everything = await vision.capture_all_from_camera("cam", return_image=True, return_classifications=True)
    assert everything.image is not None
    assert everything.classifications is not None
    assert everything.classifications[0].class_name == "red_star"
    plain, _ = await Camera.from_robot(robot, "cam").get_images()
    drawn, _ = await Camera.from_robot(robot, OVERLAY).get_images()
    assert red_text(drawn[0].data) > red_text(plain[0].data) + 50


def red_text(data: bytes) -> int:
    """Pixels of the overlay's pure red in the upper left, where it writes."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int)[:80, :320]
    return int(((pixels[..., 2] > 180) & (pixels[..., 1] < 80) & (pixels[..., 0] < 80)).sum())


async def its_logs_tell(app: ViamClient, part: RobotPart) -> None:
    async def lines() -> list[str]:
        return [entry.message for entry in await app.app_client.get_robot_part_logs(part.id, num_log_entries=100)]

    ready = f"rdk:service:vision/{MODEL}-vision is ready"
    await until(lines, lambda found: any(ready in line for line in found), 15, "the log line of the vision service")
