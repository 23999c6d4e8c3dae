from __future__ import annotations

import pytest
from google.protobuf.struct_pb2 import Value
from store_fixtures import NOW_NS, PLACE, picture
from viam.proto.app.datasync import DataType, SensorData, UploadMetadata

from gleaner.app.errors import InvalidInput
from gleaner.app.store.payload import MemoryPayload
from gleaner.app.store.records import RecordInfo, Upload
from gleaner.app.store.uploads import decode_readings, from_file, from_sensor_contents

BINARY, TABULAR = DataType.DATA_TYPE_BINARY_SENSOR, DataType.DATA_TYPE_TABULAR_SENSOR


def sensor(*, binary: bytes = b"", second: int = 5, fields: dict[str, object] | None = None) -> SensorData:
    one = SensorData()
    one.metadata.time_requested.seconds = second
    one.metadata.time_received.seconds = second
    if fields is None:
        one.binary = binary
    else:
        one.struct.update(fields)
    return one


def upload(contents: list[SensorData], **metadata: object) -> Upload:
    kind = metadata.pop("type", BINARY)
    made = UploadMetadata(type=kind, component_name="cam", method_name="ReadImage", **metadata)  # type: ignore[arg-type]
    return from_sensor_contents(made, contents, PLACE, NOW_NS)


def key(made: Upload) -> bytes:
    return made.info.idempotency_key


def test_key_of_a_picture_follows_what_makes_it_that_picture() -> None:
    base = key(upload([sensor(binary=b"a")]))
    assert key(upload([sensor(binary=b"a")], tags=["later"], mime_type="image/png")) == base
    assert key(upload([sensor(binary=b"b")])) != base
    assert key(upload([sensor(binary=b"a", second=6)])) != base
    assert key(picture(1, component="a")) != key(picture(1, component="b"))


def test_two_identical_frames_of_two_image_sources_are_two_pictures() -> None:
    left, right = sensor(binary=b"black"), sensor(binary=b"black")
    left.metadata.annotations.classifications.add(label="left")
    right.metadata.annotations.classifications.add(label="right")
    assert key(upload([left])) != key(upload([right]))


def test_key_of_readings_does_not_depend_on_map_order() -> None:
    one = upload([sensor(fields={"readings": {"a": 1.0, "b": 2.0}})], type=TABULAR)
    other = upload([sensor(fields={"readings": {"b": 2.0, "a": 1.0}})], type=TABULAR)
    assert key(one) == key(other)
    assert key(upload([sensor(fields={"readings": {"a": 1.0}})], type=TABULAR)) != key(one)


def test_readings_keep_every_kind_of_value_and_their_times() -> None:
    fields: dict[str, object] = {"n": 1.5, "t": "x", "b": True, "none": None, "l": [1.0, "a"], "d": {"e": {}}}
    made = upload([sensor(fields=fields, second=7), sensor(fields={"n": 2.0}, second=9)], type=TABULAR)
    rows = decode_readings(b"".join(made.payload.chunks()))
    assert rows == [(7 * 10**9, 7 * 10**9, fields), (9 * 10**9, 9 * 10**9, {"n": 2.0})]
    summary = made.info.readings
    assert summary is not None
    assert (summary.count, summary.first_ns, summary.last_ns, summary.latest) == (2, 7 * 10**9, 9 * 10**9, '{"n":2.0}')


def test_annotations_parameters_and_times_are_taken_over() -> None:
    one = sensor(binary=b"\x89PNG\r\n\x1a\n")
    one.metadata.time_received.seconds = 6
    one.metadata.annotations.bboxes.add(
        label="star", x_min_normalized=-0.5, y_min_normalized=0.1, x_max_normalized=0.5, y_max_normalized=0.9
    )
    one.metadata.annotations.classifications.add(label="sunny", confidence=0.5)
    metadata = UploadMetadata(type=BINARY, tags=[" a ", "a", ""])
    metadata.method_parameters["mime_type"].Pack(Value(string_value="image/png"))
    info = from_sensor_contents(metadata, [one], PLACE, NOW_NS).info
    assert (info.captured_ns, info.received_ns, info.synced_ns) == (5 * 10**9, 6 * 10**9, NOW_NS)
    assert (info.boxes[0].x_min, info.boxes[0].confidence) == (0.0, None)
    assert info.classifications[0].confidence == 0.5
    assert info.method_parameters == {"mime_type": "image/png"}
    assert (info.tags, info.mime_type, info.kind, info.file_ext) == (("a",), "image/png", "image", ".png")


def test_header_of_a_pack_gives_the_same_record_back() -> None:
    for made in (picture(1, tags=("a",)), upload([sensor(fields={"x": 1.0})], type=TABULAR)):
        assert RecordInfo.from_header(made.info.header()) == made.info


@pytest.mark.parametrize(
    ("contents", "metadata", "message"),
    [
        ([], {}, "no sensor contents"),
        ([sensor(binary=b"a")], {"type": DataType.DATA_TYPE_UNSPECIFIED}, "type is not set"),
        ([sensor(binary=b"a"), sensor(binary=b"b")], {}, "exactly 1"),
        ([sensor(fields={"a": 1.0})], {}, "declared binary"),
        ([sensor(binary=b"a")], {"type": TABULAR}, "something else"),
        ([sensor(binary=b"")], {}, "empty"),
        ([sensor(fields={"a": "x" * (4 << 20)})], {"type": TABULAR}, "4 MB"),
    ],
)
def test_uploads_that_can_never_work_say_why(
    contents: list[SensorData], metadata: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        upload(contents, **metadata)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("name", "extension", "stored"),
    [
        ("/home/pi/photo.jpg", ".jpg", "photo.jpg"),
        ("photo", ".jpg", "photo.jpg"),  # the SDK sends stem and extension apart
        ("C:\\data\\a.csv", "", "a.csv"),
        ("", ".bin", ""),
    ],
)
def test_file_names_keep_their_last_part(name: str, extension: str, stored: str) -> None:
    metadata = UploadMetadata(type=DataType.DATA_TYPE_FILE, file_name=name, file_extension=extension)
    assert from_file(metadata, MemoryPayload(b"x"), PLACE, NOW_NS).info.file_name == stored
