"""The graph as the `ResourceManager` that viam-sdk's handlers ask for resources."""

from __future__ import annotations

from typing import Any

from grpclib import GRPCError, Status
from viam.proto.common import ResourceName
from viam.resource.base import ResourceBase
from viam.resource.manager import ResourceManager

from gleaner.machine.graph import ResourceGraph
from gleaner.machine.names import ResourceKey


class GraphResources(ResourceManager):
    """Looks every resource up at the moment of the call, so a rebuilt resource serves the next one."""

    def __init__(self, graph: ResourceGraph) -> None:
        super().__init__()
        self._graph = graph

    def get_resource(self, of_type: type[Any], name: ResourceName) -> Any:
        for node in self._graph.nodes:
            if node.key.name == name.name and isinstance(node.instance, of_type):
                return node.instance
        raise self._missing(ResourceKey(f"{name.namespace}:{name.type}:{name.subtype}", name.name))

    def by_api(self, api: str, name: str) -> Any:
        for node in self._graph.nodes:
            if node.key == ResourceKey(api, name) and node.instance is not None:
                return node.instance
        raise self._missing(ResourceKey(api, name))

    def _resource_by_name_only(self, name: str) -> ResourceBase:
        resource = self._graph.resource(name)
        if resource is None:
            raise GRPCError(Status.UNKNOWN, f"resource {name} not found")
        return resource

    def _missing(self, key: ResourceKey) -> GRPCError:
        """Viam's texts and code (UNKNOWN, not NOT_FOUND): clients of viam-server look for them."""
        for node in self._graph.nodes:
            if node.key == key:
                return GRPCError(
                    Status.UNKNOWN, f"resource {key} not available; reason={node.error or node.state.name.lower()}"
                )
        return GRPCError(Status.UNKNOWN, f"resource {key} not found")
