"""Whatever happens to the bytes of a capture file, no wrong record is ever read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from viam.proto.app.datasync import DataCaptureMetadata, DataType, SensorData

from gleaner.wire.capture_file import CaptureFileError, encode_header, encode_record, find_layout, read_capture
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary, varint

TABULAR = DataCaptureMetadata(
    component_type="rdk:component:sensor",
    component_name="imu",
    method_name="Readings",
    type=DataType.DATA_TYPE_TABULAR_SENSOR,
    tags=["night"],
    file_extension=".dat",
)
BINARY = DataCaptureMetadata(
    component_type="rdk:component:camera",
    component_name="cam",
    method_name="ReadImage",
    type=DataType.DATA_TYPE_BINARY_SENSOR,
    mime_type="image/jpeg",
)
RECORDS = 60


@cache
def reading(number: int) -> bytes:
    return ReadingEncoder().encode(
        10**18 + number, 10**18 + number + 5, {"readings": {"n": number, "v": [1.5, number]}}
    )


def viam_frame(message: bytes) -> bytes:
    """As viam-server writes it: no checksum."""
    return varint(len(message)) + message


FRAMES = [encode_record(reading(n)) for n in range(RECORDS)]
SEALED = encode_header(TABULAR) + b"".join(FRAMES)
HEADER_BYTES = len(encode_header(TABULAR))
PICTURE = b"\xff\xd8" + bytes(range(256)) * 40
SEALED_BINARY = encode_header(BINARY) + encode_record(b"".join(encode_binary(10**18, 10**18 + 1, PICTURE)))
PLAIN = viam_frame(TABULAR.SerializeToString()) + b"".join(viam_frame(reading(n)) for n in range(RECORDS))


def numbers(records: Sequence[SensorData]) -> list[int]:
    return [int(r.struct.fields["readings"].struct_value.fields["n"].number_value) for r in records]


def read_or_nothing(data: bytes) -> list[int]:
    """The numbers of the records; every record is checked to be one that was written."""
    try:
        file = read_capture(data)
    except CaptureFileError:
        return []
    assert file.metadata == TABULAR
    found = numbers(file.records)
    for number, record in zip(found, file.records, strict=True):
        assert record.struct == SensorData.FromString(reading(number)).struct
        assert record.metadata == SensorData.FromString(reading(number)).metadata
    return found


def test_an_undamaged_file_is_read_back_in_order() -> None:
    assert read_or_nothing(SEALED) == list(range(RECORDS))
    assert find_layout(SEALED).damaged_bytes == 0


@given(st.integers(0, len(SEALED)))
def test_cut_anywhere_keeps_every_whole_record(cut: int) -> None:
    whole = sum(HEADER_BYTES + sum(map(len, FRAMES[: n + 1])) <= cut for n in range(RECORDS))
    assert read_or_nothing(SEALED[:cut]) == list(range(whole))


@given(st.integers(0, len(SEALED) * 8 - 1))
@settings(max_examples=300)
def test_one_flipped_bit_costs_one_record_at_most(bit: int) -> None:
    damaged = bytearray(SEALED)
    damaged[bit // 8] ^= 1 << bit % 8
    found = read_or_nothing(bytes(damaged))
    if bit // 8 < HEADER_BYTES:
        assert found == []  # without its header nobody knows whose records these are
    else:
        assert len(found) == RECORDS - 1
        assert found == sorted(found)


@given(st.integers(HEADER_BYTES, len(SEALED)), st.integers(1, 2048))
@settings(max_examples=200)
def test_a_zeroed_stretch_costs_what_it_touches(start: int, size: int) -> None:
    end = min(len(SEALED), start + size)
    found = read_or_nothing(SEALED[:start] + bytes(end - start) + SEALED[end:])
    intact, position = [], HEADER_BYTES
    for number, frame in enumerate(FRAMES):
        if position + len(frame) <= start or position >= end:
            intact.append(number)
        position += len(frame)
    # A stretch of zeros may hit bytes that were zero: then a record it touched is still whole.
    assert set(intact) <= set(found)


@given(st.integers(0, len(SEALED_BINARY) * 8 - 1))
@settings(max_examples=200)
def test_a_picture_is_read_whole_or_not_at_all(bit: int) -> None:
    damaged = bytearray(SEALED_BINARY)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        file = read_capture(bytes(damaged))
    except CaptureFileError:
        return
    assert file.metadata == BINARY
    assert file.records == ()


@given(st.integers(0, len(SEALED_BINARY) - 1))
def test_a_cut_picture_is_not_a_picture(cut: int) -> None:
    with contextlib.suppress(CaptureFileError):
        assert read_capture(SEALED_BINARY[:cut]).records == ()


@given(st.integers(0, len(PLAIN)))
def test_files_of_viam_server_are_read_up_to_the_cut(cut: int) -> None:
    found = read_or_nothing(PLAIN[:cut])
    assert found == list(range(len(found)))
    assert len(found) >= (cut - 100) // len(viam_frame(reading(1))) - 2


@given(st.binary(max_size=300))
def test_noise_is_refused_or_empty(noise: bytes) -> None:
    with contextlib.suppress(CaptureFileError):
        read_capture(noise)


def test_a_capture_file_inside_a_picture_is_not_mistaken_for_records() -> None:
    """Resync must not search inside a payload: what it found there would belong to another component."""
    nested = b"".join(encode_binary(10**18, 10**18, SEALED_BINARY))
    outer = bytearray(encode_header(BINARY) + encode_record(nested))
    outer[-1] ^= 1
    assert read_capture(bytes(outer)).records == ()


def test_hostile_bytes_are_searched_in_linear_time() -> None:
    """A megabyte of checksum tags without one fitting checksum."""
    tag = encode_record(reading(0))[-7:-4]
    assert read_capture(encode_header(TABULAR) + tag * 200_000).records == ()


def test_viam_readers_skip_the_checksum() -> None:
    layout = find_layout(SEALED)
    span = layout.records[7]
    assert numbers([SensorData.FromString(SEALED[span.start : span.end])]) == [7]


@pytest.mark.parametrize("kind", [DataType.DATA_TYPE_UNSPECIFIED, DataType.DATA_TYPE_FILE])
def test_a_header_without_a_capture_type_is_refused(kind: DataType.ValueType) -> None:
    with pytest.raises(CaptureFileError, match="data type"):
        read_capture(encode_header(DataCaptureMetadata(component_name="x", type=kind)))
