"""The unmodified viam-sdk trains a model and a part fetches the package, with the real training worker."""

from __future__ import annotations

import asyncio
import base64
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import google_crc32c
import httpx
import numpy as np
import pytest
from grpclib import GRPCError, Status
from sdk_app_world import World, app_world
from viam.proto.app.mltraining import ModelType, TrainingStatus

STAND_IN = """
import json, pathlib, sys
run = pathlib.Path(sys.argv[1])
settings = json.loads((run / "run.json").read_text())
pictures = (run / settings["dataset"]).read_text().splitlines()
print(json.dumps({"event": "log", "level": "info", "message": f"{len(pictures)} pictures"}), flush=True)
out = run / settings["output_dir"]
(out / "model.onnx").write_bytes(b"onnx")
(out / "labels.txt").write_text("\\n".join(settings["labels"]))
(out / "report.json").write_text(json.dumps({"format": 1, "summary": {"accuracy": 0.9, "suggested_threshold": 0.7}}))
print(json.dumps({"event": "done"}))
"""
ENDED = {
    TrainingStatus.TRAINING_STATUS_COMPLETED,
    TrainingStatus.TRAINING_STATUS_FAILED,
    TrainingStatus.TRAINING_STATUS_CANCELED,
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with app_world(tmp_path / "app") as world:
        yield world


def shape(label: str, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    pixels = random.integers(90, 160, (96, 96, 3), dtype=np.uint8)
    x, y = (int(v) for v in random.integers(25, 70, 2))
    if label == "disc":
        cv2.circle(pixels, (x, y), 18, (30, 30, 220), -1)
    else:
        cv2.rectangle(pixels, (x - 16, y - 16), (x + 16, y + 16), (220, 60, 30), -1)
    return bytes(cv2.imencode(".jpg", pixels)[1].tobytes())


async def make_dataset(world: World, client: object, per_label: int) -> str:
    data = client.data_client  # type: ignore[attr-defined]
    ids = []
    for number, label in enumerate(("disc", "box")):
        for index in range(per_label):
            picture = shape(label, 1000 * number + index)
            ids.append(
                await data.binary_data_capture_upload(
                    picture,
                    part_id=world.part_id,
                    component_type="rdk:component:camera",
                    component_name="cam",
                    method_name="GetImages",
                    file_extension=".jpg",
                    tags=[label],
                )
            )
    dataset: str = await data.create_dataset("shapes", world.organization_id)
    await data.add_binary_data_to_dataset_by_ids(ids, dataset)
    return dataset


async def train(world: World, client: object, dataset: str) -> str:
    kind = ModelType.MODEL_TYPE_SINGLE_LABEL_CLASSIFICATION
    submit = client.ml_training_client.submit_training_job  # type: ignore[attr-defined]
    job: str = await submit(world.organization_id, dataset, "shapes", "", kind, ["disc", "box"])
    return job


async def ended(client: object, job: str) -> object:
    while True:
        got = await client.ml_training_client.get_training_job(job)  # type: ignore[attr-defined]
        if got.status in ENDED:
            return got
        await asyncio.sleep(0.1)


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {one.name: opened.extractfile(one).read() for one in opened if one.isfile()}  # type: ignore[union-attr]


async def test_submitted_jobs_become_packages_that_parts_download(world: World, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(STAND_IN)
    world.context.jobs.command = (sys.executable, str(script))
    async with world.client() as client:
        dataset = await make_dataset(world, client, 3)
        job = await train(world, client, dataset)
        done = await ended(client, job)
        assert done.status == TrainingStatus.TRAINING_STATUS_COMPLETED, done.error_status  # type: ignore[attr-defined]
        assert done.synced_model_id == f"{world.organization_id}/shapes"  # type: ignore[attr-defined]
        listed = await client.ml_training_client.list_training_jobs(world.organization_id)
        assert [one.id for one in listed] == [job]
        assert "6 pictures" in [line.message for line in world.context.jobs.logs(world.owner, job)]
        item = await client.app_client.get_registry_item(f"{world.organization_id}:shapes")
        assert list(item.ml_model_metadata.versions) == [done.model_version]  # type: ignore[attr-defined]
        with pytest.raises(GRPCError) as told:
            await client.ml_training_client.cancel_training_job(job)
        assert told.value.status is Status.ALREADY_EXISTS

    secret = world.context.fleet.new_secret(world.owner, world.part_id)
    headers = {"part_id": world.part_id, "secret": secret}
    url = f"{world.context.addresses.web}/api/packages/{world.organization_id}/shapes/latest.tar.gz"
    async with httpx.AsyncClient(headers=headers) as web:
        head, whole = await web.head(url), await web.get(url)
        rest = await web.get(url, headers={"range": "bytes=10-"})
    assert head.headers["content-type"] == "application/x-gzip"
    assert int(head.headers["content-length"]) == len(whole.content)
    assert rest.status_code == 206
    assert whole.content[10:] == rest.content
    checksum = base64.b64encode(google_crc32c.value(whole.content).to_bytes(4, "big")).decode()
    assert head.headers["x-goog-hash"] == f"crc32c={checksum}"
    assert members(whole.content)["labels.txt"] == b"disc\nbox"
    runs = tmp_path / "app" / "runs"
    assert list(runs.iterdir()) == [], "the dataset's pictures do not stay in the clear"


@pytest.mark.slow
async def test_the_real_worker_trains_a_model_that_a_part_can_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gleaner.app.rpc.training.DEFAULT_S", 10.0)
    async with world.client() as client:
        dataset = await make_dataset(world, client, 12)
        done = await ended(client, await train(world, client, dataset))
        assert done.status == TrainingStatus.TRAINING_STATUS_COMPLETED, done.error_status  # type: ignore[attr-defined]
    package = world.context.packages.find(world.organization_id, "shapes")
    assert package is not None
    held = members(b"".join(world.context.packages.content(package)))
    assert held["labels.txt"].decode().split() == ["disc", "box"]
    assert held["model.onnx"]
    report = world.context.ml_models.report(world.owner, world.organization_id, "shapes", package.version)
    assert report["summary"]["test_count"] >= 1
    assert package.about["accuracy"] == report["summary"]["accuracy"]
