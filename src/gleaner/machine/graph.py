"""The resources of a running machine, kept equal to its configuration.

Invariants: a resource is built only after its dependencies and closed before them; one that fails never stops another
and is tried again; a resource whose plan and dependency instances did not change is not touched. All state changes
happen on the event loop; tearing down holds `_lock`, building runs in one task per resource.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from viam.resource.base import ResourceBase

from gleaner.machine.foreign.offers import Modules, NoModules, NoRemotes, Remotes
from gleaner.machine.models.base import BuildContext, Host, ListedModel, NeedsRebuild
from gleaner.machine.names import ResourceKey
from gleaner.machine.node import Node, State, resource_logger
from gleaner.machine.notifier import ChangeNotifier
from gleaner.machine.placeholders import NoPackages, PackageSource
from gleaner.machine.planning import Plan, Surroundings, plan_resources
from gleaner.wire.machine_config import MachineConfig

_LOG = logging.getLogger(__name__)

# Source: Viam's documented limits for building and removing one resource, and its retry interval.
BUILD_TIMEOUT_S = 120.0
CLOSE_TIMEOUT_S = 20.0
RETRY_S = 5.0

#: Services that hold no device: a new version is built beside the running one and takes over when it works.
_REPLACED_IN_PLACE = frozenset({"mlmodel"})


class ResourceGraph:
    """`apply` a configuration; read `nodes`; `close` when the machine stops."""

    def __init__(
        self,
        host: Host,
        specs: Sequence[ListedModel],
        packages: PackageSource | None = None,
        *,
        modules: Modules | None = None,
        remotes: Remotes | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        self._host = host
        self._packages = packages or NoPackages()
        self._around = Surroundings(specs, self._packages, modules or NoModules(), remotes or NoRemotes())
        self._retry_s = retry_s
        self._nodes: dict[ResourceKey, Node] = {}
        self._lock = asyncio.Lock()
        self._closed = False
        self._timers: set[asyncio.TimerHandle] = set()
        self._notifier = ChangeNotifier(
            host, lambda: [n.instance for n in self._nodes.values() if n.instance is not None]
        )

    @property
    def nodes(self) -> Sequence[Node]:
        """In dependency order."""
        return tuple(self._nodes.values())

    def on_change(self, callback: Callable[[], None]) -> None:
        """Called on the event loop whenever a state changes."""
        self._notifier.callbacks.append(callback)

    def resource(self, name: str, subtype: str = "") -> ResourceBase | None:
        found = [
            node
            for node in self._nodes.values()
            if node.instance is not None
            and subtype in ("", node.key.subtype)
            and name in (node.key.name, node.key.local_name)
        ]
        exact = [node for node in found if node.key.name == name]
        # What only one remote has can be named without the remote.
        if exact or len({node.key.name for node in found}) == 1:
            return (exact or found)[0].instance
        return None

    async def apply(self, config: MachineConfig) -> None:
        """Make the resources follow the configuration. Returns when obsolete ones are closed; building goes on."""
        async with self._lock:
            if self._closed:
                return
            plans = plan_resources(config, self._around)
            await self._tear_down(self._obsolete({plan.key: plan for plan in plans}))
            old = self._nodes
            self._nodes = {plan.key: self._adopt(old.get(plan.key), plan) for plan in plans}
            for node in self._nodes.values():
                _set_log_level(node)
            self._reconcile()
            self._notifier.changed()

    async def settle(self) -> None:
        """Wait until nothing is being built or replaced."""
        while tasks := [node.build for node in self._nodes.values() if node.build is not None]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Close every resource, dependents first."""
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await self._notifier.stop()
        async with self._lock:
            await self._tear_down(set(self._nodes))
            self._nodes = {}

    # -- planning -----------------------------------------------------------------------------------------------

    def _obsolete(self, plans: dict[ResourceKey, Plan]) -> set[ResourceKey]:
        """Keys of instances (or builds) that cannot stay: removed, changed, or depending on one that cannot stay."""
        gone: set[ResourceKey] = set()
        for key, node in self._nodes.items():  # dependency order: a dependency is decided before its dependents
            plan = plans.get(key)
            # Another spec for the same model: its module or remote has been started or connected anew.
            changed = plan is None or plan.signature != node.plan.signature or plan.spec is not node.plan.spec
            if changed and plan is not None and self._is_replaceable(node, plan):
                changed = False
            if changed or gone.intersection(node.plan.dependencies):
                gone.add(key)
        return gone

    @staticmethod
    def _is_replaceable(node: Node, plan: Plan) -> bool:
        """A package that is on its way, or a new version of one, never takes down a model that runs; and a module changes
        its resources itself, as long as its program runs."""
        if node.instance is None:
            return False
        if plan.spec is not None and plan.spec.reconfigure is not None:
            same_resource = plan.spec is node.plan.spec and plan.config.model == node.plan.config.model
            same_needs = bool(plan.waits_for) or plan.dependencies == node.plan.dependencies
            return same_resource and same_needs and not plan.error
        if node.key.subtype not in _REPLACED_IN_PLACE:
            return False
        if plan.waits_for:
            return plan.config.attributes == node.plan.config.attributes
        return node.plan.differs_only_in_packages(plan)

    def _adopt(self, node: Node | None, plan: Plan) -> Node:
        """The node of a plan; called after tear-down, so a node that still has an instance or a build keeps it."""
        if node is None:
            return Node(plan)
        node.retry_at = 0.0
        if node.instance is not None and plan.signature != node.plan.signature:
            if not plan.waits_for:
                self._start_replacement(node, plan)
            return node
        if node.instance is not None:
            if node.target is not None and node.target.signature != plan.signature:
                self._cancel_replacement(node)
            node.become(State.UNHEALTHY if plan.fallback else State.READY, plan.fallback)
            if not plan.fallback:  # it may be back at a version that never stopped running
                self._report_loaded(plan)
        node.plan = plan
        return node

    # -- building -----------------------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        """Start every build that can start, and say of every other resource what it waits for."""
        if self._closed:
            return
        now = asyncio.get_running_loop().time()
        for node in self._nodes.values():
            if node.instance is not None or node.build is not None:
                continue
            if reason := self._why_not_buildable(node):
                state = State.UNHEALTHY if node.plan.error else State.UNCONFIGURED
                if node.become(state, reason) and state is State.UNHEALTHY:
                    node.log.error("%s", reason)
            elif now >= node.retry_at:
                if node.state is not State.UNHEALTHY:  # what failed stays so, with its reason, until a retry works
                    node.become(State.CONFIGURING, node.error)
                node.build = asyncio.create_task(self._build(node), name=f"build {node.key}")

    def _why_not_buildable(self, node: Node) -> str:
        if node.plan.error or node.plan.waits_for:
            return node.plan.error or node.plan.waits_for
        for key in node.plan.dependencies:
            dependency = self._nodes[key]
            if dependency.instance is None:
                reason = f": {dependency.error}" if dependency.error else ""
                return f"depends on {key.subtype} {key.name!r}, which is not ready{reason}"
        return ""

    async def _build(self, node: Node) -> None:
        plan = node.plan
        try:
            instance = await self._construct(plan)
        except Exception as error:  # noqa: BLE001 - the top of this task: a model may raise anything, and it becomes its state
            node.build = None
            self._failed(node, plan, _describe(error), error)
            return
        node.build = None
        node.instance, node.revision = instance, self._host.config.revision
        node.become(State.UNHEALTHY if plan.fallback else State.READY, plan.fallback)
        node.log.info("%s is ready", plan.key)
        self._report_loaded(plan)
        self._reconcile()
        for other in self._nodes.values():
            if (
                plan.key in other.plan.optional
                and other.plan.spec is not None
                and other.plan.spec.reconfigure is not None
            ):
                self._start_replacement(other, other.plan)
        self._notifier.changed()

    async def _construct(self, plan: Plan) -> ResourceBase:
        assert plan.spec is not None
        context = self._context(plan)
        async with asyncio.timeout(BUILD_TIMEOUT_S):
            instance = await plan.spec.build(context)
        instance.logger = context.log  # viam-sdk's own loggers print to stdout by themselves
        return instance

    def _context(self, plan: Plan) -> BuildContext:
        ready = {
            key: instance
            for key in reversed((*plan.dependencies, *plan.optional))
            if (instance := self._nodes[key].instance) is not None
        }
        by_name = {key.local_name: instance for key, instance in ready.items()}
        by_name |= {key.name: instance for key, instance in ready.items()}
        names = tuple(str(key) for key in ready)
        log = resource_logger(plan.key)
        return BuildContext(plan.key.name, plan.attributes, by_name, self._host, log, plan.config, names)

    def _failed(self, node: Node, plan: Plan, reason: str, error: BaseException) -> None:
        if isinstance(error, TimeoutError) and not str(error):
            reason = f"took longer than {BUILD_TIMEOUT_S:.0f} s to start"
        if node.become(State.UNHEALTHY, reason) or _LOG.isEnabledFor(logging.DEBUG):
            node.log.error("%s could not start and is retried: %s", plan.key, reason)
        _LOG.debug("build of %s failed", plan.key, exc_info=error)
        loop = asyncio.get_running_loop()
        node.retry_at = loop.time() + self._retry_s
        self._later(self._retry_s, lambda: self._retry(node))
        for package in plan.packages:
            self._packages.rejected(package.name, package.version, reason)
        self._reconcile()
        self._notifier.changed()

    def _retry(self, node: Node) -> None:
        node.retry_at = 0.0
        self._reconcile()

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(handle)
            action()

        if not self._closed:
            handle = asyncio.get_running_loop().call_later(delay_s, run)
            self._timers.add(handle)

    def _report_loaded(self, plan: Plan) -> None:
        for package in plan.packages:
            self._packages.loaded(package.name, package.version)

    # -- replacing without a gap --------------------------------------------------------------------------------

    def _start_replacement(self, node: Node, plan: Plan) -> None:
        if node.instance is None or (node.target is not None and node.target.signature == plan.signature):
            return
        self._cancel_replacement(node)
        node.target = plan
        in_place = plan.spec is not None and plan.spec.reconfigure is not None
        work = self._reconfigure(node, plan) if in_place else self._replace(node, plan)
        node.build = asyncio.create_task(work, name=f"replace {node.key}")

    @staticmethod
    def _cancel_replacement(node: Node) -> None:
        if node.target is not None and node.build is not None:
            node.build.cancel()
            node.build = None
        node.target = None

    async def _replace(self, node: Node, plan: Plan) -> None:
        versions = ", ".join(f"{p.name} {p.version}" for p in plan.packages)
        try:
            instance = await self._construct(plan)
        except Exception as error:  # noqa: BLE001 - the top of this task, as in _build
            reason = _describe(error)
            node.build, node.target = None, None
            node.become(
                State.UNHEALTHY, f"{versions} could not be loaded, the previous version keeps running: {reason}"
            )
            node.log.error("%s", node.error)
            for package in plan.packages:
                self._packages.rejected(package.name, package.version, reason)
            self._notifier.changed()
            return
        try:
            await self._lock.acquire()
        except asyncio.CancelledError:
            await _close(node.key, instance)
            raise
        try:
            if node.target is not plan or self._closed:
                await _close(node.key, instance)
                return
            await self._tear_down(self._dependents(node.key))
            previous, node.instance = node.instance, instance
            node.plan, node.target, node.build = plan, None, None
            node.revision = self._host.config.revision
            node.become(State.READY)
            node.log.info("%s now runs %s", node.key, versions)
            self._report_loaded(plan)
            self._reconcile()
            self._notifier.changed()
            if previous is not None:
                await _close(node.key, previous)
        finally:
            self._lock.release()

    async def _reconfigure(self, node: Node, plan: Plan) -> None:
        """The resource itself takes the new attributes, so what depends on it is not disturbed."""
        assert plan.spec is not None
        assert plan.spec.reconfigure is not None
        try:
            async with asyncio.timeout(BUILD_TIMEOUT_S):
                await plan.spec.reconfigure(node.instance, self._context(plan))
        except Exception as error:  # noqa: BLE001 - the top of this task, as in _build
            async with self._lock:
                if node.target is not plan or self._closed:
                    return
                await self._tear_down({node.key, *self._dependents(node.key)})
                node.plan = plan
                if isinstance(error, NeedsRebuild):
                    self._reconcile()
                else:
                    self._failed(node, plan, _describe(error), error)
            return
        if node.target is plan:
            node.plan, node.target, node.build = plan, None, None
            node.revision = self._host.config.revision
            node.become(State.READY)
            node.log.info("%s took its new configuration", node.key)
            self._reconcile()
            self._notifier.changed()

    def _dependents(self, key: ResourceKey) -> set[ResourceKey]:
        found = {key}
        for other, node in self._nodes.items():
            if found.intersection(node.plan.dependencies):
                found.add(other)
        return found - {key}

    # -- tearing down -------------------------------------------------------------------------------------------

    async def _tear_down(self, keys: Iterable[ResourceKey]) -> None:
        """Stop builds and close instances, dependents before what they depend on."""
        chosen = set(keys)
        for key in reversed(list(self._nodes)):
            if key not in chosen:
                continue
            node = self._nodes[key]
            build, node.build, node.target = node.build, None, None
            if build is not None and build is not asyncio.current_task():
                build.cancel()
                await asyncio.wait([build], timeout=CLOSE_TIMEOUT_S)
            instance, node.instance = node.instance, None
            if instance is not None:
                node.become(State.REMOVING)
                await _close(key, instance)
            node.become(State.UNCONFIGURED)


def _describe(error: BaseException) -> str:
    """The message of an error; its type too when there is no message, or when the message alone says nothing."""
    text = str(getattr(error, "message", "") or error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()


async def _close(key: ResourceKey, instance: Any) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await instance.close()
    except TimeoutError:
        resource_logger(key).error("%s did not close within %.0f s and was left behind", key, CLOSE_TIMEOUT_S)
    except Exception:  # noqa: BLE001 - a model may raise anything here; the machine goes on without it
        resource_logger(key).exception("%s failed while closing", key)


def _set_log_level(node: Node) -> None:
    level = str((node.plan.config.log_configuration or {}).get("level", "")).upper()
    names = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}
    node.log.setLevel(names.get(level, logging.NOTSET))
