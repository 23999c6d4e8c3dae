"""A call of each of DataClient's methods about datasets, sequences, indexes and the database: `call_<method>`."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import timedelta

import httpx
import pyarrow.parquet as pq
import pytest
from grpclib import GRPCError, Status
from sdk_data_world import START, Called, a_picture
from viam.proto.app.data import IndexableCollection, IndexCreator, SequenceResourceFilter
from viam.proto.app.dataset import DatasetType, SequenceDatasetExportStatus
from viam.utils import create_filter

HOT = IndexableCollection.INDEXABLE_COLLECTION_HOT_STORE
CAMERA = [SequenceResourceFilter(resource_name="filmed", method_name="GetImages")]


async def call_create_dataset(c: Called) -> None:
    await c.data.create_dataset("made", c.organization_id)
    with pytest.raises(GRPCError) as twice:
        await c.data.create_dataset("made", c.organization_id)
    assert twice.value.status is Status.ALREADY_EXISTS


async def call_list_dataset_by_ids(c: Called) -> None:
    made = await c.data.create_dataset("listed", c.organization_id)
    assert [one.name for one in await c.data.list_dataset_by_ids([made])] == ["listed"]


async def call_list_datasets_by_organization_id(c: Called) -> None:
    made = await c.data.create_dataset("of sequences", c.organization_id, DatasetType.DATASET_TYPE_SEQUENCE_DATA)
    of_type = await c.data.list_datasets_by_organization_id(c.organization_id, DatasetType.DATASET_TYPE_SEQUENCE_DATA)
    assert made in [one.id for one in of_type]


async def call_rename_dataset(c: Called) -> None:
    made = await c.data.create_dataset("before", c.organization_id)
    await c.data.rename_dataset(made, "after")
    assert (await c.data.list_dataset_by_ids([made]))[0].name == "after"


async def call_delete_dataset(c: Called) -> None:
    made = await c.data.create_dataset("short", c.organization_id)
    await c.data.delete_dataset(made)
    assert made not in [one.id for one in await c.data.list_datasets_by_organization_id(c.organization_id)]


async def call_merge_datasets(c: Called) -> None:
    first, second = [await c.data.create_dataset(name, c.organization_id) for name in ("left", "right")]
    for dataset in (first, second):
        await c.data.add_binary_data_to_dataset_by_ids([await c.picture()], dataset)
    both = await c.data.merge_datasets("both", c.organization_id, [first, second])
    assert await c.count(dataset_id=both) == 2


async def call_add_binary_data_to_dataset_by_ids(c: Called) -> None:
    made = await c.data.create_dataset("filled", c.organization_id)
    await c.data.add_binary_data_to_dataset_by_ids([await c.picture()], made)
    assert await c.count(dataset_id=made) == 1


async def call_remove_binary_data_from_dataset_by_ids(c: Called) -> None:
    made, item = await c.data.create_dataset("emptied", c.organization_id), await c.picture()
    await c.data.add_binary_data_to_dataset_by_ids([item], made)
    await c.data.remove_binary_data_from_dataset_by_ids([item], made)
    assert await c.count(dataset_id=made) == 0


# Sequences


async def sequence(c: Called, start: int) -> str:
    begin = START + timedelta(hours=start)
    return await c.data.create_sequence(c.part_id, CAMERA, begin, begin + timedelta(minutes=5), ["run"])


async def sequence_dataset(c: Called, name: str, *sequences: str) -> str:
    made = await c.data.create_dataset(name, c.organization_id, DatasetType.DATASET_TYPE_SEQUENCE_DATA)
    await c.data.add_sequences_to_dataset(made, list(sequences))
    return made


async def call_create_sequence(c: Called) -> None:
    assert await sequence(c, 1) == await sequence(c, 1)


async def call_get_sequence(c: Called) -> None:
    made = await sequence(c, 2)
    assert list((await c.data.get_sequence(made)).sequence_tags) == ["run"]


async def call_update_sequence(c: Called) -> None:
    made = await sequence(c, 3)
    await c.data.update_sequence(made, sequence_tags=["other"])
    assert list((await c.data.get_sequence(made)).sequence_tags) == ["other"]


async def call_delete_sequence(c: Called) -> None:
    made = await sequence(c, 4)
    await c.data.delete_sequence(made)
    with pytest.raises(GRPCError) as gone:
        await c.data.get_sequence(made)
    assert gone.value.status is Status.NOT_FOUND


async def call_list_sequences(c: Called) -> None:
    made = await sequence(c, 5)
    page, _ = await c.data.list_sequences(c.organization_id, page_size=1000)
    assert made in [one.id for one in page]


async def call_get_sequence_binary_data(c: Called) -> None:
    item = await c.picture(component="filmed")
    begin = START
    made = await c.data.create_sequence(c.part_id, CAMERA, begin, begin + timedelta(days=1), ["film"])
    found, token = await c.data.get_sequence_binary_data(made)
    assert ([one.metadata.binary_data_id for one in found], token) == ([item], "")


async def call_add_sequences_to_dataset(c: Called) -> None:
    made = await sequence_dataset(c, "sequences", await sequence(c, 6))
    assert (await c.data.sequences_by_dataset_id(made, count_only=True))[2] == 1


async def call_sequences_by_dataset_id(c: Called) -> None:
    one = await sequence(c, 7)
    made = await sequence_dataset(c, "one sequence", one)
    found, _, number = await c.data.sequences_by_dataset_id(made)
    assert ([each.id for each in found], number) == ([one], 1)


async def call_remove_sequences_from_dataset(c: Called) -> None:
    one = await sequence(c, 8)
    made = await sequence_dataset(c, "no sequence", one)
    await c.data.remove_sequences_from_dataset(made, [one])
    assert (await c.data.sequences_by_dataset_id(made, count_only=True))[2] == 0


async def call_start_sequence_dataset_export(c: Called) -> None:
    """Three Parquet files with what the sequences cover, and nothing else."""
    begin = START + timedelta(days=400)
    picture = await c.data.binary_data_capture_upload(
        a_picture(),
        part_id=c.part_id,
        component_type="rdk:component:camera",
        component_name="filmed",
        method_name="GetImages",
        file_extension=".jpg",
        data_request_times=(begin + timedelta(seconds=5), begin + timedelta(seconds=5)),
    )
    moments = [begin + timedelta(seconds=second) for second in (1, 2, 1000)]
    await c.data.tabular_data_capture_upload(
        [{"readings": {"celsius": second}} for second in range(3)],
        part_id=c.part_id,
        component_type="rdk:component:sensor",
        component_name="felt",
        method_name="Readings",
        data_request_times=[(moment, moment) for moment in moments],
    )
    both = [*CAMERA, SequenceResourceFilter(resource_name="felt", method_name="Readings")]
    sequence_id = await c.data.create_sequence(c.part_id, both, begin, begin + timedelta(seconds=10), ["take"])
    dataset = await sequence_dataset(c, "taken out", sequence_id)
    job_id = await c.data.start_sequence_dataset_export(dataset)
    done = await c.data.get_sequence_dataset_export(job_id)
    async with httpx.AsyncClient() as web:
        answer = await web.get(done.download_url)
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        files = {name: pq.read_table(io.BytesIO(archive.read(name))).to_pylist() for name in archive.namelist()}
    assert list(files) == ["sequences.parquet", "binary_data.parquet", "tabular_data.parquet"]
    assert [(row["sequence_id"], row["tags"]) for row in files["sequences.parquet"]] == [(sequence_id, ["take"])]
    [row] = files["binary_data.parquet"]
    assert (row["binary_data_id"], row["sequence_id"], row["data"][:2]) == (picture, sequence_id, b"\xff\xd8")
    assert [json.loads(row["data"]) for row in files["tabular_data.parquet"]] == [
        {"readings": {"celsius": 0}},
        {"readings": {"celsius": 1}},
    ]
    pictures = await c.data.create_dataset("of pictures", c.organization_id)
    with pytest.raises(GRPCError, match="not sequences") as refused:
        await c.data.start_sequence_dataset_export(pictures)
    assert refused.value.status is Status.INVALID_ARGUMENT


async def call_get_sequence_dataset_export(c: Called) -> None:
    dataset = await sequence_dataset(c, "exported", await sequence(c, 9))
    done = await c.data.get_sequence_dataset_export(await c.data.start_sequence_dataset_export(dataset))
    assert done.status == SequenceDatasetExportStatus.SEQUENCE_DATASET_EXPORT_STATUS_COMPLETED
    with pytest.raises(GRPCError) as refused:
        await c.data.get_sequence_dataset_export("made up")
    assert refused.value.status is Status.PERMISSION_DENIED


# Indexes


async def call_create_index(c: Called) -> None:
    spec = {"component_name": 1, "time_requested": -1}
    await c.data.create_index(c.organization_id, HOT, spec)
    await c.data.create_index(c.organization_id, HOT, spec)
    names = [one.index_name for one in await c.data.list_indexes(c.organization_id, HOT)]
    assert names.count("component_name_1_time_requested_-1") == 1
    with pytest.raises(GRPCError) as refused:
        await c.data.create_index(c.organization_id, HOT, {"x": "sideways"})
    assert refused.value.status is Status.INVALID_ARGUMENT


async def call_list_indexes(c: Called) -> None:
    await c.data.create_index(c.organization_id, HOT, {"key": {"tags": 1}, "name": "mine"})
    [own] = [one for one in await c.data.list_indexes(c.organization_id, HOT) if one.index_name == "mine"]
    assert own.index_spec[0] == b'{"tags": 1}'
    assert own.created_by == IndexCreator.INDEX_CREATOR_CUSTOMER
    [built_in] = [
        one
        for one in await c.data.list_indexes(c.organization_id, HOT)
        if one.created_by == IndexCreator.INDEX_CREATOR_VIAM
    ]
    assert built_in.index_name == "place_and_time"


async def call_delete_index(c: Called) -> None:
    await c.data.create_index(c.organization_id, HOT, {"location_id": 1})
    await c.data.delete_index(c.organization_id, HOT, "location_id_1")
    assert "location_id_1" not in [one.index_name for one in await c.data.list_indexes(c.organization_id, HOT)]
    for name, status in (("location_id_1", Status.NOT_FOUND), ("place_and_time", Status.INVALID_ARGUMENT)):
        with pytest.raises(GRPCError) as refused:
            await c.data.delete_index(c.organization_id, HOT, name)
        assert refused.value.status is status


# What there is no such thing of: an error that says what to use


async def call_get_database_connection(c: Called) -> None:
    with pytest.raises(GRPCError, match="TabularDataBySQL") as refused:
        await c.data.get_database_connection(c.organization_id)
    assert refused.value.status is Status.UNIMPLEMENTED


async def call_configure_database_user(c: Called) -> None:
    with pytest.raises(GRPCError, match="Parquet") as refused:
        await c.data.configure_database_user(c.organization_id, "secret")
    assert refused.value.status is Status.UNIMPLEMENTED


async def call_delete_tabular_data_by_filter(c: Called) -> None:
    """The SDK itself refuses it."""
    with pytest.raises(NotImplementedError):
        await c.data.delete_tabular_data_by_filter(create_filter())
