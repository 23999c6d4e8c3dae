"""Readings decoded by columns are what protobuf says they are, in every way that they are read."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from viam.proto.app.datasync import DataCaptureMetadata, DataType

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "store"))
from store_fixtures import NOW_NS, OWNER, PLACE, Store, open_store

from gleaner.app.lake.compaction import Compactor
from gleaner.app.services.queries import QueryService
from gleaner.app.store import shapes
from gleaner.app.store.structs import struct_to_dict
from gleaner.app.store.uploads import AS_SENT, decode_readings, from_capture_file
from gleaner.wire.capture_file import encode_header, encode_record, header_size
from gleaner.wire.sealed_run import sealed_run
from gleaner.wire.sensor_data import NANOS, encode_metadata, encode_struct, varint

texts = st.one_of(st.sampled_from(["", "idle", "busy", "°C", "a\0b", "'; DROP", "naïve"]), st.text(max_size=6))
numbers = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
nested = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
documents = st.dictionaries(texts, nested, max_size=4)
moments = st.integers(NANOS, 2**33 * NANOS) | st.integers(0, 2**30).map(lambda s: (s + 1) * NANOS)


@st.composite
def readings(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Some of one shape with other numbers, and strangers between them."""
    like = draw(documents)
    other = st.just(like) | documents | numbers.map(lambda number: {**like, "n": number})
    return draw(st.lists(other, min_size=1, max_size=12))


def record(requested: int, received: int, document: dict[str, Any]) -> bytes:
    body = encode_struct(document)
    return encode_record(encode_metadata(requested, received) + b"\x12" + varint(len(body)) + body)


def capture(some: list[dict[str, Any]], times: list[int], name: str = "s") -> bytes:
    kind = DataType.DATA_TYPE_TABULAR_SENSOR
    header = encode_header(DataCaptureMetadata(component_name=name, method_name="Readings", type=kind))
    return header + b"".join(record(times[i % len(times)], times[-1], one) for i, one in enumerate(some))


@given(readings(), st.lists(moments, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_every_reading_is_what_protobuf_says(some: list[dict[str, Any]], times: list[int]) -> None:
    data = capture(some, times)
    found = shapes.decoded(data, header_size(data))
    assert found is not None
    expected = [struct_to_dict(Struct.FromString(encode_struct(one))) for one in some]
    assert found.documents() == expected
    assert found.run.requested_ns.tolist() == [times[i % len(times)] for i in range(len(some))]
    assert found.run.received_ns.tolist() == [times[-1]] * len(some)
    upload = from_capture_file(data, PLACE, b"k" * 32, NOW_NS)
    assert upload is not None
    payload = b"".join(upload.payload.chunks())
    assert payload.startswith(AS_SENT)
    assert [one for _, _, one in decode_readings(payload)] == expected


@given(documents.filter(bool))
@settings(max_examples=60, deadline=None)
def test_structs_as_protobuf_writes_them_are_read_as_well(document: dict[str, Any]) -> None:
    body = ParseDict(document, Struct()).SerializeToString()
    shape = shapes.shape_of(body)
    if shape is not None:
        one = encode_metadata(NANOS, NANOS) + b"\x12" + varint(len(body)) + body
        found = shapes.decoded(encode_record(one) * 3)
        assert found is not None and found.documents() == [struct_to_dict(Struct.FromString(body))] * 3


@given(readings(), st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_is_never_taken(some: list[dict[str, Any]], data: st.DataObject) -> None:
    whole = b"".join(record(NANOS, NANOS + 7, one) for one in some)
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(1, 255))
    assert sealed_run(whole[:at] + bytes((whole[at] ^ other,)) + whole[at + 1 :]) is None
    assert sealed_run(whole[: len(whole) - data.draw(st.integers(1, min(len(whole), 6)))]) is None


@given(st.binary(max_size=60), st.lists(st.binary(max_size=40), max_size=4))
@settings(max_examples=200, deadline=None)
def test_sealed_nonsense_ends_in_no_error(metadata: bytes, structs: list[bytes]) -> None:
    records = [encode_record(metadata + b"\x12" + varint(len(one)) + one) for one in structs]
    records += [
        encode_record(encode_metadata(5 * NANOS, 6 * NANOS) + b"\x12" + varint(len(one)) + one) for one in structs
    ]
    for data in (b"".join(records), b"".join(records[len(structs) :])):
        found = shapes.decoded(data)
        if found is not None:
            one_by_one = [
                struct_to_dict(Struct.FromString(shapes.struct_bytes(found.run, n))) for n in range(len(found.run))
            ]
            assert repr(found.documents()) == repr(one_by_one)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_store(tmp_path_factory.mktemp("shapes"))
    opened.ingest.start()
    yield opened
    opened.ingest.stop()
    opened.database.close()


@pytest.fixture(scope="module")
def queries(store: Store) -> Iterator[QueryService]:
    service = QueryService(store.database, store.packs)
    yield service
    service.stop()


def without_zero_bytes(value: Any) -> Any:
    """BSON has no keys with zero bytes in them."""
    if isinstance(value, dict):
        return {key.replace("\0", "\u2400"): without_zero_bytes(one) for key, one in value.items()}
    return [without_zero_bytes(one) for one in value] if isinstance(value, list) else value


_numbers = itertools.count(1)


@given(batches=st.lists(readings(), min_size=1, max_size=3))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(batches=[[{"a": 1.0, "b": "°C", "c": [True, None, {"d": -0.0}]}] * 3])
@example(batches=[[{"n": math.pi, "s": "x" * n, "e": {}, "l": []} for n in range(40)]])
def test_queries_see_the_same_before_and_after_compaction(
    store: Store, queries: QueryService, batches: list[list[dict[str, Any]]]
) -> None:
    name = f"sensor {next(_numbers)}"
    expected = []
    for number, batch in enumerate(batches):
        some = [{**one, "row": float(number * 1000 + at)} for at, one in enumerate(batch)]
        data = capture(some, [NANOS * (at + 1) for at in range(len(some))], name)
        upload = from_capture_file(data, PLACE, f"{name}/{number}".encode(), NOW_NS)
        assert upload is not None
        store.add(upload)
        expected += some
    for _ in range(2):
        answer = queries.sql(OWNER, "org-1", f"SELECT data, tags FROM readings WHERE component_name = '{name}'")
        found = sorted((bson.decode(one)["data"] for one in answer.rows), key=lambda one: one["row"])
        assert found == [without_zero_bytes(one) for one in expected]
        Compactor(store.database, store.packs, store.clock).compact(everything=True)
