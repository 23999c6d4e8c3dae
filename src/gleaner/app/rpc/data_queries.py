"""What `viam.app.data.v1.DataService` can be asked in SQL and MQL, saved queries and indexes."""

from __future__ import annotations

import json
import threading
from typing import Any

from viam.gen.app.data.v1 import data_pb2 as pb

from gleaner.app.caller import Caller
from gleaner.app.errors import InvalidInput, Unsupported
from gleaner.app.rpc.adapter import Service, stoppable, timestamp, unary
from gleaner.app.services.query_indexes import Collection, IndexPlace, QueryIndex
from gleaner.app.services.saved_queries import Draft, Language, SavedQuery

_COLLECTIONS = {
    pb.IndexableCollection.INDEXABLE_COLLECTION_HOT_STORE: Collection.HOT_STORE,
    pb.IndexableCollection.INDEXABLE_COLLECTION_PIPELINE_SINK: Collection.PIPELINE_SINK,
}
_COLLECTIONS_BACK = {one: number for number, one in _COLLECTIONS.items()}
_NO_MONGODB = Unsupported(
    "This app keeps readings in Parquet, not in a MongoDB that could be connected to",
    "Ask with TabularDataBySQL or TabularDataByMQL; `gleaner app lake` writes the readings as plain Parquet.",
)


class QueriesRpc(Service):
    """Mixed into `DataRpc`."""

    @stoppable
    def TabularDataBySQL(
        self, caller: Caller, request: pb.TabularDataBySQLRequest, stop: threading.Event
    ) -> pb.TabularDataBySQLResponse:
        found = self.context.queries.sql(caller, request.organization_id, request.sql_query, stop)
        return pb.TabularDataBySQLResponse(raw_data=found.rows)

    @stoppable
    def TabularDataByMQL(
        self, caller: Caller, request: pb.TabularDataByMQLRequest, stop: threading.Event
    ) -> pb.TabularDataByMQLResponse:
        """Hot storage is all of it here: nothing is slower for being old."""
        stages = list(request.mql_binary)
        if request.query_prefix_name:
            saved = self.context.saved_queries.named(caller, request.organization_id, request.query_prefix_name)
            if saved.asks.language is not Language.MQL:
                raise InvalidInput(f"The saved query {saved.name} is SQL", "Begin with one in MQL.")
            stages = [*saved.asks.stages, *stages]
        if request.data_source.type == pb.TabularDataSourceType.TABULAR_DATA_SOURCE_TYPE_PIPELINE_SINK:
            pipeline = self.context.pipelines.get(caller, request.data_source.pipeline_id)
            rows = self.context.queries.mql_of_sink(caller, pipeline.organization_id, pipeline.id, stages, stop)
            return pb.TabularDataByMQLResponse(raw_data=rows)
        rows = self.context.queries.mql(caller, request.organization_id, stages, stop)
        return pb.TabularDataByMQLResponse(raw_data=rows)

    # Saved queries: those in SQL are the web page's; this API can only say MQL.

    @unary
    def CreateSavedQuery(self, caller: Caller, request: pb.CreateSavedQueryRequest) -> pb.CreateSavedQueryResponse:
        asks = Draft.sent(request.mql_binary)
        made = self.context.saved_queries.create(caller, request.organization_id, request.name, asks)
        return pb.CreateSavedQueryResponse(id=made.id)

    @unary
    def UpdateSavedQuery(self, caller: Caller, request: pb.UpdateSavedQueryRequest) -> pb.UpdateSavedQueryResponse:
        """An empty name, or no stages, leaves them as they are."""
        asks = Draft.sent(request.mql_binary) if request.mql_binary else None
        self.context.saved_queries.change(caller, request.id, request.name, asks)
        return pb.UpdateSavedQueryResponse()

    @unary
    def GetSavedQuery(self, caller: Caller, request: pb.GetSavedQueryRequest) -> pb.GetSavedQueryResponse:
        return pb.GetSavedQueryResponse(saved_query=_query(self.context.saved_queries.get(caller, request.id)))

    @unary
    def DeleteSavedQuery(self, caller: Caller, request: pb.DeleteSavedQueryRequest) -> pb.DeleteSavedQueryResponse:
        self.context.saved_queries.delete(caller, request.id)
        return pb.DeleteSavedQueryResponse()

    @unary
    def ListSavedQueries(self, caller: Caller, request: pb.ListSavedQueriesRequest) -> pb.ListSavedQueriesResponse:
        if request.limit < 0:
            raise InvalidInput(f"{request.limit} queries were asked for", "Send a positive limit, or none.")
        found = self.context.saved_queries.of_organization(caller, request.organization_id)
        in_mql = [_query(one) for one in found if one.asks.language is Language.MQL]
        return pb.ListSavedQueriesResponse(queries=in_mql[: request.limit or None])

    # Indexes

    @unary
    def CreateIndex(self, caller: Caller, request: pb.CreateIndexRequest) -> pb.CreateIndexResponse:
        self.context.query_indexes.create(caller, _place(request), request.index_spec)
        return pb.CreateIndexResponse()

    @unary
    def ListIndexes(self, caller: Caller, request: pb.ListIndexesRequest) -> pb.ListIndexesResponse:
        found = self.context.query_indexes.of(caller, _place(request))
        return pb.ListIndexesResponse(indexes=[_index(one) for one in found])

    @unary
    def DeleteIndex(self, caller: Caller, request: pb.DeleteIndexRequest) -> pb.DeleteIndexResponse:
        self.context.query_indexes.delete(caller, _place(request), request.index_name)
        return pb.DeleteIndexResponse()

    # What there is no such thing of

    @unary
    def GetDatabaseConnection(
        self, caller: Caller, request: pb.GetDatabaseConnectionRequest
    ) -> pb.GetDatabaseConnectionResponse:
        raise _NO_MONGODB

    @unary
    def ConfigureDatabaseUser(
        self, caller: Caller, request: pb.ConfigureDatabaseUserRequest
    ) -> pb.ConfigureDatabaseUserResponse:
        raise _NO_MONGODB


def _query(one: SavedQuery) -> pb.Query:
    return pb.Query(
        id=one.id,
        organization_id=one.organization_id,
        name=one.name,
        mql_binary=one.asks.stages,
        created_on=timestamp(one.created_ns),
        updated_at=timestamp(one.updated_ns),
    )


def _place(request: Any) -> IndexPlace:
    if request.collection_type not in _COLLECTIONS:
        raise InvalidInput(f"{request.collection_type} is no collection", "Use HOT_STORE or PIPELINE_SINK.")
    return IndexPlace(request.organization_id, _COLLECTIONS[request.collection_type], request.pipeline_name)


def _index(one: QueryIndex) -> pb.Index:
    creator = pb.IndexCreator.INDEX_CREATOR_VIAM if one.is_built_in else pb.IndexCreator.INDEX_CREATOR_CUSTOMER
    return pb.Index(
        collection_type=_COLLECTIONS_BACK[one.place.collection],
        pipeline_name=one.place.pipeline_name or None,
        index_name=one.name,
        index_spec=[json.dumps(one.keys).encode(), json.dumps(one.options).encode()],
        created_by=creator,
    )
