"""The unmodified viam-sdk runs a training script of the registry; the real worker runs it, without a network."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from sdk_app_world import World, app_world
from test_sdk_app_training import ended, make_dataset, members
from viam.gen.app.packages.v1 import packages_pb2 as packages
from viam.gen.app.packages.v1.packages_grpc import PackageServiceStub
from viam.proto.app import Visibility
from viam.proto.app.data import SequenceResourceFilter
from viam.proto.app.dataset import DatasetType
from viam.proto.app.mltraining import ModelType, SubmitCustomTrainingJobRequest, TrainingStatus

SCRIPT = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--dataset_file")
parser.add_argument("--model_output_directory")
parser.add_argument("--epochs", default="1")
args = parser.parse_args()
lines = [json.loads(line) for line in open(args.dataset_file)]
tags = sorted({a["annotation_label"] for line in lines for a in line["classification_annotations"]})
size = sum(len(open(line["image_path"], "rb").read()) for line in lines)
print(f"{len(lines)} pictures of {tags}, {args.epochs} epochs", flush=True)
if args.epochs == "0":
    raise SystemExit("there is nothing to do in 0 epochs")
pathlib.Path(args.model_output_directory, "net.tflite").write_bytes(str(size).encode())
pathlib.Path(args.model_output_directory, "labels.txt").write_text("\\n".join(tags))
"""

SEQUENCE_SCRIPT = """
import argparse, json, pathlib
import pyarrow.parquet as pq
parser = argparse.ArgumentParser()
for name in ("binary_data", "tabular_data", "sequences"):
    parser.add_argument(f"--{name}_file", required=True)
parser.add_argument("--model_output_directory")
args = parser.parse_args()
sequences = pq.read_table(args.sequences_file).to_pylist()
pictures = pq.read_table(args.binary_data_file).to_pylist()
readings = pq.read_table(args.tabular_data_file).to_pylist()
print(f"{len(sequences)} sequence {sequences[0]['sequence_id']} of {sequences[0]['tags']}", flush=True)
sizes = [len(one["data"]) - 3 for one in pictures]
celsius = [float(json.loads(one["data"])["celsius"]) for one in readings]
print(f"pictures {sizes}, celsius {celsius}", flush=True)
pathlib.Path(args.model_output_directory, "policy.onnx").write_bytes(b"p")
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with app_world(tmp_path / "app") as world:
        yield world


def archive(script: str = SCRIPT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, text in (("model/__init__.py", ""), ("model/training.py", script)):
            info = tarfile.TarInfo(f"mine-1/{name}")
            info.size = len(text)
            opened.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


async def upload(world: World, client: object, version: str, script: str = SCRIPT) -> None:
    """As `viam training-script upload` does."""
    info = packages.PackageInfo(
        organization_id=world.organization_id,
        name="mine",
        version=version,
        type=packages.PackageType.PACKAGE_TYPE_ML_TRAINING,
    )
    info.metadata.update({"model_framework": "tflite", "model_type": "single_label_classification", "draft": False})
    stub = PackageServiceStub(client._channel)  # type: ignore[attr-defined]
    metadata = client._metadata  # type: ignore[attr-defined]
    async with stub.CreatePackage.open(metadata=metadata) as stream:
        await stream.send_message(packages.CreatePackageRequest(info=info))
        await stream.send_message(packages.CreatePackageRequest(contents=archive(script)), end=True)
        made = await stream.recv_message()
    assert made is not None and made.version == version


async def test_a_script_of_the_registry_makes_a_model(world: World) -> None:
    item_id = f"{world.organization_id}:mine"
    async with world.client() as client:
        dataset = await make_dataset(world, client, 3)
        await upload(world, client, "1.0")
        await upload(world, client, "1.1")
        item = await client.app_client.get_registry_item(item_id)
        assert item.type == packages.PackageType.PACKAGE_TYPE_ML_TRAINING
        assert [one.version for one in item.ml_training_metadata.versions] == ["1.1", "1.0"]
        ml = client.ml_training_client
        assert [one.framework for one in await ml.list_containers(world.organization_id)] == ["python"]
        job = await ml.submit_custom_training_job(world.organization_id, dataset, item_id, "1.0", "shapes", "v1")
        done = await ended(client, job)
        assert done.status == TrainingStatus.TRAINING_STATUS_COMPLETED, done.error_status  # type: ignore[attr-defined]
        assert done.is_custom_job and done.registry_item_version == "1.0"  # type: ignore[attr-defined]
        assert done.registry_item_id == item_id and done.model_version == "v1"  # type: ignore[attr-defined]
        told = [line.message for line in world.context.jobs.logs(world.owner, job)]
        assert "6 pictures of ['box', 'disc'], 1 epochs" in told
        found = world.context.packages.find(world.organization_id, "shapes", "v1")
        assert found is not None and found.about["labels"] == ["box", "disc"]
        assert found.about["model_framework"] == "tflite"
        assert set(members(b"".join(world.context.packages.content(found)))) == {"net.tflite", "labels.txt"}


async def test_a_script_learns_from_a_dataset_of_sequences(world: World) -> None:
    start = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    times = start, start + timedelta(seconds=10)
    async with world.client() as client:
        data, ml = client.data_client, client.ml_training_client
        for at, content in ((1, b"one"), (2, b"two"), (11, b"later")):
            moment = start + timedelta(seconds=at)
            await data.binary_data_capture_upload(
                b"\xff\xd8\xff" + content, world.part_id, "camera", "cam", "GetImages", ".jpg",
                data_request_times=(moment, moment),
            )  # fmt: skip
        await data.tabular_data_capture_upload(
            [{"celsius": 20.5}, {"celsius": 21}], world.part_id, "sensor", "meter", "Readings",
            [(start + timedelta(seconds=at),) * 2 for at in (3, 4)],
        )  # fmt: skip
        resources = [
            SequenceResourceFilter(resource_name=name, method_name=method)
            for name, method in (("cam", "GetImages"), ("meter", "Readings"))
        ]
        first = await data.create_sequence(world.part_id, resources, *times, ["grasp"])
        dataset = await data.create_dataset("grasps", world.organization_id, DatasetType.DATASET_TYPE_SEQUENCE_DATA)
        await upload(world, client, "2.0", SEQUENCE_SCRIPT)
        submit = ml.submit_custom_training_job
        item_id = f"{world.organization_id}:mine"
        with pytest.raises(GRPCError, match="grasps is empty") as refused:
            await submit(world.organization_id, dataset, item_id, "2.0", "policy", "v1")
        assert refused.value.status is Status.INVALID_ARGUMENT
        await data.add_sequences_to_dataset(dataset, [first])
        job = await submit(world.organization_id, dataset, item_id, "2.0", "policy", "v1")
        await data.delete_sequence(first)  # the version has it
        done = await ended(client, job)
        assert done.status == TrainingStatus.TRAINING_STATUS_COMPLETED, done.error_status  # type: ignore[attr-defined]
        told = [line.message for line in world.context.jobs.logs(world.owner, job)]
        assert f"1 sequence {first} of ['grasp']" in told
        assert "pictures [3, 3], celsius [20.5, 21.0]" in told
        with pytest.raises(GRPCError, match="holds sequences, not pictures") as refused:
            await ml.submit_training_job(
                world.organization_id, dataset, "managed", "v1", ModelType.MODEL_TYPE_SINGLE_LABEL_CLASSIFICATION, ["a"]
            )
        assert refused.value.status is Status.INVALID_ARGUMENT


async def test_an_item_is_made_described_filled_and_deleted(world: World) -> None:
    item_id, kind = f"{world.organization_id}:mine", packages.PackageType.PACKAGE_TYPE_ML_TRAINING
    async with world.client() as client:
        app = client.app_client

        async def listed(search: str | None = None) -> list[str]:
            found = await app.list_registry_items(world.organization_id, [kind], [], [], [], search)
            return [one.item_id for one in found]

        await app.create_registry_item(world.organization_id, "mine", kind)
        empty = await app.get_registry_item(item_id)
        assert (empty.type, list(empty.ml_training_metadata.versions)) == (kind, [])
        await app.update_registry_item(item_id, kind, "Finds birds", Visibility.VISIBILITY_PRIVATE)
        assert (await listed(), await listed("BIRDS"), await listed("fish")) == ([item_id], [item_id], [])
        await upload(world, client, "1.0")
        filled = await app.get_registry_item(item_id)
        assert filled.description == "Finds birds"
        assert [one.version for one in filled.ml_training_metadata.versions] == ["1.0"]
        wrong = [
            (app.create_registry_item(world.organization_id, "mine", kind), Status.ALREADY_EXISTS),
            (app.create_registry_item(world.organization_id, "a b", kind), Status.INVALID_ARGUMENT),
            (app.create_registry_item("elsewhere", "other", kind), Status.PERMISSION_DENIED),
            (
                app.update_registry_item(f"{world.organization_id}:no", kind, "", Visibility.VISIBILITY_PRIVATE),
                Status.NOT_FOUND,
            ),
            (
                app.update_registry_item(
                    item_id, packages.PackageType.PACKAGE_TYPE_ML_MODEL, "", Visibility.VISIBILITY_PRIVATE
                ),
                Status.INVALID_ARGUMENT,
            ),
            (app.update_registry_item(item_id, kind, "", Visibility.VISIBILITY_PUBLIC), Status.UNIMPLEMENTED),
            (
                app.create_registry_item(world.organization_id, "a-module", packages.PackageType.PACKAGE_TYPE_MODULE),
                Status.INVALID_ARGUMENT,
            ),
        ]
        for call, status in wrong:
            with pytest.raises(GRPCError) as refused:
                await call
            assert refused.value.status is status, refused.value
        assert (await app.get_registry_item(item_id)).description == "Finds birds"
        await app.delete_registry_item(item_id)
        assert await listed() == []
        with pytest.raises(GRPCError) as gone:
            await app.get_registry_item(item_id)
        assert gone.value.status is Status.NOT_FOUND
        await app.create_registry_item(world.organization_id, "mine", kind)
        assert (await app.get_registry_item(item_id)).description == ""


async def test_arguments_reach_the_script_and_its_last_words_reach_the_caller(world: World) -> None:
    item_id = f"{world.organization_id}:mine"
    async with world.client() as client:
        dataset = await make_dataset(world, client, 2)
        await upload(world, client, "1.0")
        ml = client.ml_training_client
        asked = SubmitCustomTrainingJobRequest(
            dataset_id=dataset,
            registry_item_id=item_id,
            registry_item_version="latest",
            organization_id=world.organization_id,
            model_name="shapes",
            arguments={"epochs": "0"},
            container_version="tf:2.16",
        )
        answer = await ml._ml_training_client.SubmitCustomTrainingJob(asked, metadata=ml._metadata)
        failed = await ended(client, answer.id)
        assert failed.status == TrainingStatus.TRAINING_STATUS_FAILED  # type: ignore[attr-defined]
        assert dict(failed.arguments) == {"epochs": "0"}  # type: ignore[attr-defined]
        assert "exit code 1: there is nothing to do in 0 epochs" in failed.error_status.message  # type: ignore[attr-defined]
        assert "4 pictures of" in failed.error_status.message  # type: ignore[attr-defined]
        assert any("Containers are not used" in one for one in world.context.jobs.get(world.owner, answer.id).warnings)
        for changes, told in (
            ({"arguments": {"dataset_file": "x"}}, Status.INVALID_ARGUMENT),
            ({"item": "no"}, Status.NOT_FOUND),
        ):
            asked.arguments.clear()
            asked.arguments.update(changes.get("arguments", {}))  # type: ignore[arg-type]
            asked.registry_item_id = f"{world.organization_id}:{changes.get('item', 'mine')}"
            with pytest.raises(GRPCError) as error:
                await ml._ml_training_client.SubmitCustomTrainingJob(asked, metadata=ml._metadata)
            assert error.value.status is told
