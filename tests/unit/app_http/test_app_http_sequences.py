"""A dataset of sequences over REST: what it has, its file, and what is not offered for it."""

from __future__ import annotations

import io
import zipfile

import pyarrow.parquet as pq
import pytest
from running_app import RunningApp

from gleaner.app.services.datasets_values import DatasetType
from gleaner.app.services.sequences_values import checked

START_NS = 1_772_600_767_000_000_000
SECOND_NS = 1_000_000_000


def dataset_of(app: RunningApp, count: int) -> str:
    part_id, _ = app.new_part()
    made = [
        app.context.sequences.create(
            app.owner,
            part_id,
            checked(
                [("cam", "GetImages"), ("arm", "JointPositions")],
                ["grasp", "left"][: 1 + number % 2],
                START_NS + 60 * number * SECOND_NS,
                START_NS + (60 * number + 12) * SECOND_NS,
            ),
        )
        for number in range(count)
    ]
    dataset = app.context.datasets.create(app.owner, app.organization_id, "grasps", DatasetType.SEQUENCE)
    if made:
        app.context.sequences.add_to_dataset(app.owner, dataset.id, made)
    return dataset.id


def test_its_sequences_are_listed_the_newest_first(app: RunningApp) -> None:
    url = f"/api/datasets/{dataset_of(app, 5)}"
    about = app.client.get(url).json()
    assert (about["type"], about["sequence_count"], about["item_count"]) == ("sequence", 5, 0)
    first = app.client.get(f"{url}/sequences", params={"size": 3}).json()
    rest = app.client.get(f"{url}/sequences", params={"size": 3, "token": first["next_token"]}).json()
    found = first["sequences"] + rest["sequences"]
    assert (len(first["sequences"]), len(found), rest["next_token"]) == (3, 5, "")
    assert [one["start"] for one in found] == sorted((one["start"] for one in found), reverse=True)
    assert found[-1] | {"id": "", "part_id": "", "machine": ""} == {
        "id": "",
        "part_id": "",
        "machine": "",
        "start": "2026-03-04T05:06:07.000000Z",
        "end": "2026-03-04T05:06:19.000000Z",
        "resources": [{"name": "cam", "method": "GetImages"}, {"name": "arm", "method": "JointPositions"}],
        "tags": ["grasp"],
    }
    assert found[0]["machine"]["name"] == "rover"


def test_it_is_one_file_of_three(app: RunningApp) -> None:
    answer = app.client.get(f"/api/datasets/{dataset_of(app, 2)}/sequences/file")
    assert answer.headers["content-type"] == "application/zip"
    assert "attachment" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as files:
        assert sorted(files.namelist()) == ["binary_data.parquet", "sequences.parquet", "tabular_data.parquet"]
        rows = pq.read_table(io.BytesIO(files.read("sequences.parquet"))).to_pylist()
    assert [row["tags"] for row in rows] == [["grasp", "left"], ["grasp"]]


@pytest.mark.parametrize("path", ["/check", "/export?format=coco"])
def test_what_is_for_pictures_says_so(app: RunningApp, path: str) -> None:
    answer = app.client.get(f"/api/datasets/{dataset_of(app, 1)}{path}")
    assert answer.status_code == 400
    assert "holds sequences, not pictures" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/sequences", "/sequences/file"])
def test_a_dataset_of_pictures_has_none(app: RunningApp, path: str) -> None:
    made = app.context.datasets.create(app.owner, app.organization_id, "birds")
    assert app.client.get(f"/api/datasets/{made.id}").json()["type"] == "binary"
    answer = app.client.get(f"/api/datasets/{made.id}{path}")
    assert answer.status_code == 400
    assert "not sequences" in answer.json()["error"]["message"]


def test_an_empty_one_has_no_file(app: RunningApp) -> None:
    url = f"/api/datasets/{dataset_of(app, 0)}"
    assert app.client.get(f"{url}/sequences").json() == {"sequences": [], "next_token": ""}
    assert "holds no sequences" in app.client.get(f"{url}/sequences/file").json()["error"]["message"]
