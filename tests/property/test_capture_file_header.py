"""What sync reads of a header without protobuf is what protobuf reads of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from viam.proto.app.datasync import DataCaptureMetadata, SensorData

from gleaner.wire.capture_file import encode_header, encode_record, find_layout, has_tags, read_capture

TEXT = st.text(max_size=12)


@st.composite
def headers(draw: st.DrawFn) -> DataCaptureMetadata:
    header = DataCaptureMetadata(
        component_type=draw(TEXT),
        component_name=draw(st.text(max_size=300)),
        method_name=draw(TEXT),
        type=draw(st.sampled_from([1, 2])),
        file_extension=draw(TEXT),
        tags=draw(st.lists(TEXT, max_size=3)),
        mime_type=draw(TEXT),
    )
    for name in draw(st.lists(TEXT, max_size=2)):
        header.method_parameters[name].type_url = draw(TEXT)
    return header


@given(headers())
def test_type_and_tags_are_protobufs(header: DataCaptureMetadata) -> None:
    record = encode_record(SensorData(binary=b"a picture, or numbers"))
    data = encode_header(header) + record
    assert has_tags(data) == bool(header.tags)
    assert read_capture(data).metadata == header
    # A broken record ends a picture's file; behind it, a file of readings goes on. So the type was understood.
    broken = bytearray(record)
    broken[len(record) // 2] ^= 1
    assert len(find_layout(encode_header(header) + bytes(broken) + record).records) == header.type - 1


@given(headers())
def test_a_header_of_viam_server_is_left_to_protobuf(header: DataCaptureMetadata) -> None:
    body = header.SerializeToString()
    data = bytes([len(body) & 127 | 128, len(body) >> 7]) + body
    assert has_tags(data) == bool(header.tags)
