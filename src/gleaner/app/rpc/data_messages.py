"""Items, readings and filters as Viam's messages."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value
from viam.gen.app.data.v1 import data_pb2 as pb

from gleaner.app.rpc.adapter import nanoseconds, timestamp
from gleaner.app.services.items_values import Item, ItemFilter
from gleaner.app.services.readings import Reading


def item_filter(wanted: pb.Filter) -> ItemFilter:
    """Fields that clients leave empty ask for nothing."""
    tags, tagged = tuple(wanted.tags_filter.tags), None
    if wanted.tags_filter.type == pb.TagsFilterType.TAGS_FILTER_TYPE_TAGGED:
        tags, tagged = (), True
    elif wanted.tags_filter.type == pb.TagsFilterType.TAGS_FILTER_TYPE_UNTAGGED:
        tags, tagged = (), False
    interval = wanted.interval
    return ItemFilter(
        organization_ids=tuple(wanted.organization_ids),
        location_ids=tuple(wanted.location_ids),
        machine_ids=_one(wanted.robot_id),
        machine_names=_one(wanted.robot_name),
        part_ids=_one(wanted.part_id),
        part_names=_one(wanted.part_name),
        component_names=_one(wanted.component_name),
        component_types=_one(wanted.component_type),
        methods=_one(wanted.method),
        mime_types=tuple(wanted.mime_type),
        tags=tags,
        tagged=tagged,
        labels=tuple(wanted.bbox_labels),
        dataset_ids=_one(wanted.dataset_id),
        start_ns=nanoseconds(interval.start) if interval.HasField("start") else None,
        end_ns=nanoseconds(interval.end) if interval.HasField("end") else None,
    )


def binary_metadata(item: Item, web_address: str) -> pb.BinaryMetadata:
    """`uri` answers to the same bearer token, or to the headers `key_id` and `key`."""
    return pb.BinaryMetadata(
        id=item.file_id,
        binary_data_id=item.binary_data_id,
        capture_metadata=_capture_metadata(item),
        time_requested=timestamp(item.captured_ns),
        time_received=timestamp(item.received_ns),
        file_name=item.file_name,
        file_ext=item.file_ext,
        uri=f"{web_address}/api/items/{item.row}/content",
        annotations=_annotations(item),
        dataset_ids=[dataset_id for dataset_id, _ in item.datasets],
        file_size_bytes=item.size_bytes,
    )


def reading_metadata(reading: Reading) -> pb.CaptureMetadata:
    origin = reading.origin
    return pb.CaptureMetadata(
        organization_id=origin.organization_id,
        location_id=origin.location_id,
        robot_name=origin.machine_name,
        robot_id=origin.machine_id,
        part_name=origin.part_name,
        part_id=origin.part_id,
        component_type=origin.component_type,
        component_name=origin.component_name,
        method_name=origin.method,
        tags=reading.tags,
    )


def exported(reading: Reading) -> pb.ExportTabularDataResponse:
    origin = reading.origin
    return pb.ExportTabularDataResponse(
        part_id=origin.part_id,
        resource_name=origin.component_name,
        resource_subtype=origin.component_type,
        method_name=origin.method,
        time_captured=timestamp(reading.requested_ns),
        organization_id=origin.organization_id,
        location_id=origin.location_id,
        robot_name=origin.machine_name,
        robot_id=origin.machine_id,
        part_name=origin.part_name,
        tags=reading.tags,
        payload=struct(reading.data),
    )


def struct(value: dict[str, object]) -> Struct:
    message: Struct = ParseDict(value, Struct())
    return message


def _capture_metadata(item: Item) -> pb.CaptureMetadata:
    origin = item.origin
    parameters = {}
    for name, value in item.method_parameters.items():
        packed = AnyMessage()
        packed.Pack(ParseDict(value, Value()))
        parameters[name] = packed
    return pb.CaptureMetadata(
        organization_id=origin.organization_id,
        location_id=origin.location_id,
        robot_name=origin.machine_name,
        robot_id=origin.machine_id,
        part_name=origin.part_name,
        part_id=origin.part_id,
        component_type=origin.component_type,
        component_name=origin.component_name,
        method_name=origin.method,
        method_parameters=parameters,
        tags=item.tags,
        mime_type=origin.mime_type,
    )


def _annotations(item: Item) -> pb.Annotations:
    return pb.Annotations(
        bboxes=[
            pb.BoundingBox(
                id=one.id,
                label=one.box.label,
                x_min_normalized=one.box.x_min,
                y_min_normalized=one.box.y_min,
                x_max_normalized=one.box.x_max,
                y_max_normalized=one.box.y_max,
                confidence=one.box.confidence,
            )
            for one in item.boxes
        ],
        classifications=[pb.Classification(label=one.label, confidence=one.confidence) for one in item.classifications],
    )


def _one(value: str) -> tuple[str, ...]:
    return (value,) if value else ()
