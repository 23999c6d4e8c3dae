"""The short way to a picture's bytes says what the long way through protobuf says, or nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from viam.proto.app.datasync import DataCaptureMetadata, DataType, SensorData, SensorMetadata

from gleaner.wire.capture_file import encode_header, encode_record, read_capture, sealed_binary, sealed_header
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary, varint

BINARY = encode_header(DataCaptureMetadata(component_name="cam", type=DataType.DATA_TYPE_BINARY_SENSOR, tags=["a"]))
TABULAR = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))
RECORD = SensorData(binary=b"x")
RECORD.metadata.time_requested.seconds = RECORD.metadata.time_received.seconds = 1


def read_binary(data: bytes) -> tuple[bytes, bytes, memoryview] | None:
    header = sealed_header(data)
    found = sealed_binary(data, header[1]) if header is not None else None
    return (header[0], *found) if header is not None and found is not None else None


def unsealed(message: DataCaptureMetadata | SensorData) -> bytes:
    body = message.SerializeToString()
    return varint(len(body)) + body


@given(st.binary(min_size=1, max_size=3000), st.integers(0, 2**62), st.integers(0, 2**62))
def test_both_ways_read_the_same(payload: bytes, requested_ns: int, received_ns: int) -> None:
    data = BINARY + encode_record(b"".join(encode_binary(requested_ns, received_ns, payload)))
    found = read_binary(data)
    assert found is not None
    header, sensor, content = found
    capture = read_capture(data)
    assert DataCaptureMetadata.FromString(header) == capture.metadata
    assert SensorMetadata.FromString(sensor) == capture.records[0].metadata
    assert bytes(content) == capture.records[0].binary == payload


@pytest.mark.parametrize(
    "data",
    [
        TABULAR + encode_record(ReadingEncoder().encode(1, 2, {"readings": {"n": 1}})),
        BINARY,  # no record
        BINARY + encode_record(SensorData(binary=b"x")),  # no times
        unsealed(DataCaptureMetadata(type=DataType.DATA_TYPE_BINARY_SENSOR)) + unsealed(RECORD),  # by viam-server
    ],
)
def test_everything_else_takes_the_long_way(data: bytes) -> None:
    assert read_binary(data) is None


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_damage_is_never_read(position: int, bit: int) -> None:
    data = bytearray(BINARY + encode_record(b"".join(encode_binary(1, 2, random.Random(1).randbytes(300)))))
    position %= len(data)
    data[position] ^= 1 << bit
    assert read_binary(bytes(data)) is None
