"""The graph as the `ResourceManager` that viam-sdk's handlers ask for resources."""

from __future__ import annotations

from typing import Any

from grpclib import GRPCError, Status
from viam.proto.common import ResourceName
from viam.resource.base import ResourceBase
from viam.resource.manager import ResourceManager

from gleaner.machine.foreign.resource import Route, route_of
from gleaner.machine.graph import ResourceGraph
from gleaner.machine.names import ResourceKey, find_key
from gleaner.machine.node import Node


class GraphResources(ResourceManager):
    """Looks every resource up at the moment of the call, so a rebuilt resource serves the next one."""

    def __init__(self, graph: ResourceGraph) -> None:
        super().__init__()
        self._graph = graph

    def get_resource(self, of_type: type[Any], name: ResourceName) -> Any:
        for node in self._graph.nodes:
            if node.key.name == name.name and isinstance(node.instance, of_type):
                return node.instance
        raise self.missing(ResourceKey(f"{name.namespace}:{name.type}:{name.subtype}", name.name))

    def by_api(self, api: str, name: str) -> Any:
        for node in self._graph.nodes:
            if node.key == ResourceKey(api, name) and node.instance is not None:
                return node.instance
        raise self.missing(ResourceKey(api, name))

    def find(self, api: str, name: str) -> Node | None:
        """The resource of that name, or the only one of that name on any remote; it may not be ready."""
        nodes = {node.key: node for node in self._graph.nodes if node.key.api == api}
        key = find_key(name, nodes)
        return None if key is None else nodes[key]

    def names(self, api: str) -> list[str]:
        """Every name by which a resource of an API can be asked for."""
        keys = [node.key for node in self._graph.nodes if node.key.api == api]
        return [*(key.name for key in keys), *(key.local_name for key in keys)]

    def foreign_route(self, api: str, name: str) -> Route | None:
        """Where requests for a resource of a module or a remote go; None for one that is here, or is not ready."""
        node = self.find(api, name)
        return None if node is None else route_of(node.instance)

    def _resource_by_name_only(self, name: str) -> ResourceBase:
        resource = self._graph.resource(name)
        if resource is None:
            raise GRPCError(Status.UNKNOWN, f"resource {name} not found")
        return resource

    def missing(self, key: ResourceKey) -> GRPCError:
        """Viam's texts and code (UNKNOWN, not NOT_FOUND): clients of viam-server look for them."""
        for node in self._graph.nodes:
            if node.key == key or (node.key.api == key.api and node.key.local_name == key.name):
                return GRPCError(
                    Status.UNKNOWN, f"resource {key} not available; reason={node.error or node.state.name.lower()}"
                )
        return GRPCError(Status.UNKNOWN, f"resource {key} not found")
