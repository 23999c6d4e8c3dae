"""The sequences of `viam.app.data.v1.DataService`: stretches of time that machines or programs name."""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from viam.gen.app.data.v1 import data_pb2 as pb

from gleaner.app.caller import Caller
from gleaner.app.errors import InvalidInput
from gleaner.app.rpc.adapter import Service, nanoseconds, timestamp, unary
from gleaner.app.rpc.data_messages import binary_metadata
from gleaner.app.services.sequences_values import CapturedSequence, checked

_UPDATED = {"resources": "resources", "sequence_tags": "tags", "start_time": "start_ns", "end_time": "end_ns"}
_MOST_ITEMS = 1000


class SequencesRpc(Service):
    """Mixed into `DataRpc`."""

    @unary
    def CreateSequence(self, caller: Caller, request: pb.CreateSequenceRequest) -> pb.CreateSequenceResponse:
        start, end = _time(request, "start_time"), _time(request, "end_time")
        draft = checked(_resources(request), request.sequence_tags, start, end)
        return pb.CreateSequenceResponse(id=self.context.sequences.create(caller, request.part_id, draft))

    @unary
    def GetSequence(self, caller: Caller, request: pb.GetSequenceRequest) -> pb.GetSequenceResponse:
        return pb.GetSequenceResponse(sequence=_message(self.context.sequences.get(caller, request.id)))

    @unary
    def UpdateSequence(self, caller: Caller, request: pb.UpdateSequenceRequest) -> pb.UpdateSequenceResponse:
        paths = list(request.field_mask.paths)
        if unknown := [path for path in paths if path not in _UPDATED]:
            raise InvalidInput(f"{unknown[0]!r} of a sequence cannot be changed", f"field_mask takes {_named()}.")
        if not paths:
            raise InvalidInput("The field mask names nothing to change", f"field_mask takes {_named()}.")
        given: dict[str, Any] = {
            "resources": _resources(request),
            "tags": tuple(request.sequence_tags),
            "start_ns": _time(request, "start_time"),
            "end_ns": _time(request, "end_time"),
        }
        changes = {_UPDATED[path]: given[_UPDATED[path]] for path in paths}
        self.context.sequences.update(caller, request.id, **changes)
        return pb.UpdateSequenceResponse()

    @unary
    def DeleteSequence(self, caller: Caller, request: pb.DeleteSequenceRequest) -> pb.DeleteSequenceResponse:
        self.context.sequences.delete(caller, request.id)
        return pb.DeleteSequenceResponse()

    @unary
    def ListSequences(self, caller: Caller, request: pb.ListSequencesRequest) -> pb.ListSequencesResponse:
        page = self.context.sequences.page(caller, request.organization_id, request.page_size, request.page_token)
        return pb.ListSequencesResponse(
            sequences=[_message(one) for one in page.sequences], next_page_token=page.next_token
        )

    @unary
    def SequencesByDatasetID(
        self, caller: Caller, request: pb.SequencesByDatasetIDRequest
    ) -> pb.SequencesByDatasetIDResponse:
        """`count` is that of the whole dataset."""
        sequences = self.context.sequences
        answer = pb.SequencesByDatasetIDResponse(count=sequences.count_in_dataset(caller, request.dataset_id))
        if not request.count_only:
            page = sequences.page_of_dataset(caller, request.dataset_id, request.page_size, request.page_token)
            answer.sequences.extend(_message(one) for one in page.sequences)
            answer.next_page_token = page.next_token
        return answer

    @unary
    def GetSequenceBinaryData(
        self, caller: Caller, request: pb.GetSequenceBinaryDataRequest
    ) -> pb.GetSequenceBinaryDataResponse:
        """Oldest first, without the bytes: `metadata.uri` and `BinaryDataByIDs` give them."""
        if request.page_size < 0:
            raise InvalidInput(f"A page of {request.page_size} items was asked for", f"Ask for 1 to {_MOST_ITEMS}.")
        wanted = self.context.sequences.item_filter(caller, request.sequence_id)
        size = min(request.page_size or 50, _MOST_ITEMS)
        page = self.context.items.page(caller, wanted, size, request.page_token, ascending=True)
        web = self.context.addresses.web
        return pb.GetSequenceBinaryDataResponse(
            data=[pb.BinaryData(metadata=binary_metadata(item, web)) for item in page.items],
            next_page_token=page.last if len(page.items) == size else "",
        )

    @unary
    def AddSequencesToDataset(
        self, caller: Caller, request: pb.AddSequencesToDatasetRequest
    ) -> pb.AddSequencesToDatasetResponse:
        self.context.sequences.add_to_dataset(caller, request.dataset_id, list(request.sequence_ids))
        return pb.AddSequencesToDatasetResponse()

    @unary
    def RemoveSequencesFromDataset(
        self, caller: Caller, request: pb.RemoveSequencesFromDatasetRequest
    ) -> pb.RemoveSequencesFromDatasetResponse:
        self.context.sequences.remove_from_dataset(caller, request.dataset_id, list(request.sequence_ids))
        return pb.RemoveSequencesFromDatasetResponse()


def _message(one: CapturedSequence) -> pb.Sequence:
    return pb.Sequence(
        id=one.id,
        part_id=one.part_id,
        sequence_tags=one.covers.tags,
        created_at=timestamp(one.created_ns),
        updated_at=timestamp(one.updated_ns),
        start_time=timestamp(one.covers.start_ns),
        end_time=timestamp(one.covers.end_ns),
        resources=[
            pb.SequenceResourceFilter(resource_name=name, method_name=method) for name, method in one.covers.resources
        ],
        dataset_ids=one.dataset_ids,
    )


def _resources(request: Any) -> tuple[tuple[str, str], ...]:
    return tuple((one.resource_name, one.method_name) for one in request.resources)


def _time(request: Any, field: str) -> int | None:
    if not request.HasField(field):
        return None
    stamp: Timestamp = getattr(request, field)
    return nanoseconds(stamp)


def _named() -> str:
    return ", ".join(_UPDATED)
