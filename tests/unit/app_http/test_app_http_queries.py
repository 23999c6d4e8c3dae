"""Questions over REST: rows, errors in words, saved ones, data pipelines."""

from __future__ import annotations

import csv
import io
import json
import time
from typing import Any

import pytest
from running_app import RunningApp
from viam.proto.app.datasync import DataType, SensorData, UploadMetadata
from viam.utils import dict_to_struct

from gleaner.app.services.fleet_values import Place
from gleaner.app.store.uploads import from_sensor_contents

START_S = 1_700_000_000


@pytest.fixture
def oven(app: RunningApp) -> RunningApp:
    """With three readings a minute apart."""
    part_id, _ = app.new_part()
    place = app.context.fleet.place(part_id)
    assert isinstance(place, Place)
    metadata = UploadMetadata(
        part_id=part_id,
        component_type="rdk:component:sensor",
        component_name="oven",
        method_name="Readings",
        type=DataType.DATA_TYPE_TABULAR_SENSOR,
    )
    contents = []
    for number in range(3):
        one = SensorData(struct=dict_to_struct({"readings": {"celsius": 20.5 + number, "odd": float("nan")}}))
        one.metadata.time_requested.seconds = one.metadata.time_received.seconds = START_S + 60 * number
        contents.append(one)
    app.context.ingest.submit(from_sensor_contents(metadata, contents, place, time.time_ns())).result(30)
    return app


def asked(app: RunningApp, text: str, language: str = "sql", **more: Any) -> Any:
    body = {"organization_id": app.organization_id, "language": language, "text": text, **more}
    return app.client.post("/api/queries", json=body).json()


def test_rows_come_as_json(oven: RunningApp) -> None:
    found = asked(
        oven,
        "SELECT component_name, time_received, data.readings.celsius AS c, data.readings.odd AS odd FROM readings ORDER BY c",
    )
    assert found["columns"] == ["component_name", "time_received", "c", "odd"]
    assert [row["c"] for row in found["rows"]] == [20.5, 21.5, 22.5]
    assert found["rows"][0]["time_received"] == "2023-11-14T22:13:20Z"
    assert found["rows"][0]["odd"] is None
    assert (found["count"], found["seconds"] > 0) == (3, True)
    stages = [{"$group": {"_id": "$component_name", "n": {"$sum": 1}}}]
    assert asked(oven, json.dumps(stages), "mql")["rows"] == [{"_id": "oven", "n": 3}]


def test_an_answer_without_rows_has_its_columns(oven: RunningApp) -> None:
    found = asked(oven, "SELECT component_name, data.readings.celsius AS c FROM readings WHERE false")
    assert (found["columns"], found["rows"], found["count"]) == (["component_name", "c"], [], 0)
    assert asked(oven, '[{"$match": {"component_name": "none"}}]', "mql")["columns"] == []


def test_columns_of_the_same_name_all_come(app: RunningApp) -> None:
    found = asked(app, "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a, 5 AS b")
    assert found["columns"] == ["a", "a_2", "a_1", "a_3", "b"]
    assert found["rows"] == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4, "b": 5}]


def test_times_with_a_zone_are_times(app: RunningApp) -> None:
    [row] = asked(app, "SELECT now() AS now, TIMESTAMPTZ '2026-03-04 05:06:07+01:00' AS then")["rows"]
    assert row["then"] == "2026-03-04T04:06:07Z"
    assert row["now"].endswith("Z")


def test_integers_that_json_readers_would_round_are_text(app: RunningApp) -> None:
    [row] = asked(app, f"SELECT {2**53 - 1} AS exact, {2**53 + 1} AS big, {-(2**53) - 1} AS low")["rows"]
    assert row == {"exact": 2**53 - 1, "big": "9007199254740993", "low": "-9007199254740993"}


@pytest.mark.parametrize(
    ("language", "text", "says"),
    [
        ("sql", " ", "empty"),
        ("sql", "DELETE FROM readings", "SELECT"),
        ("mql", "{", "not JSON"),
        ("mql", '[{"$lookup": {}}]', "$lookup"),
    ],
)
def test_what_cannot_be_asked_says_why(app: RunningApp, language: str, text: str, says: str) -> None:
    error = asked(app, text, language)["error"]
    assert says in error["message"]
    assert error["hint"]


def test_questions_are_saved_changed_and_deleted(app: RunningApp) -> None:
    path = f"/api/organizations/{app.organization_id}/queries"
    new = {"name": "hot", "language": "sql", "text": "SELECT 1"}
    made = app.client.post(path, json=new).json()
    assert {name: made[name] for name in new} == new
    again = app.client.post(path, json=new)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    assert app.client.post(path, json=new | {"name": "x", "language": "mql"}).status_code == 400
    changed = app.client.patch(f"/api/queries/{made['id']}", json={"name": "cold"}).json()
    assert (changed["name"], changed["text"]) == ("cold", "SELECT 1")
    changed = app.client.patch(f"/api/queries/{made['id']}", json={"language": "mql", "text": '[{"$limit": 1}]'}).json()
    assert (changed["name"], changed["language"], json.loads(changed["text"])) == ("cold", "mql", [{"$limit": 1}])
    assert [one["id"] for one in app.client.get(path).json()] == [made["id"]]
    app.client.delete(f"/api/queries/{made['id']}")
    assert app.client.get(path).json() == []


def test_a_data_pipeline_is_made_run_asked_disabled_and_deleted(oven: RunningApp) -> None:
    path = f"/api/organizations/{oven.organization_id}/pipelines"
    text = json.dumps([{"$group": {"_id": "$component_name", "most": {"$max": "$data.readings.celsius"}}}])
    body = {"name": "by minute", "text": text, "schedule": "* * * * *", "backfill": True}
    refused = oven.client.post(path, json=body | {"schedule": "hourly"})
    assert "five fields" in refused.json()["error"]["hint"]
    made = oven.client.post(path, json=body).json()
    runs: list[Any] = []
    deadline = time.monotonic() + 60
    while len(runs) < 3:
        assert time.monotonic() < deadline, runs
        runs = oven.client.get(f"/api/pipelines/{made['id']}/runs").json()
        runs = [one for one in runs if one["status"] == "completed"]
        time.sleep(0.05)
    found = asked(oven, '[{"$sort": {"most": 1}}, {"$project": {"most": 1}}]', "mql", pipeline_id=made["id"])
    assert [row["most"] for row in found["rows"]] == [20.5, 21.5, 22.5]
    [listed] = oven.client.get(path).json()
    assert (listed["last_run"]["status"], listed["enabled"]) == ("completed", True)
    changed = oven.client.patch(f"/api/pipelines/{made['id']}", json={"enabled": False, "name": "each minute"}).json()
    assert (changed["enabled"], changed["name"]) == (False, "each minute")
    oven.client.delete(f"/api/pipelines/{made['id']}")
    assert oven.client.get(path).json() == []
    gone = asked(oven, "[]", "mql", pipeline_id=made["id"])
    assert gone["error"]["code"] == "not_found"


# --- files -------------------------------------------------------------------------------------------------------------


def file_of(app: RunningApp, text: str, format: str, language: str = "sql", **more: Any) -> Any:
    body = {"organization_id": app.organization_id, "language": language, "text": text, **more}
    return app.client.post("/api/queries/file", params={"format": format}, json=body)


def test_a_file_has_every_row(oven: RunningApp) -> None:
    many = "SELECT i, 'a,\"' || i AS t, NULL AS n, [1, i] AS l, true AS b FROM range(25000) AS r(i) ORDER BY i"
    csv_file = file_of(oven, many, "csv")
    assert csv_file.headers["content-type"].startswith("text/csv")
    assert csv_file.headers["content-disposition"] == 'attachment; filename="rows.csv"'
    rows = list(csv.reader(io.StringIO(csv_file.text)))
    assert (rows[0], len(rows)) == (["i", "t", "n", "l", "b"], 25_001)
    assert rows[-1] == ["24999", 'a,"24999', "", "[1, 24999]", "true"]
    lines = file_of(oven, many, "jsonl").text.splitlines()
    assert json.loads(lines[24_999]) == {"i": 24_999, "t": 'a,"24999', "n": None, "l": [1, 24_999], "b": True}
    stages = [{"$project": {"_id": 0, "c": "$data.readings.celsius"}}, {"$sort": {"c": 1}}]
    found = file_of(oven, json.dumps(stages), "jsonl", "mql").text
    assert found == '{"c":20.5}\n{"c":21.5}\n{"c":22.5}\n'
    assert file_of(oven, '[{"$match": {"component_name": "no"}}]', "jsonl", "mql").text == ""
    assert file_of(oven, "SELECT 1 AS a WHERE false", "csv").text == "a\r\n"


def test_what_is_too_large_for_the_page_comes_as_a_file(app: RunningApp) -> None:
    large = "SELECT repeat('x', 10000) AS x FROM range(8000)"
    error = asked(app, large)["error"]
    assert error["code"] == "too_large" and "download it as a file" in error["hint"]
    with app.client.stream("POST", "/api/queries/file", params={"format": "csv"}, json={
        "organization_id": app.organization_id, "language": "sql", "text": large,
    }) as answer:  # fmt: skip
        assert sum(map(len, answer.iter_bytes())) == 8000 * 10_002 + 3


@pytest.mark.parametrize(
    ("text", "format", "more", "says"),
    [
        ("SELEC 1", "csv", {}, "syntax error"),
        ("", "csv", {}, "is empty"),
        ("[]", "csv", {"language": "mql"}, "no table"),
        ("SELECT 1", "csv", {"pipeline_id": "p"}, "asked in MQL"),
        ("SELECT 1", "csv", {"organization_id": "other"}, "no organization"),
        ("SELECT 1", "xlsx", {}, "format"),
    ],
)
def test_what_cannot_be_a_file_says_why(
    app: RunningApp, text: str, format: str, more: dict[str, str], says: str
) -> None:
    body = {"organization_id": app.organization_id, "language": "sql", "text": text, **more}
    answer = app.client.post("/api/queries/file", params={"format": format}, json=body)
    assert answer.status_code in (400, 403)
    assert says in answer.json()["error"]["message"]


def test_a_file_that_nobody_reads_any_more_ends_its_query(app: RunningApp) -> None:
    endless = "SELECT repeat('x', 1000) AS x FROM range(100000000)"
    body = {"organization_id": app.organization_id, "language": "sql", "text": endless}
    for _ in range(3):  # each would keep its turn for minutes
        with app.client.stream("POST", "/api/queries/file", params={"format": "csv"}, json=body) as answer:
            assert answer.status_code == 200
            next(answer.iter_bytes())
    deadline = time.monotonic() + 15
    while "error" in (found := asked(app, "SELECT 1 AS one")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found["rows"] == [{"one": 1}]
