"""What is asked of a module while its program runs: its models, what it says to a configuration, its resources."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from grpclib import GRPCError, Status
from grpclib.client import Channel
from viam.proto.app.robot import ComponentConfig
from viam.proto.module import (
    AddResourceRequest,
    ModuleServiceStub,
    ReadyRequest,
    ReconfigureResourceRequest,
    RemoveResourceRequest,
    ValidateConfigRequest,
)
from viam.resource.base import ResourceBase

from gleaner.machine.foreign.offers import AnyAttributes, Offer
from gleaner.machine.foreign.resource import ProcessSilent, Route, call_process, make_resource
from gleaner.machine.models.base import BuildContext, ModelSpec
from gleaner.wire.machine_config import ConfigProblem, ResourceConfig
from gleaner.wire.robot_config import to_proto

# Source: Viam's documented module protocol: how long each call may take.
READY_CALL_S = 3.0
VALIDATE_S = 5.0
CHANGE_S = 120.0
REMOVE_S = 20.0
#: Others wait so long for a resource to be removed. Source: ours.
REMOVE_PATIENCE_S = 2.0


class ModuleRun:
    """One run of a module's program, from its start to its end. `changed` is called when `offer` says something new."""

    def __init__(self, name: str, channel: Channel, log: logging.Logger, changed: Callable[[], None]) -> None:
        self.models: set[tuple[str, str]] = set()
        """(API, model)"""
        self.services: dict[str, str] = {}
        """gRPC service → API"""
        self._owner = f"module {name}"
        self._channel = channel
        self._stub: Any = ModuleServiceStub(channel)
        self._log = log
        self._changed = changed
        self._specs: dict[str, ModelSpec] = {}
        self._answers: dict[str, Offer] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self.remove_patience_s = REMOVE_PATIENCE_S
        self._removing: dict[str, asyncio.Task[None]] = {}
        self._is_over = False

    def end(self) -> None:
        """The program has ended, or is about to: nothing is asked any more."""
        self._is_over = True
        for task in [*self._asking.values(), *self._removing.values()]:
            task.cancel()

    async def is_ready(self, parent: str) -> bool:
        """Whether it listens and says that it is ready; its models are then known. Raises GRPCError."""
        request = ReadyRequest(parent_address=parent, raw_parent_address=parent)
        try:
            answer = await call_process(self._owner, self._stub.Ready, request, READY_CALL_S)
        except ProcessSilent:
            return False
        if not answer.ready:
            return False
        for handler in answer.handlermap.handlers:
            kind = handler.subtype.subtype
            api = f"{kind.namespace}:{kind.type}:{kind.subtype}"
            self.services[handler.subtype.proto_service] = api
            self.models |= {(api, model) for model in handler.models}
        return True

    # -- what it says to a configuration ------------------------------------------------------------------------

    def offer(self, config: ResourceConfig, attributes: Mapping[str, Any]) -> Offer:
        """Its answer when it is known; until then one that says what is waited for."""
        content = json.dumps([config.api, config.model, config.name, attributes], sort_keys=True, default=str)
        answer = self._answers.get(content)
        if answer is not None:
            return answer
        if content not in self._asking:
            self._asking[content] = asyncio.create_task(
                self._validate(content, config, attributes), name=f"{self._owner} checks {config.name}"
            )
        return Offer(self._spec(config.api), waits_for=f"{self._owner} checks its configuration")

    async def _validate(self, content: str, config: ResourceConfig, attributes: Mapping[str, Any]) -> None:
        spec = self._spec(config.api)
        try:
            request = ValidateConfigRequest(config=_message(config, attributes))
            answer = await call_process(self._owner, self._stub.ValidateConfig, request, VALIDATE_S)
            offer = Offer(spec, tuple(answer.dependencies), tuple(answer.optional_dependencies))
        except GRPCError as error:
            unimplemented = error.status is Status.UNIMPLEMENTED
            offer = Offer(spec) if unimplemented else Offer(error=f"{self._owner}: {_said(error)}")
        except ConfigProblem as problem:
            offer = Offer(error=str(problem))
        except ProcessSilent as problem:
            # Not for good: it is asked again, and what it had already goes on as it is.
            asyncio.get_running_loop().call_later(VALIDATE_S, self._forget, content)
            offer = Offer(spec, waits_for=str(problem))
        self._asking.pop(content, None)
        self._answers[content] = offer
        self._changed()

    def _forget(self, content: str) -> None:
        if not self._is_over and self._answers.pop(content, None) is not None:
            self._changed()

    # -- its resources ------------------------------------------------------------------------------------------

    def _spec(self, api: str) -> ModelSpec:
        if api not in self._specs:
            self._specs[api] = ModelSpec(
                api=api,
                model="",
                title=self._owner,
                description="",
                attributes=AnyAttributes,
                build=self._add,
                reconfigure=self._reconfigure,
            )
        return self._specs[api]

    async def _add(self, context: BuildContext) -> ResourceBase:
        """Raises RuntimeError with the module's words, ProcessSilent."""
        message = _context_message(context)
        name = f"{message.api}/{message.name}"
        if removing := self._removing.get(name):
            await asyncio.wait([removing])
        request = AddResourceRequest(config=message, dependencies=list(context.dependency_names))
        await self._change(self._stub.AddResource, request)

        service = next((service for service, api in self.services.items() if api == message.api), "")

        async def remove() -> None:
            await self._remove(name)

        return make_resource(message.api, Route(self._channel, message.name, self._owner, service), remove)

    async def _reconfigure(self, _resource: Any, context: BuildContext) -> None:
        request = ReconfigureResourceRequest(
            config=_context_message(context), dependencies=list(context.dependency_names)
        )
        await self._change(self._stub.ReconfigureResource, request)

    async def _change(self, call: Any, request: Any) -> None:
        try:
            await call_process(self._owner, call, request, CHANGE_S)
        except GRPCError as error:
            raise RuntimeError(f"{self._owner}: {_said(error)}") from error

    async def _remove(self, name: str) -> None:
        """Returns when it is removed, or soon: a module that takes its time holds up nobody but itself."""
        if self._is_over:
            return
        is_silent = bool(self._removing)
        task = self._removing[name] = asyncio.create_task(self._ask_to_remove(name), name=f"remove {name}")
        task.add_done_callback(lambda _task: self._removing.pop(name, None))
        if not is_silent:
            await asyncio.wait([task], timeout=self.remove_patience_s)

    async def _ask_to_remove(self, name: str) -> None:
        request = RemoveResourceRequest(name=name)
        try:
            await call_process(self._owner, self._stub.RemoveResource, request, REMOVE_S)
        except GRPCError as error:
            self._log.warning("%s was not removed: %s", name, _said(error))
        except ProcessSilent as problem:
            self._log.warning("%s was not removed: %s", name, problem)


def _context_message(context: BuildContext) -> ComponentConfig:
    assert context.config is not None
    return _message(context.config, context.attributes.model_extra or {})


def _message(config: ResourceConfig, attributes: Mapping[str, Any]) -> ComponentConfig:
    """Raises ConfigProblem."""
    resource = config.model_dump(by_alias=True, exclude_none=True) | {"attributes": dict(attributes)}
    return to_proto({"components": [resource]}).components[0]


def _said(error: GRPCError) -> str:
    return error.message or error.status.name.lower()
