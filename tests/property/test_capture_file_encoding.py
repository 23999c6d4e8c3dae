"""The hand-written encoder writes what protobuf would."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from viam.proto.app.data import Annotations, Classification
from viam.proto.app.datasync import SensorData

from gleaner.wire.sensor_data import MAX_TEMPLATES, ReadingEncoder, encode_binary, encode_struct

NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
READINGS = st.dictionaries(st.text(max_size=8), VALUES, max_size=5)


def with_protobuf(fields: dict[str, Any]) -> Struct:
    struct = Struct()
    struct.update(fields)
    return struct


@given(READINGS)
def test_any_reading_equals_protobufs_encoding(fields: dict[str, Any]) -> None:
    assert Struct.FromString(encode_struct(fields)) == with_protobuf(fields)


@given(READINGS, READINGS)
def test_a_template_never_changes_what_another_shape_means(first: dict[str, Any], second: dict[str, Any]) -> None:
    encoder = ReadingEncoder()
    for fields in (first, second, first, second):
        assert Struct.FromString(encoder.struct_bytes(fields)) == with_protobuf(fields)


@given(st.lists(NUMBERS, min_size=3, max_size=3), st.lists(NUMBERS, min_size=3, max_size=3))
def test_a_template_carries_new_numbers(first: list[float], second: list[float]) -> None:
    encoder = ReadingEncoder()
    for values in (first, second):
        fields = {"readings": {"a": values[0], "b": {"c": values[1:], "on": True, "mode": "run", "none": None}}}
        assert Struct.FromString(encoder.struct_bytes(fields)) == with_protobuf(fields)


# Each differs from the template's example in one way that a careless guard would miss.
LOOKALIKES: list[dict[str, Any]] = [
    {"a": 1, "b": True, "s": "1", "l": [1, 2]},
    {"a": True, "b": True, "s": "1", "l": [1, 2]},
    {"a": 1, "b": 1, "s": "1", "l": [1, 2]},
    {"a": 1, "b": True, "s": 1, "l": [1, 2]},
    {"a": 1, "b": True, "s": "1", "l": [1, 2, 3]},
    {"a": 1, "b": True, "s": "1", "l": {"0": 1, "1": 2}},
    {"b": True, "a": 1, "s": "1", "l": [1, 2]},
    {"a": 1, "b": True, "s": "1", "l": [1, None]},
    {"a": "1", "b": True, "s": "1", "l": "ab"},
    {"a": 1, "b": True, "s": "1", "l": [1, 2], "new": 0},
]


@pytest.mark.parametrize("fields", LOOKALIKES)
def test_lookalikes_do_not_fall_for_the_template(fields: dict[str, Any]) -> None:
    encoder = ReadingEncoder()
    encoder.struct_bytes(LOOKALIKES[0])
    assert Struct.FromString(encoder.struct_bytes(fields)) == with_protobuf(fields)


def test_zeros_nan_and_infinity_are_kept() -> None:
    struct = Struct.FromString(encode_struct({"zero": 0, "minus": -0.0, "nan": math.nan, "inf": math.inf}))
    assert struct.fields["zero"].WhichOneof("kind") == "number_value"
    assert math.copysign(1, struct.fields["minus"].number_value) == -1
    assert math.isnan(struct.fields["nan"].number_value)
    assert struct.fields["inf"].number_value == math.inf


def test_numpy_values_become_plain_ones() -> None:
    fields = {"f": np.float32(0.5), "i": np.int64(3), "b": np.bool_(True), "a": np.array([1.0, 2.0])}
    assert Struct.FromString(encode_struct(fields)) == with_protobuf({"f": 0.5, "i": 3, "b": True, "a": [1.0, 2.0]})


@pytest.mark.parametrize("bad", [{"x": object()}, {1: 2}, {"x": {1: 2}}])
def test_what_cannot_be_stored_is_named(bad: dict[Any, Any]) -> None:
    with pytest.raises(TypeError, match="a reading"):
        ReadingEncoder().struct_bytes(bad)


@pytest.mark.parametrize(("wrap", "deepest"), [(lambda inner: {"a": inner}, 32), (lambda inner: [inner], 48)])
def test_what_is_nested_too_deeply_for_a_reader_is_refused_and_nothing_else_is(
    wrap: Callable[[Any], Any], deepest: int
) -> None:
    value: Any = 1.5
    for depth in range(1, deepest + 20):
        value = wrap(value)
        if depth <= deepest:
            SensorData.FromString(ReadingEncoder().encode(1, 2, {"v": value}))
        else:
            with pytest.raises(ValueError, match="nested too deeply"):
                ReadingEncoder().encode(1, 2, {"v": value})


def test_a_reading_that_contains_itself_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["me"] = circle
    with pytest.raises(ValueError, match="contains itself"):
        ReadingEncoder().encode(1, 2, circle)


def test_a_shape_that_always_changes_gives_up_on_templates() -> None:
    encoder = ReadingEncoder()
    for number in range(MAX_TEMPLATES * 3):
        fields = {f"key{number}": number}
        assert Struct.FromString(encoder.struct_bytes(fields)) == with_protobuf(fields)


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.binary(min_size=1, max_size=100))
def test_binary_records_carry_times_payload_and_annotations(requested: int, received: int, payload: bytes) -> None:
    annotations = Annotations(classifications=[Classification(label="red star", confidence=0.5)])
    head, body = encode_binary(requested, received, payload, annotations.SerializeToString())
    record = SensorData.FromString(head + body)
    assert record.binary == payload
    assert record.metadata.annotations == annotations
    assert record.metadata.time_requested.ToNanoseconds() == requested
    assert record.metadata.time_received.ToNanoseconds() == received


def test_an_empty_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        encode_binary(1, 2, b"")
