"""A call of each of DataClient's methods about pictures, files and readings: `call_<method>`, run by the contract test."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from sdk_data_world import START, Called, a_picture
from viam.utils import create_filter

SENSOR = "rdk:component:sensor"


async def call_binary_data_capture_upload(c: Called) -> None:
    item = await c.picture(["uploaded"])
    assert (await c.metadata(item)).binary_data_id == item


async def call_tabular_data_capture_upload(c: Called) -> None:
    await c.readings("uploaded", 1.5)
    assert len(await c.data.export_tabular_data(c.part_id, "uploaded", SENSOR, "Readings")) == 1


async def call_streaming_data_capture_upload(c: Called) -> None:
    item = await c.data.streaming_data_capture_upload(b"in pieces", part_id=c.part_id, file_ext="txt")
    [found] = await c.data.binary_data_by_ids([item])
    assert found.binary == b"in pieces"


async def call_file_upload(c: Called) -> None:
    item = await c.data.file_upload(c.part_id, b"whole", file_name="notes", file_extension=".txt")
    assert (await c.metadata(item)).file_name == "notes.txt"


async def call_file_upload_from_path(c: Called) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "report.pdf"
        path.write_bytes(b"%PDF-1.7")
        item = await c.data.file_upload_from_path(str(path), part_id=c.part_id)
    assert (await c.metadata(item)).file_name == "report.pdf"


async def call_create_filter(c: Called) -> None:
    await c.picture(component="filtered")
    assert await c.count(component_name="filtered", part_id=c.part_id, organization_ids=[c.organization_id]) == 1


async def call_binary_data_by_filter(c: Called) -> None:
    items = [await c.picture(component="paged") for _ in range(3)]
    seen, last = [], None
    while True:
        page, _, last = await c.data.binary_data_by_filter(create_filter(component_name="paged"), limit=2, last=last)
        if not page:
            break
        seen += [one.metadata.binary_data_id for one in page]
    assert seen == items[::-1]


async def call_binary_data_by_ids(c: Called) -> None:
    item = await c.picture()
    [found] = await c.data.binary_data_by_ids([item])
    assert found.binary[:2] == b"\xff\xd8"


async def call_create_binary_data_signed_url(c: Called) -> None:
    item = await c.data.streaming_data_capture_upload(a_picture(), part_id=c.part_id, file_ext="jpg")
    [found] = await c.data.binary_data_by_ids([item])
    url, expires = await c.data.create_binary_data_signed_url(item, expiration_minutes=30)
    async with httpx.AsyncClient() as web:
        answer = await web.get(url)
        assert (answer.status_code, answer.content) == (200, found.binary)
        changed = url[:-3] + ("aaa" if url[-3:] != "aaa" else "bbb")
        assert (await web.get(changed)).status_code == 403
        await c.data.delete_binary_data_by_ids([item])
        assert (await web.get(url)).status_code == 404
    assert expires.year >= 2026


async def call_tabular_data_by_filter(c: Called) -> None:
    await c.readings("old way", *range(5))
    wanted, seen, last = create_filter(component_name="old way"), [], None
    while True:
        page, _, last = await c.data.tabular_data_by_filter(wanted, limit=2, last=last)
        if not page:
            break
        seen += [one.data["readings"]["celsius"] for one in page]  # type: ignore[index,call-overload]
    assert seen == [4, 3, 2, 1, 0]
    ascending, _, _ = await c.data.tabular_data_by_filter(wanted, limit=2, sort_order=2)
    assert [one.data["readings"]["celsius"] for one in ascending] == [0, 1]  # type: ignore[index,call-overload]
    _, number, _ = await c.data.tabular_data_by_filter(wanted, count_only=True)
    assert number == 5


async def call_tabular_data_by_sql(c: Called) -> None:
    await c.readings("sql", 1, 2)
    query = "SELECT sum(data.readings.celsius) AS total FROM readings WHERE component_name = 'sql'"
    assert await c.data.tabular_data_by_sql(c.organization_id, query) == [{"total": 3.0}]


async def call_tabular_data_by_mql(c: Called) -> None:
    await c.readings("mql", 1, 2)
    stages = [{"$match": {"component_name": "mql"}}, {"$count": "n"}]
    assert await c.data.tabular_data_by_mql(c.organization_id, stages) == [{"n": 2}]
    recent = await c.data.tabular_data_by_mql(c.organization_id, stages, tabular_data_source_type=2)
    assert recent == [{"n": 2}]


async def call_get_latest_tabular_data(c: Called) -> None:
    await c.readings("latest", 1, 2)
    found = await c.data.get_latest_tabular_data(c.part_id, "latest", SENSOR, "Readings")
    assert found is not None
    assert found[2] == {"readings": {"celsius": 2}}
    assert await c.data.get_latest_tabular_data(c.part_id, "nobody", SENSOR, "Readings") is None


async def call_export_tabular_data(c: Called) -> None:
    await c.readings("exported", 1, 2, 3)
    source = (c.part_id, "exported", SENSOR, "Readings")
    found = await c.data.export_tabular_data(*source, START, START + timedelta(seconds=2))
    assert [one.payload["readings"]["celsius"] for one in found] == [1, 2]  # type: ignore[index,call-overload]


async def call_delete_tabular_data(c: Called) -> None:
    """Of the whole organization, so all the others make their own first."""
    await c.readings("deleted", 1)
    assert await c.data.delete_tabular_data(c.organization_id, 1) >= 1
    assert await c.data.export_tabular_data(c.part_id, "deleted", SENSOR, "Readings") == []


async def call_delete_binary_data_by_filter(c: Called) -> None:
    await c.picture(component="swept")
    assert await c.data.delete_binary_data_by_filter(create_filter(component_name="swept")) == 1
    assert await c.count(component_name="swept") == 0


async def call_delete_binary_data_by_ids(c: Called) -> None:
    assert await c.data.delete_binary_data_by_ids([await c.picture(component="one gone")]) == 1
    assert await c.count(component_name="one gone") == 0


async def call_add_tags_to_binary_data_by_ids(c: Called) -> None:
    item = await c.picture()
    await c.data.add_tags_to_binary_data_by_ids(["by-id"], [item])
    assert list((await c.metadata(item)).capture_metadata.tags) == ["by-id"]


async def call_add_tags_to_binary_data_by_filter(c: Called) -> None:
    item = await c.picture(component="tagged")
    await c.data.add_tags_to_binary_data_by_filter(["by-filter"], create_filter(component_name="tagged"))
    assert list((await c.metadata(item)).capture_metadata.tags) == ["by-filter"]


async def call_remove_tags_from_binary_data_by_ids(c: Called) -> None:
    item = await c.picture(["a", "b"])
    assert await c.data.remove_tags_from_binary_data_by_ids(["a"], [item]) == 1
    assert list((await c.metadata(item)).capture_metadata.tags) == ["b"]


async def call_remove_tags_from_binary_data_by_filter(c: Called) -> None:
    await c.picture(["c"], component="untagged")
    wanted = create_filter(component_name="untagged")
    assert await c.data.remove_tags_from_binary_data_by_filter(["c"], wanted) == 1
    assert await c.count(component_name="untagged", tags=["c"]) == 0


async def call_tags_by_filter(c: Called) -> None:
    await c.picture(["ripe", "red"], component="fruit")
    assert sorted(await c.data.tags_by_filter(create_filter(component_name="fruit"))) == ["red", "ripe"]


async def call_add_bounding_box_to_image_by_id(c: Called) -> None:
    item = await c.picture()
    box = await c.data.add_bounding_box_to_image_by_id(item, "star", 0.1, 0.2, 0.5, 0.6, confidence_score=0.5)
    [found] = (await c.metadata(item)).annotations.bboxes
    assert (found.id, found.label, found.confidence) == (box, "star", 0.5)


async def call_update_bounding_box(c: Called) -> None:
    item = await c.picture()
    box = await c.data.add_bounding_box_to_image_by_id(item, "star", 0.1, 0.2, 0.5, 0.6)
    await c.data.update_bounding_box(item, box, "moon", 0.1, 0.2, 0.75, 0.6)
    [found] = (await c.metadata(item)).annotations.bboxes
    assert (found.id, found.label, found.x_max_normalized) == (box, "moon", 0.75)


async def call_remove_bounding_box_from_image_by_id(c: Called) -> None:
    item = await c.picture()
    box = await c.data.add_bounding_box_to_image_by_id(item, "star", 0.1, 0.2, 0.5, 0.6)
    await c.data.remove_bounding_box_from_image_by_id(box, item)
    assert list((await c.metadata(item)).annotations.bboxes) == []


async def call_bounding_box_labels_by_filter(c: Called) -> None:
    item = await c.picture(component="labelled")
    await c.data.add_bounding_box_to_image_by_id(item, "comet", 0.1, 0.2, 0.5, 0.6)
    assert await c.data.bounding_box_labels_by_filter(create_filter(component_name="labelled")) == ["comet"]
