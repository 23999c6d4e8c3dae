"""The unmodified viam-sdk uploads by all three ways, finds, tags, boxes and groups what it uploaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from grpclib import GRPCError, Status
from sdk_app_world import World, app_world
from viam.utils import create_filter

START = datetime(2026, 3, 4, 5, 6, 7, 123456, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with app_world(tmp_path) as world:
        yield world


def picture(seed: int, size: int = 64) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", pixels)[1].tobytes())


async def upload(world: World, client: object, seed: int, tags: list[str] | None = None) -> str:
    moment = START + timedelta(seconds=seed)
    return await client.data_client.binary_data_capture_upload(  # type: ignore[attr-defined]
        picture(seed),
        part_id=world.part_id,
        component_type="rdk:component:camera",
        component_name="cam",
        method_name="GetImages",
        file_extension=".jpg",
        tags=tags,
        data_request_times=(moment, moment),
    )


async def test_all_three_ways_of_uploading_give_back_the_same_bytes(world: World, tmp_path: Path) -> None:
    big, file = os.urandom(5_000_000), tmp_path / "photo.png"
    file.write_bytes(big)
    async with world.client() as client:
        data = client.data_client
        small = await upload(world, client, 1, ["first"])
        streamed = await data.streaming_data_capture_upload(big, part_id=world.part_id, file_ext="bin")
        whole = await data.file_upload_from_path(str(file), part_id=world.part_id)
        got = await data.binary_data_by_ids([small, streamed, whole])
    assert [one.binary for one in got] == [picture(1), big, big]
    first = got[0].metadata
    assert first.capture_metadata.part_id == world.part_id
    assert first.capture_metadata.robot_name == "rover"
    assert first.capture_metadata.mime_type == "image/jpeg"
    assert list(first.capture_metadata.tags) == ["first"]
    assert first.time_requested.ToDatetime(UTC) == START + timedelta(seconds=1)
    assert got[2].metadata.file_name == "photo.png"


async def test_sending_the_same_picture_twice_stores_it_once(world: World) -> None:
    async with world.client() as client:
        assert await upload(world, client, 1) == await upload(world, client, 1)
        _, count, _ = await client.data_client.binary_data_by_filter(create_filter(component_name="cam"))
    assert count == 1


async def test_filters_pages_and_counts(world: World) -> None:
    async with world.client() as client:
        data = client.data_client
        ids = [await upload(world, client, seed, ["even"] if seed % 2 == 0 else None) for seed in range(5)]
        seen, last = [], None
        while True:
            page, _, last = await data.binary_data_by_filter(limit=2, last=last, include_binary_data=False)
            if not page:
                break
            seen += [one.metadata.binary_data_id for one in page]
        assert seen == ids[::-1], "newest first, every item once"
        tagged, _, _ = await data.binary_data_by_filter(create_filter(tags=["even"]), include_binary_data=False)
        assert {one.metadata.binary_data_id for one in tagged} == {ids[0], ids[2], ids[4]}
        late = create_filter(start_time=START + timedelta(seconds=3))
        _, count, _ = await data.binary_data_by_filter(late, count_only=True)
        assert count == 2


async def test_tags_boxes_and_datasets(world: World) -> None:
    async with world.client() as client:
        data = client.data_client
        first, second = [await upload(world, client, seed) for seed in (1, 2)]
        await data.add_tags_to_binary_data_by_ids(["star", "red"], [first, second])
        assert await data.remove_tags_from_binary_data_by_ids(["red"], [second]) == 1
        assert sorted(await data.tags_by_filter()) == ["red", "star"]
        box = await data.add_bounding_box_to_image_by_id(first, "star", 0.1, 0.2, 0.5, 0.6)
        assert await data.bounding_box_labels_by_filter() == ["star"]
        [got] = await data.binary_data_by_ids([first], include_binary_data=False)
        assert [(one.id, one.label) for one in got.metadata.annotations.bboxes] == [(box, "star")]
        await data.remove_bounding_box_from_image_by_id(box, first)

        dataset = await data.create_dataset("shapes", world.organization_id)
        await data.add_binary_data_to_dataset_by_ids([first, second], dataset)
        await data.remove_binary_data_from_dataset_by_ids([second], dataset)
        found, count, _ = await data.binary_data_by_filter(create_filter(dataset_id=dataset), include_binary_data=False)
        assert (count, found[0].metadata.binary_data_id) == (1, first)
        await data.rename_dataset(dataset, "forms")
        [listed] = await data.list_datasets_by_organization_id(world.organization_id)
        assert listed.name == "forms"


async def test_deleted_pictures_are_gone(world: World) -> None:
    async with world.client() as client:
        gone = await upload(world, client, 1)
        assert await client.data_client.delete_binary_data_by_ids([gone]) == 1
        with pytest.raises(GRPCError) as told:
            await client.data_client.binary_data_by_ids([gone])
    assert told.value.status is Status.NOT_FOUND


async def test_readings_come_back_in_order(world: World) -> None:
    times = [(START + timedelta(seconds=n),) * 2 for n in range(3)]
    async with world.client() as client:
        await client.data_client.tabular_data_capture_upload(
            [{"readings": {"celsius": 20.5 + n}} for n in range(3)],
            part_id=world.part_id,
            component_type="rdk:component:sensor",
            component_name="thermometer",
            method_name="Readings",
            data_request_times=times,
        )
        source = (world.part_id, "thermometer", "rdk:component:sensor", "Readings")
        latest = await client.data_client.get_latest_tabular_data(*source)
        exported = await client.data_client.export_tabular_data(*source)
    assert latest is not None
    assert latest[2] == {"readings": {"celsius": 22.5}}
    assert [one.payload["readings"]["celsius"] for one in exported] == [20.5, 21.5, 22.5]


async def test_the_uri_of_an_item_answers_to_the_same_key(world: World) -> None:
    async with world.client() as client:
        item = await upload(world, client, 1)
        [got] = await client.data_client.binary_data_by_ids([item], include_binary_data=False)
    headers = {"key_id": world.key_id, "key": world.key}
    async with httpx.AsyncClient() as web:
        assert (await web.get(got.metadata.uri)).status_code == 401
        answer = await web.get(got.metadata.uri, headers=headers)
    assert answer.content == picture(1)


async def test_too_much_at_once_names_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gleaner.app.rpc.data.MOST_INCLUDED_BYTES", 10)
    async with world.client() as client:
        await upload(world, client, 1)
        with pytest.raises(GRPCError, match="INCLUDE_BINARY_TOO_LARGE") as told:
            await client.data_client.binary_data_by_filter()
    assert told.value.status is Status.RESOURCE_EXHAUSTED
