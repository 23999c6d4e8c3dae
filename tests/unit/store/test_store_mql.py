"""Stages of pipelines that make documents out of several, or give them another root: as Mongo answers them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import bson
import pytest
from store_fixtures import NOW_NS, OWNER, PLACE, Store
from viam.proto.app.datasync import DataType, SensorData, UploadMetadata

from gleaner.app.errors import InvalidInput
from gleaner.app.services.queries import QueryService
from gleaner.app.store.uploads import from_sensor_contents

FIRST = dt.datetime(2023, 11, 14, 22, 13, 20)
FIRST_S = 1_700_000_000
TEMPERATURES: list[dict[str, Any]] = [
    {"temp": 10.0, "room": "a", "list": ["x", "y"]},
    {"temp": None, "room": "a", "list": []},
    {"temp": 30.0, "room": "a", "list": ["z"]},
    {"room": "b"},
    {"temp": 5.0, "room": "b", "list": "alone"},
    {"temp": "broken", "room": "b"},
]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    from store_fixtures import open_store

    store = open_store(tmp_path_factory.mktemp("mql"))
    store.ingest.start()
    queries = QueryService(store.database, store.packs)
    try:
        yield Asked(store, queries)
    finally:
        queries.stop()
        store.ingest.stop()
        store.database.close()


class Asked:
    def __init__(self, store: Store, queries: QueryService) -> None:
        self._queries = queries
        contents = []
        for second, value in enumerate(TEMPERATURES):
            one = SensorData()
            one.metadata.time_requested.seconds = FIRST_S + second
            one.metadata.time_received.seconds = FIRST_S + second
            one.struct.update({"readings": value})
            contents.append(one)
        metadata = UploadMetadata(
            component_name="thermometer", method_name="Readings", type=DataType.DATA_TYPE_TABULAR_SENSOR
        )
        store.add(from_sensor_contents(metadata, contents, PLACE, NOW_NS))

    def __call__(self, *stages: dict[str, Any]) -> list[dict[str, Any]]:
        answers = self._queries.mql(OWNER, "org-1", [bson.encode(one) for one in stages])
        return [bson.decode(one) for one in answers]


WARM = {"$match": {"data.readings.temp": {"$gt": 0}}}
BY_TIME = {"$sort": {"time_requested": 1}}


def test_buckets_hold_what_lies_between_their_boundaries(asked: Asked) -> None:
    stage = {"$bucket": {"groupBy": "$data.readings.temp", "boundaries": [0, 10, 40], "default": "none"}}
    assert asked(stage) == [{"_id": 0.0, "count": 1}, {"_id": 10.0, "count": 2}, {"_id": "none", "count": 3}]
    output = {"n": {"$sum": 1}, "mean": {"$avg": "$data.readings.temp"}}
    stage = {"$bucket": {"groupBy": "$data.readings.temp", "boundaries": [0, 100], "output": output}}
    assert asked(WARM, stage) == [{"_id": 0.0, "n": 3, "mean": 15.0}]


def test_a_value_outside_of_all_buckets_is_an_error(asked: Asked) -> None:
    with pytest.raises(InvalidInput, match="name a default"):
        asked(WARM, {"$bucket": {"groupBy": "$data.readings.temp", "boundaries": [0, 20]}})


def test_buckets_are_made_by_themselves(asked: Asked) -> None:
    found = asked(WARM, {"$bucketAuto": {"groupBy": "$data.readings.temp", "buckets": 3}})
    ends = [(5.0, 10.0), (10.0, 30.0), (30.0, 30.0)]
    assert found == [{"_id": {"min": low, "max": high}, "count": 1} for low, high in ends]
    (one,) = asked(WARM, {"$bucketAuto": {"groupBy": "$time_requested", "buckets": 1, "output": {"n": {"$sum": 2}}}})
    assert one == {"_id": {"min": FIRST, "max": FIRST + dt.timedelta(seconds=4)}, "n": 6}


def test_a_reading_becomes_the_whole_document(asked: Asked) -> None:
    first = asked(BY_TIME, {"$limit": 1}, {"$replaceRoot": {"newRoot": "$data.readings"}})
    assert first == [TEMPERATURES[0]]
    assert asked({"$replaceWith": "$data.readings"}, {"$match": {"temp": {"$gte": 10}}}, {"$count": "n"}) == [{"n": 2}]
    whole = {"$mergeObjects": ["$data.readings", {"at": "$time_requested", "room": "kitchen"}]}
    stages = ({"$replaceWith": whole}, {"$unset": "list"}, {"$addFields": {"more": {"$add": ["$temp", 1]}}})
    assert asked(BY_TIME, {"$limit": 1}, *stages) == [{"temp": 10.0, "room": "kitchen", "at": FIRST, "more": 11.0}]
    again = asked(
        {"$replaceWith": "$data.readings"}, {"$group": {"_id": "$room", "n": {"$sum": 1}}}, {"$sort": {"_id": 1}}
    )
    assert again == [{"_id": "a", "n": 3}, {"_id": "b", "n": 3}]


def test_a_list_is_unwound_with_its_places(asked: Asked) -> None:
    unwind = {"path": "$data.readings.list", "includeArrayIndex": "at"}
    chosen = {"$project": {"_id": 0, "one": "$data.readings.list", "at": 1}}
    found = asked(BY_TIME, {"$unwind": unwind}, chosen)
    assert found == [{"one": "x", "at": 0}, {"one": "y", "at": 1}, {"one": "z", "at": 0}, {"one": "alone", "at": 0}]
    kept = asked({"$unwind": {**unwind, "preserveNullAndEmptyArrays": True}}, {"$count": "n"})
    assert kept == [{"n": 7}]


def test_gaps_are_filled(asked: Asked) -> None:
    def filled(output: dict[str, Any], **more: Any) -> list[Any]:
        stage = {"$fill": {"sortBy": {"time_requested": 1}, "output": {"data.readings.temp": output}, **more}}
        found = asked(stage, BY_TIME, {"$replaceWith": "$data.readings"})
        return [one.get("temp") for one in found]

    assert filled({"method": "locf"}) == [10.0, 10.0, 30.0, 30.0, 5.0, "broken"]
    assert filled({"method": "locf"}, partitionByFields=["data.readings.room"]) == [
        10.0, 10.0, 30.0, None, 5.0, "broken",
    ]  # fmt: skip
    assert filled({"method": "linear"}) == [10.0, 20.0, 30.0, 17.5, 5.0, None]
    assert filled({"value": 0}) == [10.0, 0, 30.0, 0, 5.0, "broken"]


def test_windows_look_at_neighbours(asked: Asked) -> None:
    stage = {
        "$setWindowFields": {
            "partitionBy": "$data.readings.room",
            "sortBy": {"time_requested": 1},
            "output": {
                "sum": {"$sum": "$data.readings.temp", "window": {"documents": [-1, "current"]}},
                "top": {"$max": "$data.readings.temp"},
                "last2s": {"$count": {}, "window": {"range": [-1, 0], "unit": "second"}},
                "number": {"$documentNumber": {}},
                "before": {"$shift": {"output": "$data.readings.temp", "by": -1, "default": "first"}},
            },
        }
    }
    wanted = {"_id": 0, "sum": 1, "top": 1, "last2s": 1, "number": 1, "before": 1}
    found = asked(stage, BY_TIME, {"$project": wanted})
    assert [one["sum"] for one in found] == [10.0, 10.0, 30.0, 0, 5.0, 5.0]
    assert [one["top"] for one in found] == [30.0] * 3 + [5.0] * 3
    assert [one["last2s"] for one in found] == [1, 2, 2] * 2
    assert [one["number"] for one in found] == [1, 2, 3] * 2
    assert [one["before"] for one in found] == ["first", 10.0, None, "first", None, 5.0]


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ({"$lookup": {"from": "items"}}, "SQL"),
        ({"$out": "x"}, "data pipeline"),
        ({"$bucket": {"groupBy": "$a", "boundaries": [2, 1]}}, "Sort"),
        ({"$bucketAuto": {"groupBy": "$a"}}, "whole number"),
        ({"$fill": {"output": {"a": {"method": "magic"}}}}, "locf"),
        ({"$fill": {"output": {"a": {"method": "linear"}}}}, "sortBy"),
        ({"$setWindowFields": {"output": {"a": {"$median": 1}}}}, "There are"),
        ({"$replaceWith": "$part_id"}, "data.readings"),
        ({"$replaceRoot": {"root": 1}}, "newRoot"),
    ],
)
def test_what_cannot_be_done_is_said(asked: Asked, stage: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        asked(stage)
    assert says in f"{caught.value.message} {caught.value.hint}"
