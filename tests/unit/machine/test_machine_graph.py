from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from machine_fakes import Brain, Shelf, Thing, World, brain, config, host, thing, until

from gleaner.machine import graph as graph_module
from gleaner.machine.graph import ResourceGraph
from gleaner.machine.node import Node, State


class Bench:
    """A graph with its world, and the short way to look at it."""

    def __init__(self, tmp_path: Path, retry_s: float = 3600.0) -> None:
        self.world = World()
        self.shelf = Shelf()
        self.host = host(tmp_path)
        self.graph = ResourceGraph(self.host, self.world.specs, self.shelf, retry_s=retry_s)
        self.host.find = self.graph.resource

    async def apply(self, *components: dict[str, Any], **kwargs: Any) -> None:
        self.host.config = config(*components, **kwargs)
        await self.graph.apply(self.host.config)
        await self.graph.settle()

    def node(self, name: str) -> Node:
        return next(node for node in self.graph.nodes if node.key.name == name)

    def instance(self, name: str) -> Any:
        return self.node(name).instance

    def states(self) -> dict[str, str]:
        return {node.key.name: node.state.name.lower() for node in self.graph.nodes}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.graph.close()


async def test_resources_are_built_in_order_and_closed_in_reverse(bench: Bench) -> None:
    await bench.apply(thing("a", needs=["b"]), thing("b", needs=["c"]), thing("c"), revision="r1")
    assert bench.world.life == ["+c", "+b", "+a"]
    assert bench.states() == {"a": "ready", "b": "ready", "c": "ready"}
    assert bench.node("a").revision == "r1"
    assert bench.instance("a").context.dependencies == {"b": bench.instance("b")}
    await bench.graph.close()
    assert bench.world.life[3:] == ["-a", "-b", "-c"]


async def test_what_did_not_change_keeps_running(bench: Bench) -> None:
    await bench.apply(thing("a"), thing("b"), thing("c", needs=["b"]))
    a, c = bench.instance("a"), bench.instance("c")
    # Another order, a capture setting and an equal attribute written out: nothing to rebuild.
    captured = {**thing("a", width_px=1), "service_configs": [{"type": "data_manager", "attributes": {}}]}
    await bench.apply(thing("b"), thing("c", needs=["b"]), {**captured, "attributes": {}})
    assert bench.instance("a") is a
    assert bench.instance("c") is c
    assert bench.world.life == ["+a", "+b", "+c"]


async def test_a_change_rebuilds_the_resource_and_those_that_use_it(bench: Bench) -> None:
    await bench.apply(thing("a"), thing("b", needs=["a"]), thing("c"))
    bench.world.life.clear()
    await bench.apply(thing("a", width_px=2), thing("b", needs=["a"]), thing("c"))
    assert bench.world.life == ["-b", "-a", "+a", "+b"]
    assert bench.instance("b").context.dependencies["a"] is bench.instance("a")


async def test_removed_resources_are_closed_and_their_users_say_what_is_missing(bench: Bench) -> None:
    await bench.apply(thing("a"), thing("b", needs=["a"]), thing("c"))
    bench.world.life.clear()
    await bench.apply(thing("b", needs=["a"]), thing("c"))
    assert bench.world.life == ["-b", "-a"]
    assert bench.states() == {"b": "unhealthy", "c": "ready"}
    assert "depends on 'a', which is not in the configuration" in bench.node("b").error


async def test_one_bad_resource_does_not_stop_the_others(bench: Bench) -> None:
    bench.world.failures["a"] = OSError(2, "No such file or directory", "/dev/video9")
    await bench.apply(thing("a"), thing("b", needs=["a"]), thing("c"), thing("d", width_px=0))
    assert bench.states() == {"a": "unhealthy", "b": "unconfigured", "c": "ready", "d": "unhealthy"}
    assert bench.node("a").error == "No such file or directory: /dev/video9"
    assert bench.node("b").error == "depends on sensor 'a', which is not ready: No such file or directory: /dev/video9"
    assert bench.graph.resource("a") is None


async def test_a_failed_resource_is_tried_again_by_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path, retry_s=0.01)
    bench.world.failures["a"] = ValueError("unplugged")
    await bench.apply(thing("a"), thing("b", needs=["a"]))
    assert bench.node("a").error == "unplugged"
    bench.world.failures.clear()
    await until(lambda: bench.states() == {"a": "ready", "b": "ready"})
    assert bench.node("a").error == ""
    await bench.graph.close()


async def test_a_resource_that_keeps_failing_stays_unhealthy_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, retry_s=0.01)
    bench.world.failures["a"] = ValueError("unplugged")
    await bench.apply(thing("a"))
    seen: list[str] = []
    bench.graph.on_change(lambda: seen.append(bench.states()["a"]))
    await until(lambda: len(seen) >= 3)
    assert set(seen) == {"unhealthy"}
    assert [record.message for record in caplog.records].count(
        "rdk:component:sensor/a could not start and is retried: unplugged"
    ) == 1
    await bench.graph.close()


async def test_a_failed_resource_is_tried_again_on_any_change(bench: Bench) -> None:
    bench.world.failures["a"] = ValueError("unplugged")
    await bench.apply(thing("a"))
    bench.world.failures.clear()
    await bench.apply(thing("a"), thing("b"))
    assert bench.states() == {"a": "ready", "b": "ready"}


async def test_a_slow_resource_delays_neither_others_nor_a_new_configuration(bench: Bench) -> None:
    bench.world.gates["slow"] = asyncio.Event()
    await bench.graph.apply(config(thing("slow"), thing("quick")))
    await until(lambda: bench.states() == {"slow": "configuring", "quick": "ready"})
    await bench.graph.apply(config(thing("slow", width_px=2), thing("quick"), thing("more")))
    await until(lambda: bench.states() == {"slow": "configuring", "quick": "ready", "more": "ready"})
    bench.world.gates["slow"].set()
    await bench.graph.settle()
    assert bench.instance("slow").context.attributes.width_px == 2
    assert bench.world.life.count("+slow") == 1


async def test_a_build_that_hangs_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "BUILD_TIMEOUT_S", 0.01)
    bench.world.gates["a"] = asyncio.Event()
    await bench.apply(thing("a"), thing("b"))
    assert bench.states() == {"a": "unhealthy", "b": "ready"}
    assert "took longer than" in bench.node("a").error


async def test_a_resource_that_fails_to_close_is_left_behind(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.apply(thing("a"), thing("b"))

    async def broken() -> None:
        raise RuntimeError("jammed")

    bench.instance("a").close = broken
    await bench.apply(thing("b"))
    assert bench.states() == {"b": "ready"}
    assert "rdk:component:sensor/a failed while closing" in caplog.text


async def test_members_of_a_cycle_are_unhealthy_and_the_rest_works(bench: Bench) -> None:
    await bench.apply(thing("a", needs=["b"]), thing("b", needs=["a"]), thing("c"))
    assert bench.states() == {"c": "ready", "a": "unhealthy", "b": "unhealthy"}
    assert "→" in bench.node("a").error


async def test_resources_are_told_after_every_change(bench: Bench) -> None:
    await bench.apply(thing("a"))
    watcher: Thing = bench.instance("a")
    await until(lambda: watcher.told > 0)
    told = watcher.told
    await bench.apply({**thing("a"), "service_configs": [{"type": "data_manager", "attributes": {}}]})
    await until(lambda: watcher.told > told)
    assert bench.instance("a") is watcher


async def test_a_failing_listener_does_not_keep_others_from_being_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.apply(thing("a"), thing("b"))

    async def broken(_host: Any) -> None:
        raise RuntimeError("deaf")

    bench.instance("a").resources_changed = broken
    told = bench.instance("b").told
    await bench.apply(thing("a"), thing("b"), thing("c"))
    await until(lambda: bench.instance("b").told > told)
    assert "a failed to take in a change" in caplog.text


async def test_a_new_model_version_takes_over_without_a_gap(bench: Bench) -> None:
    bench.shelf.put("signs", "1", "/data/v1")
    services = (brain("b", folder="${packages.signs}"),)
    await bench.apply(thing("user", needs=["b"]), services=services)
    assert bench.world.life == ["+b v1", "+user"]
    old: Brain = bench.instance("b")
    bench.shelf.put("signs", "2", "/data/v2")
    bench.world.gates["v2"] = asyncio.Event()
    await bench.graph.apply(bench.host.config)
    await until(lambda: bench.node("b").target is not None)
    assert bench.graph.resource("b") is old
    bench.world.gates["v2"].set()
    await until(lambda: bench.states() == {"b": "ready", "user": "ready"} and bench.instance("b") is not old)
    await until(lambda: "-b v1" in bench.world.life)
    assert bench.world.life[2:] == ["+b v2", "-user", "-b v1", "+user"] or bench.world.life[2:] == [
        "+b v2",
        "-user",
        "+user",
        "-b v1",
    ]
    assert bench.instance("user").context.dependencies["b"] is bench.instance("b")
    assert bench.shelf.said == ["loaded signs 1", "loaded signs 2"]


async def test_a_model_version_that_fails_leaves_the_old_one_running(bench: Bench) -> None:
    bench.shelf.put("signs", "1", "/data/v1")
    services = (brain("b", folder="${packages.signs}"),)
    await bench.apply(thing("user", needs=["b"]), services=services)
    old, user = bench.instance("b"), bench.instance("user")
    bench.world.failures["v2"] = ValueError("not a model")
    bench.shelf.put("signs", "2", "/data/v2")
    await bench.apply(thing("user", needs=["b"]), services=services)
    assert bench.instance("b") is old
    assert bench.instance("user") is user
    assert bench.node("b").state is State.UNHEALTHY
    assert bench.node("b").error == "signs 2 could not be loaded, the previous version keeps running: not a model"
    assert bench.shelf.said[-1] == "rejected signs 2: not a model"
    # The source answers with the old version again: nothing is rebuilt, and the state still tells.
    bench.shelf.put(
        "signs", "1", "/data/v1", "package signs 2: it could not be loaded: not a model; version 1 stays in use"
    )
    await bench.apply(thing("user", needs=["b"]), services=services)
    assert bench.instance("b") is old
    assert bench.node("b").error.startswith("package signs 2: it could not be loaded")
    assert bench.shelf.said[-1] == "rejected signs 2: not a model"
    # Somebody asks for the old version: it never stopped running.
    bench.shelf.put("signs", "1", "/data/v1")
    await bench.apply(thing("user", needs=["b"]), services=services)
    assert bench.instance("b") is old
    assert bench.states() == {"b": "ready", "user": "ready"}
    assert bench.shelf.said[-1] == "loaded signs 1"
    # The next good version replaces it.
    bench.shelf.put("signs", "3", "/data/v3")
    await bench.apply(thing("user", needs=["b"]), services=services)
    await until(lambda: bench.states() == {"b": "ready", "user": "ready"})
    assert bench.node("b").error == ""


async def test_a_model_waits_for_its_package_and_keeps_running_while_a_new_one_comes(bench: Bench) -> None:
    services = (brain("b", folder="${packages.signs}"),)
    bench.shelf.put("signs", "1", None, "downloading")
    await bench.apply(services=services)
    assert bench.states() == {"b": "unconfigured"}
    assert bench.node("b").error == "waits for package 'signs': downloading"
    bench.shelf.put("signs", "1", "/data/v1")
    await bench.apply(services=services)
    assert bench.states() == {"b": "ready"}
    bench.shelf.put("signs", "2", None, "downloading")
    await bench.apply(services=services)
    assert bench.states() == {"b": "ready"}
    assert bench.world.life == ["+b v1"]


async def test_changed_attributes_replace_a_model_at_once(bench: Bench) -> None:
    bench.shelf.put("signs", "1", "/data/v1")
    await bench.apply(services=(brain("b", folder="${packages.signs}"),))
    bench.world.failures["v1"] = ValueError("no longer")
    await bench.apply(services=(brain("b", folder="${packages.signs}", width_px=3),))
    assert bench.states() == {"b": "unhealthy"}
    assert bench.instance("b") is None


async def test_closing_during_a_replacement_leaves_nothing_open(bench: Bench) -> None:
    bench.shelf.put("signs", "1", "/data/v1")
    services = (brain("b", folder="${packages.signs}"),)
    await bench.apply(services=services)
    bench.shelf.put("signs", "2", "/data/v2")
    bench.world.gates["v2"] = asyncio.Event()
    await bench.graph.apply(bench.host.config)
    await bench.graph.close()
    assert bench.world.life == ["+b v1", "-b v1"]
    await bench.graph.apply(bench.host.config)
    assert bench.graph.nodes == ()
