"""Export and import of datasets against a real app."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import cv2
import numpy as np
import pytest
from running_app import RunningApp

from gleaner.app.services import datasets_export
from gleaner.formats.registry import Format


def picture(seed: int, ending: str = ".jpg") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)
    return bytes(cv2.imencode(ending, pixels)[1])


def zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def new_dataset(app: RunningApp, name: str) -> str:
    answer = app.client.post("/api/datasets", json={"name": name, "organization_id": app.organization_id})
    return str(answer.json()["id"])


def imported(app: RunningApp, dataset_id: str, content: bytes, query: str = "") -> dict[str, Any]:
    answer = app.client.post(f"/api/datasets/{dataset_id}/import{query}", content=content)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def items(app: RunningApp, dataset_id: str) -> list[tuple[object, ...]]:
    rows = np.frombuffer(app.client.get(f"/api/items/index?dataset_id={dataset_id}").content, "<u4").tolist()
    found = app.client.post("/api/items/lookup", json={"rows": rows}).json()["items"]
    return sorted(
        (
            one["file_name"],
            hashlib.sha256(app.client.get(f"/api/items/{one['row']}/content").content).hexdigest()[:8],
            tuple(one["tags"]),
            sorted((b["label"], *(round(b[e], 6) for e in ("x_min", "y_min", "x_max", "y_max"))) for b in one["boxes"]),
            one["captured_at"],
        )
        for one in found
    )


YOLO = {
    "data.yaml": b"train: images/train\nval: images/val\nnames: [cat, 'd o/g']\n",
    "images/train/a.jpg": picture(1),
    "labels/train/a.txt": b"0 0.5 0.5 0.25 0.25\n1 0.5 0.5 0.5 0.5\n5 0 0 1 1\n",
    "images/val/a.jpg": picture(2),
    "images/val/ü.png": picture(3, ".png"),
    "images/val/fake.jpg": b"no picture at all",
}


@pytest.fixture
def dataset(app: RunningApp) -> str:
    made = new_dataset(app, "pets")
    answer = imported(app, made, zipped(YOLO))
    assert (answer["format"], answer["added"], answer["known"], answer["problem_count"]) == ("yolo", 3, 0, 2)
    assert {(one["file"], one["line"]) for one in answer["problems"]} == {
        ("labels/train/a.txt", 3),
        ("images/val/fake.jpg", 0),
    }
    return made


def test_an_import_sent_again_changes_nothing(app: RunningApp, dataset: str) -> None:
    before = items(app, dataset)
    assert [one[0] for one in before] == ["a.jpg", "a.jpg", "ü.png"]
    assert {one[2] for one in before} == {("split:train",), ("split:val",)}
    again = imported(app, dataset, zipped(YOLO), "?format=yolo")
    assert (again["added"], again["known"]) == (0, 3)
    assert items(app, dataset) == before


@pytest.mark.parametrize("format_", list(Format))
def test_a_dataset_exported_and_imported_is_the_same(app: RunningApp, dataset: str, format_: Format) -> None:
    rows = np.frombuffer(app.client.get(f"/api/items/index?dataset_id={dataset}").content, "<u4").tolist()
    app.client.post("/api/items/tags", json={"rows": rows[:2], "add": ["a/b", "ü x"]})
    answer = app.client.get(f"/api/datasets/{dataset}/export?format={format_}")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    assert (answer.headers["gleaner-version"], answer.headers["gleaner-pictures"]) == ("1", "3")
    before = items(app, dataset)
    same = new_dataset(app, "the same items")
    assert imported(app, same, answer.content)["known"] == 3
    assert items(app, same) == before == items(app, dataset)
    # Gone and brought back: all of it comes from the archive, the times of capture too.
    app.client.post("/api/items/delete", json={"rows": rows})
    other = new_dataset(app, "other items")
    answered = imported(app, other, answer.content)
    assert (answered["added"], answered["problem_count"]) == (3, 0)
    assert items(app, other) == before


def test_a_cut_download_goes_on_and_a_changed_one_is_refused(app: RunningApp, dataset: str) -> None:
    url = f"/api/datasets/{dataset}/export?format=viam&archive=tar"
    whole = app.client.get(url)
    tag, version = whole.headers["etag"], whole.headers["gleaner-version"]
    rest = app.client.get(f"{url}&version={version}&start=1000", headers={"if-match": tag})
    assert rest.content == whole.content[1000:]
    row = int(np.frombuffer(app.client.get(f"/api/items/index?dataset_id={dataset}").content, "<u4")[0])
    app.client.post("/api/items/delete", json={"rows": [row]})
    refused = app.client.get(f"{url}&version={version}&start=1000", headers={"if-match": tag})
    assert refused.status_code == 409 and "Start it again" in refused.json()["error"]["hint"]
    assert app.client.get(f"{url}&version={version}").headers["gleaner-pictures"] == "2"


def test_a_zip_of_too_many_pictures_is_refused_and_a_tar_is_not(
    app: RunningApp, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets_export, "MOST_ZIPPED", 2)
    url = f"/api/datasets/{dataset}/export?format=yolo&archive="
    assert "tar" in app.client.get(f"{url}zip").json()["error"]["hint"]
    assert app.client.get(f"{url}tar").status_code == 200


def test_boxes_of_a_picture_that_exif_turns_are_measured_on_what_is_shown(app: RunningApp) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    plain = picture(9)
    turned = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    made = new_dataset(app, "turned")
    files = {"images/train/a.jpg": turned, "labels/train/a.txt": b"0 0.5 0.5 0.5 0.5", "data.yaml": b"names: [x]"}
    assert imported(app, made, zipped(files))["problem_count"] == 0
    answer = app.client.get(f"/api/datasets/{made}/export?format=coco")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        coco = json.loads(archive.read("annotations/instances_train.json"))
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (60, 80)
    assert coco["annotations"][0]["bbox"] == [15.0, 20.0, 30.0, 40.0]


def test_a_version_stays_what_it_was(app: RunningApp, dataset: str) -> None:
    first = app.client.get(f"/api/datasets/{dataset}/export?format=viam")
    app.client.post("/api/items/tags", json={"filter": {"dataset_id": [dataset]}, "add": ["later"]})
    url = f"/api/datasets/{dataset}/export?format=viam&version="
    assert app.client.get(f"{url}1").content == first.content
    assert app.client.get(f"{url}0").headers["gleaner-version"] == "2"
    with zipfile.ZipFile(io.BytesIO(app.client.get(f"{url}2").content)) as archive:
        lines = [json.loads(line) for line in archive.read("dataset.jsonl").splitlines()]
    assert all({"annotation_label": "later"} in one["classification_annotations"] for one in lines)
    assert app.client.get(f"{url}7").status_code == 404


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "no body"), (b"PK no zip", "no readable zip"), (zipped({"readme.md": b"x"}), "no pictures")],
)
def test_what_is_no_data_set_is_refused(app: RunningApp, content: bytes, said: str) -> None:
    answer = app.client.post(f"/api/datasets/{new_dataset(app, 'd')}/import", content=content)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"] and answer.json()["error"]["hint"]


def test_an_empty_or_foreign_dataset_has_no_export(app: RunningApp) -> None:
    assert app.client.get(f"/api/datasets/{new_dataset(app, 'e')}/export?format=coco").status_code == 400
    assert app.client.get("/api/datasets/none/export?format=coco").status_code == 404
    assert app.client.post("/api/datasets/none/import", content=b"x").status_code == 404
