"""`viam.app.data.v1.DataService`: finding, reading, tagging, boxing and deleting what was captured."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from grpclib.server import Stream
from viam.gen.app.data.v1 import data_pb2 as pb
from viam.gen.app.data.v1.data_grpc import UnimplementedDataServiceBase

from gleaner.app.caller import Caller
from gleaner.app.errors import InvalidInput, TooLarge
from gleaner.app.rpc.adapter import nanoseconds, streaming, timestamp, unary
from gleaner.app.rpc.data_messages import binary_metadata, exported, item_filter, reading_metadata, struct
from gleaner.app.rpc.data_queries import QueriesRpc
from gleaner.app.rpc.data_sequences import SequencesRpc
from gleaner.app.services import signed_links
from gleaner.app.services.items_values import Item, ItemFilter, Selection
from gleaner.app.store.records import Box

#: More bytes than this in one answer would sit in memory twice; clients then read `metadata.uri` one by one.
MOST_INCLUDED_BYTES = 64 << 20
_MOST_READINGS = 10_000
_EXPORT_BATCH = 500
_BOX_FIELDS = frozenset(
    ("label", "x_min_normalized", "y_min_normalized", "x_max_normalized", "y_max_normalized", "confidence")
)


class DataRpc(SequencesRpc, QueriesRpc, UnimplementedDataServiceBase):
    # Reading

    @unary
    def BinaryDataByFilter(
        self, caller: Caller, request: pb.BinaryDataByFilterRequest
    ) -> pb.BinaryDataByFilterResponse:
        asked = request.data_request
        wanted = item_filter(asked.filter)
        if request.count_only:
            count, size = self.context.items.count(caller, wanted)
            return pb.BinaryDataByFilterResponse(count=count, total_size_bytes=size)
        ascending = asked.sort_order == pb.Order.ORDER_ASCENDING
        page = self.context.items.page(caller, wanted, asked.limit, asked.last, ascending=ascending)
        return pb.BinaryDataByFilterResponse(
            data=self._with_content(caller, page.items, request.include_binary),
            count=len(page.items),
            last=page.last if page.items else "",
            total_size_bytes=sum(item.size_bytes for item in page.items),
        )

    @unary
    def BinaryDataByIDs(self, caller: Caller, request: pb.BinaryDataByIDsRequest) -> pb.BinaryDataByIDsResponse:
        items = self.context.items.by_ids(caller, _ids(request))
        data = self._with_content(caller, items, request.include_binary)
        return pb.BinaryDataByIDsResponse(data=data, count=len(data))

    @unary
    def CreateBinaryDataSignedURL(
        self, caller: Caller, request: pb.CreateBinaryDataSignedURLRequest
    ) -> pb.CreateBinaryDataSignedURLResponse:
        minutes = request.expiration_minutes if request.HasField("expiration_minutes") else signed_links.DEFAULT_MINUTES
        made = self.context.signed_links.to_item(caller, self._row_of(caller, request.binary_data_id), minutes)
        return pb.CreateBinaryDataSignedURLResponse(
            signed_url=f"{self.context.addresses.web}{made.path}", expires_at=timestamp(made.expires_ns)
        )

    @unary
    def TagsByFilter(self, caller: Caller, request: pb.TagsByFilterRequest) -> pb.TagsByFilterResponse:
        return pb.TagsByFilterResponse(tags=self.context.items.tags(caller, item_filter(request.filter)))

    @unary
    def BoundingBoxLabelsByFilter(
        self, caller: Caller, request: pb.BoundingBoxLabelsByFilterRequest
    ) -> pb.BoundingBoxLabelsByFilterResponse:
        labels = self.context.items.labels(caller, item_filter(request.filter))
        return pb.BoundingBoxLabelsByFilterResponse(labels=labels)

    @unary
    def TabularDataByFilter(
        self, caller: Caller, request: pb.TabularDataByFilterRequest
    ) -> pb.TabularDataByFilterResponse:
        """Pages of at most 10,000, newest first unless ascending is asked for."""
        asked = request.data_request
        wanted = item_filter(asked.filter)
        if request.count_only:
            return pb.TabularDataByFilterResponse(count=self.context.readings.count(caller, wanted))
        newest_first = asked.sort_order != pb.Order.ORDER_ASCENDING
        limit = min(asked.limit or 50, _MOST_READINGS)
        found, last = self.context.readings.page(caller, wanted, limit, asked.last, newest_first=newest_first)
        answer = pb.TabularDataByFilterResponse(last=last)
        seen: dict[int, int] = {}
        for reading in found:
            index = seen.setdefault(reading.origin.id, len(answer.metadata))
            if index == len(answer.metadata):
                answer.metadata.append(reading_metadata(reading))
            answer.data.add(
                data=struct(reading.data),
                metadata_index=index,
                time_requested=timestamp(reading.requested_ns),
                time_received=timestamp(reading.received_ns),
            )
        answer.count = len(answer.data)
        return answer

    @unary
    def GetLatestTabularData(
        self, caller: Caller, request: pb.GetLatestTabularDataRequest
    ) -> pb.GetLatestTabularDataResponse:
        found = self.context.readings.rows(caller, _series(request), 1)
        if not found:
            return pb.GetLatestTabularDataResponse()
        newest = found[0]
        return pb.GetLatestTabularDataResponse(
            time_captured=timestamp(newest.requested_ns),
            time_synced=timestamp(newest.synced_ns),
            payload=struct(newest.data),
        )

    @streaming
    async def ExportTabularData(self, caller: Caller, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        if request is None:
            raise InvalidInput("nothing was asked for", "Name a part, a resource and a method.")
        interval = request.interval
        start = nanoseconds(interval.start) if interval.HasField("start") else None
        end = nanoseconds(interval.end) if interval.HasField("end") else None
        rows = self.context.readings.export(caller, _series(request, start, end))
        while batch := await self.context.call(lambda: list(itertools.islice(rows, _EXPORT_BATCH))):
            for reading in batch:
                await stream.send_message(exported(reading))

    # Annotating

    @unary
    def AddTagsToBinaryDataByIDs(
        self, caller: Caller, request: pb.AddTagsToBinaryDataByIDsRequest
    ) -> pb.AddTagsToBinaryDataByIDsResponse:
        self.context.items.change_tags(caller, self._chosen(caller, request), add=list(request.tags))
        return pb.AddTagsToBinaryDataByIDsResponse()

    @unary
    def RemoveTagsFromBinaryDataByIDs(
        self, caller: Caller, request: pb.RemoveTagsFromBinaryDataByIDsRequest
    ) -> pb.RemoveTagsFromBinaryDataByIDsResponse:
        count = self.context.items.change_tags(caller, self._chosen(caller, request), remove=list(request.tags))
        return pb.RemoveTagsFromBinaryDataByIDsResponse(deleted_count=count)

    @unary
    def AddTagsToBinaryDataByFilter(
        self, caller: Caller, request: pb.AddTagsToBinaryDataByFilterRequest
    ) -> pb.AddTagsToBinaryDataByFilterResponse:
        self.context.items.change_tags(caller, Selection(filter=item_filter(request.filter)), add=list(request.tags))
        return pb.AddTagsToBinaryDataByFilterResponse()

    @unary
    def RemoveTagsFromBinaryDataByFilter(
        self, caller: Caller, request: pb.RemoveTagsFromBinaryDataByFilterRequest
    ) -> pb.RemoveTagsFromBinaryDataByFilterResponse:
        chosen = Selection(filter=item_filter(request.filter))
        count = self.context.items.change_tags(caller, chosen, remove=list(request.tags))
        return pb.RemoveTagsFromBinaryDataByFilterResponse(deleted_count=count)

    @unary
    def AddBoundingBoxToImageByID(
        self, caller: Caller, request: pb.AddBoundingBoxToImageByIDRequest
    ) -> pb.AddBoundingBoxToImageByIDResponse:
        box = Box(
            request.label,
            request.x_min_normalized,
            request.y_min_normalized,
            request.x_max_normalized,
            request.y_max_normalized,
            request.confidence if request.HasField("confidence") else None,
        )
        made = self.context.items.add_box(caller, self._row(caller, request), box)
        return pb.AddBoundingBoxToImageByIDResponse(bbox_id=made.id)

    @unary
    def UpdateBoundingBox(self, caller: Caller, request: pb.UpdateBoundingBoxRequest) -> pb.UpdateBoundingBoxResponse:
        given = {field.name: value for field, value in request.ListFields() if field.name in _BOX_FIELDS}
        changes = {name.removesuffix("_normalized"): value for name, value in given.items()}
        self.context.items.update_box(caller, self._row(caller, request), request.bbox_id, **changes)
        return pb.UpdateBoundingBoxResponse()

    @unary
    def RemoveBoundingBoxFromImageByID(
        self, caller: Caller, request: pb.RemoveBoundingBoxFromImageByIDRequest
    ) -> pb.RemoveBoundingBoxFromImageByIDResponse:
        self.context.items.remove_box(caller, self._row(caller, request), request.bbox_id)
        return pb.RemoveBoundingBoxFromImageByIDResponse()

    @unary
    def AddBinaryDataToDatasetByIDs(
        self, caller: Caller, request: pb.AddBinaryDataToDatasetByIDsRequest
    ) -> pb.AddBinaryDataToDatasetByIDsResponse:
        self.context.datasets.add_items(caller, request.dataset_id, self._chosen(caller, request))
        return pb.AddBinaryDataToDatasetByIDsResponse()

    @unary
    def RemoveBinaryDataFromDatasetByIDs(
        self, caller: Caller, request: pb.RemoveBinaryDataFromDatasetByIDsRequest
    ) -> pb.RemoveBinaryDataFromDatasetByIDsResponse:
        self.context.datasets.remove_items(caller, request.dataset_id, self._chosen(caller, request))
        return pb.RemoveBinaryDataFromDatasetByIDsResponse()

    # Deleting

    @unary
    def DeleteBinaryDataByIDs(
        self, caller: Caller, request: pb.DeleteBinaryDataByIDsRequest
    ) -> pb.DeleteBinaryDataByIDsResponse:
        gone = self.context.items.delete(caller, self._chosen(caller, request))
        return pb.DeleteBinaryDataByIDsResponse(deleted_count=gone.deleted)

    @unary
    def DeleteBinaryDataByFilter(
        self, caller: Caller, request: pb.DeleteBinaryDataByFilterRequest
    ) -> pb.DeleteBinaryDataByFilterResponse:
        if request.filter == pb.Filter():
            raise InvalidInput("an empty filter would delete everything", "Name at least the organization.")
        gone = self.context.items.delete(caller, Selection(filter=item_filter(request.filter)))
        return pb.DeleteBinaryDataByFilterResponse(deleted_count=gone.deleted)

    @unary
    def DeleteTabularData(self, caller: Caller, request: pb.DeleteTabularDataRequest) -> pb.DeleteTabularDataResponse:
        given = request.filter
        same = pb.Filter(
            organization_ids=[request.organization_id],
            location_ids=given.location_ids,
            robot_id=given.robot_id,
            part_id=given.part_id,
            component_type=given.component_type,
            component_name=given.component_name,
            method=given.method,
            tags_filter=given.tags_filter,
        )
        if not request.organization_id:
            raise InvalidInput("an organization is needed", "Send organization_id.")
        days, now_ns = request.delete_older_than_days, time.time_ns()
        gone = self.context.readings.delete(caller, item_filter(same), days, now_ns)
        return pb.DeleteTabularDataResponse(deleted_count=gone)

    # Parts of the above

    def _chosen(self, caller: Caller, request: Any) -> Selection:
        return Selection(rows=tuple(self.context.items.rows_of_ids(caller, _ids(request))))

    def _row(self, caller: Caller, request: Any) -> int:
        return self._row_of(caller, request.binary_data_id or request.binary_id.file_id)

    def _row_of(self, caller: Caller, binary_data_id: str) -> int:
        return self.context.items.rows_of_ids(caller, [binary_data_id])[0]

    def _with_content(self, caller: Caller, items: Sequence[Item], include: bool) -> list[pb.BinaryData]:
        size = sum(item.size_bytes for item in items)
        if include and size > MOST_INCLUDED_BYTES:
            raise TooLarge(
                f"INCLUDE_BINARY_TOO_LARGE: {len(items)} items of together {size} bytes do not fit into one answer",
                "Ask for fewer, or without the bytes and read each from metadata.uri.",
            )
        web = self.context.addresses.web
        return [
            pb.BinaryData(
                binary=self.context.items.content(caller, item.row).all() if include else b"",
                metadata=binary_metadata(item, web),
            )
            for item in items
        ]


def _ids(request: Any) -> list[str]:
    return list(request.binary_data_ids) or [one.file_id for one in request.binary_ids]


def _series(request: Any, start_ns: int | None = None, end_ns: int | None = None) -> ItemFilter:
    """Readings of one method of one resource, as the newer tabular calls name them."""
    if not request.part_id or not request.resource_name or not request.method_name:
        raise InvalidInput("a part, a resource and a method are needed", "Send part_id, resource_name and method_name.")
    return ItemFilter(
        part_ids=(request.part_id,),
        component_names=(request.resource_name,),
        component_types=(request.resource_subtype,) if request.resource_subtype else (),
        methods=(request.method_name,),
        start_ns=start_ns,
        end_ns=end_ns,
    )
