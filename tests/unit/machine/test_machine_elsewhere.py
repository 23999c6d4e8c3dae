"""Resources of other processes in the graph: planned, changed in place, lost and found; and their names in requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from machine_fakes import Thing, World, config, host, thing, until
from viam.proto.common import DoCommandRequest, GetReadingsRequest
from viam.utils import dict_to_struct

from gleaner.machine.foreign.offers import AnyAttributes, Offer, RemoteResource
from gleaner.machine.graph import ResourceGraph
from gleaner.machine.models.base import BuildContext, ModelSpec
from gleaner.machine.names import ResourceKey, find_key
from gleaner.machine.node import Node, State
from gleaner.machine.rpc.forward import RawMessage, renamed, resource_name_in
from gleaner.wire.machine_config import ResourceConfig

SENSOR = "rdk:component:sensor"


class OtherProcess:
    """A module and a remote at once, whose every word a test decides."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answers: dict[str, Offer] = {}
        self.seen: list[RemoteResource] = []
        self.away: dict[str, str] = {}
        self.given: list[tuple[str, Mapping[str, Any], tuple[str, ...]]] = []
        self.refuses = ""
        self.start_anew()

    def start_anew(self) -> None:
        async def build(context: BuildContext) -> Thing:
            self.note(context)
            return Thing(context, self.world.life)

        async def reconfigure(_thing: Any, context: BuildContext) -> None:
            self.note(context)

        self.spec = ModelSpec(SENSOR, "", "module", "", AnyAttributes, build, reconfigure=reconfigure)
        self.remote_spec = ModelSpec(SENSOR, "", "remote", "", AnyAttributes, build)

    def note(self, context: BuildContext) -> None:
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.given.append((context.name, context.attributes.model_extra or {}, context.dependency_names))

    def offer(self, config: ResourceConfig, attributes: Mapping[str, Any]) -> Offer | None:
        answer = self.answers.get(config.model)
        return (
            None
            if answer is None
            else answer
            if answer.error
            else Offer(self.spec, answer.dependencies, answer.optional)
        )

    def resources(self) -> Sequence[RemoteResource]:
        return self.seen

    def problems(self) -> Mapping[str, str]:
        return self.away

    def remote(self, name: str, error: str = "") -> RemoteResource:
        return RemoteResource(ResourceKey(SENSOR, name), "r1", self.remote_spec, error)


class Bench:
    def __init__(self, tmp_path: Path) -> None:
        self.world = World()
        self.other = OtherProcess(self.world)
        self.other.answers["acme:test:one"] = Offer()
        self.host = host(tmp_path)
        self.graph = ResourceGraph(self.host, self.world.specs, modules=self.other, remotes=self.other, retry_s=0.02)
        self.host.find = self.graph.resource

    async def apply(self, *components: dict[str, Any]) -> None:
        await self.graph.apply(config(*components))
        await self.graph.settle()

    def node(self, name: str) -> Node:
        return next(node for node in self.graph.nodes if node.key.name == name)


@asynccontextmanager
async def bench_in(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    try:
        yield bench
    finally:
        await bench.graph.close()


def modular(name: str, **attributes: Any) -> dict[str, Any]:
    return thing(name, model="acme:test:one", **attributes)


async def test_new_attributes_change_a_module_resource_in_place(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.apply(modular("m", a=1), thing("user", needs=["m"]))
        instance = bench.node("m").instance
        await bench.apply(modular("m", a=2), thing("user", needs=["m"]))
        assert bench.node("m").instance is instance
        assert [attributes for _, attributes, _ in bench.other.given] == [{"a": 1}, {"a": 2}]
        assert bench.world.life == ["+m", "+user"]


async def test_a_change_that_fails_is_said_and_tried_again_from_scratch(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.apply(modular("m", a=1), thing("user", needs=["m"]))
        bench.other.refuses = "out of range"
        await bench.apply(modular("m", a=2), thing("user", needs=["m"]))
        assert (bench.node("m").state, bench.node("m").error) == (State.UNHEALTHY, "out of range")
        assert bench.node("user").state is State.UNCONFIGURED
        bench.other.refuses = ""
        await until(lambda: bench.node("user").state is State.READY)
        assert bench.world.life == ["+m", "+user", "-user", "-m", "+m", "+user"]


async def test_another_run_of_the_module_builds_its_resources_again(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.apply(modular("m"), thing("user", needs=["m"]), thing("apart"))
        bench.other.start_anew()
        await bench.apply(modular("m"), thing("user", needs=["m"]), thing("apart"))
        assert bench.world.life == ["+m", "+apart", "+user", "-user", "-m", "+m", "+user"]


async def test_a_module_that_is_down_is_the_reason_of_its_resources(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.apply(modular("m"))
        bench.other.answers["acme:test:one"] = Offer(error="module acme ended with code 3")
        await bench.apply(modular("m"))
        assert (bench.node("m").state, bench.node("m").error) == (State.UNHEALTHY, "module acme ended with code 3")


async def test_needs_of_a_module_are_built_first_and_wishes_are_granted_when_they_come(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        bench.other.answers["acme:test:one"] = Offer(dependencies=("need",), optional=("wish", "absent"))
        bench.world.gates["wish"] = asyncio.Event()
        await bench.graph.apply(config(modular("m"), thing("wish"), thing("need")))
        await until(lambda: bench.node("m").state is State.READY)
        bench.world.gates["wish"].set()
        await until(lambda: len(bench.other.given) == 2)
        assert [names for _, _, names in bench.other.given] == [
            (f"{SENSOR}/need",),
            (f"{SENSOR}/wish", f"{SENSOR}/need"),
        ]


async def test_a_lost_remote_takes_its_resources_and_their_users_with_it_until_it_is_back(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        bench.other.seen = [bench.other.remote("r1:far")]
        await bench.apply(thing("user", needs=["r1:far"]), thing("short", needs=["far"]))
        assert bench.graph.resource("far", "sensor") is bench.node("r1:far").instance
        assert set(bench.node("user").instance.context.dependencies) == {"far", "r1:far"}  # type: ignore[union-attr]
        bench.other.seen = [bench.other.remote("r1:far", "remote r1 cannot be reached: no route")]
        await bench.apply(thing("user", needs=["r1:far"]), thing("short", needs=["far"]))
        assert bench.node("r1:far").state is State.UNHEALTHY
        assert bench.node("user").error.endswith("not ready: remote r1 cannot be reached: no route")
        bench.other.seen = [bench.other.remote("r1:far")]
        await bench.apply(thing("user", needs=["r1:far"]), thing("short", needs=["far"]))
        assert all(node.state is State.READY for node in bench.graph.nodes)


async def test_what_depends_on_a_remote_that_was_never_there_waits_for_it(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        bench.other.away = {"r1": "remote r1 is being connected"}
        await bench.apply(thing("user", needs=["r1:far"]), thing("wrong", needs=["r2:far"]))
        assert (bench.node("user").state, bench.node("wrong").state) == (State.UNCONFIGURED, State.UNHEALTHY)
        assert bench.node("user").error == "depends on 'r1:far': remote r1 is being connected"


def test_a_short_name_means_a_remotes_resource_only_where_no_other_has_it() -> None:
    one, two, own = ResourceKey(SENSOR, "r1:a"), ResourceKey(SENSOR, "r2:a"), ResourceKey(SENSOR, "a")
    assert find_key("a", [one]) == one
    assert find_key(f"{SENSOR}/a", [one]) == one
    assert find_key("a", [one, two]) is None
    assert find_key("a", [one, two, own]) == own
    assert find_key("r2:a", [one, two, own]) == two


@pytest.mark.parametrize("name", ["g", "r1:greeter", "größe"])
def test_the_resource_of_a_request_is_found_and_renamed_without_knowing_its_type(name: str) -> None:
    request = DoCommandRequest(name=name, command=dict_to_struct({"whom": name, "n": 1.5, "list": ["x"] * 50}))
    raw = RawMessage(request.SerializeToString())
    assert resource_name_in(raw, [name, "other"]) == name
    assert resource_name_in(raw, ["other"]) == ""
    there = renamed(raw, name, "a-much-longer-name-than-before" * 10)
    request.name = "a-much-longer-name-than-before" * 10
    assert there.SerializeToString() == request.SerializeToString()
    assert renamed(raw, name, name) is raw
    typed = GetReadingsRequest(name=name)
    assert resource_name_in(typed, []) == name
    assert renamed(typed, name, "there").name == "there"


@pytest.mark.parametrize(
    "data", [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", b"\xff" * 20, b"\x0b\x0c", bytes(range(256))]
)
def test_bytes_that_are_no_message_name_no_resource(data: bytes) -> None:
    assert resource_name_in(RawMessage(data), ["name"]) == ""
    assert renamed(RawMessage(data), "name", "other").data == data
