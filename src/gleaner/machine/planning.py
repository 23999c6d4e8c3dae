"""From a configuration to what has to be built, in dependency order. Pure: builds nothing, touches no device."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from gleaner.machine.foreign.offers import AnyAttributes, Modules, NoModules, NoRemotes, RemoteResource, Remotes
from gleaner.machine.models.base import Attributes, ListedModel, ModelSpec
from gleaner.machine.names import ResourceKey, find_key, key_of
from gleaner.machine.placeholders import NoPackages, PackageLocation, PackageSource, Resolved, resolve
from gleaner.wire.machine_config import MachineConfig, ResourceConfig, format_path
from gleaner.wire.validation_words import in_words

#: What stands as the model of resources whose model only their own machine knows.
REMOTE_MODEL = "rdk:builtin:remote"


@dataclass(frozen=True)
class Plan:
    """One resource: how to build it, or the `error` that says why that is impossible as configured."""

    key: ResourceKey
    path: str
    """Where it stands in the configuration, e.g. `components[0]`."""
    config: ResourceConfig
    spec: ModelSpec | None = None
    attributes: Attributes | None = None
    dependencies: tuple[ResourceKey, ...] = ()
    optional: tuple[ResourceKey, ...] = ()
    """What it likes to have: it is told when one of them becomes ready, and never waits for it."""
    packages: tuple[PackageLocation, ...] = ()
    error: str = ""
    waits_for: str = ""
    """What must arrive before it can be built, e.g. a package."""
    fallback: str = ""
    """Why it runs with an older package than the configured one."""
    signature: str = field(default="", compare=False)
    """Equal signatures build equal resources; capture settings, frames and log levels are not part of it."""

    def differs_only_in_packages(self, other: Plan) -> bool:
        return (
            bool(self.packages)
            and not (self.error or other.error or self.waits_for or other.waits_for)
            and self.config.model == other.config.model
            and self.config.attributes == other.config.attributes
            and self.dependencies == other.dependencies
        )


@dataclass(frozen=True)
class Surroundings:
    """What can be built here: the models of this process, packages, modules and the resources of remotes."""

    specs: Sequence[ListedModel]
    packages: PackageSource = field(default_factory=NoPackages)
    modules: Modules = field(default_factory=NoModules)
    remotes: Remotes = field(default_factory=NoRemotes)


def plan_resources(config: MachineConfig, around: Surroundings) -> list[Plan]:
    """Every configured resource and those of remotes, dependencies first. Those on a cycle come last, with the cycle as
    their error."""
    groups = (("components", config.components), ("services", config.services))
    places = [(f"{group}[{i}]", resource) for group, resources in groups for i, resource in enumerate(resources)]
    plans = {resource.key: _remote_plan(resource) for resource in around.remotes.resources()}
    keys = [*(key_of(resource) for _path, resource in places), *plans]
    plans |= {key_of(resource): _plan(path, resource, keys, around) for path, resource in places}
    return _in_dependency_order(plans)


def _remote_plan(resource: RemoteResource) -> Plan:
    key = resource.key
    # The names of remotes' resources would not pass the checks of what users write.
    config = ResourceConfig.model_construct(name=key.name, api=key.api, model=REMOTE_MODEL)
    return Plan(
        key,
        f"remotes.{resource.remote}",
        config,
        resource.spec,
        AnyAttributes(),
        error=resource.error,
        signature="" if resource.error else f"remote {resource.remote}",
    )


def _plan(path: str, config: ResourceConfig, keys: Iterable[ResourceKey], around: Surroundings) -> Plan:
    plan = Plan(key_of(config), path, config)
    listed = next((s for s in around.specs if s.api == config.api and config.model in (s.model, *s.aliases)), None)
    try:
        spec = listed.load() if listed is not None else None
    except ImportError as error:
        return replace(plan, error=f"{path}.model: {config.model} is not available on this machine: {error}")
    resolved = resolve(config.attributes, around.packages)
    implicit: Sequence[str] = ()
    optional: Sequence[str] = ()
    if resolved.waits_for:
        return replace(plan, spec=spec, waits_for=resolved.waits_for)
    if spec is None:
        offer = around.modules.offer(config, resolved.attributes)
        if offer is None:
            return replace(plan, error=_unknown_model(path, config, around.specs))
        if offer.spec is None or offer.waits_for or offer.error:
            return replace(plan, spec=offer.spec, waits_for=offer.waits_for, error=offer.error)
        spec, implicit, optional = offer.spec, offer.dependencies, offer.optional
    try:
        attributes = spec.attributes.model_validate(resolved.attributes)
        implicit = [*implicit, *spec.dependencies(attributes)]
    except ValidationError as error:
        return replace(plan, spec=spec, error=_attribute_problems(path, error))
    except (AttributeError, TypeError, ValueError) as error:
        return replace(plan, spec=spec, error=f"{path}.attributes: its dependencies cannot be told: {error}")
    plan = replace(plan, spec=spec, attributes=attributes)
    return _with_dependencies(plan, resolved, implicit, optional, list(keys), around.remotes.problems())


def _with_dependencies(
    plan: Plan,
    resolved: Resolved,
    implicit: Sequence[str],
    optional: Sequence[str],
    known: Sequence[ResourceKey],
    remotes: Mapping[str, str],
) -> Plan:
    found: list[ResourceKey] = []
    for reference in [*implicit, *plan.config.depends_on]:
        key = find_key(reference, known, plan.key)
        if key is None:
            if why := _on_lost_remote(reference, remotes):
                return replace(plan, waits_for=f"depends on {reference!r}: {why}")
            place = f"{plan.path}.attributes" if reference in implicit else f"{plan.path}.depends_on"
            return replace(plan, error=f"{place}: {_unknown_name(reference, known)}")
        if key not in found:
            found.append(key)
    liked = [key for reference in optional if (key := find_key(reference, known, plan.key)) and key not in found]
    content = [plan.config.model, resolved.attributes, [str(key) for key in found], [str(key) for key in liked]]
    return replace(
        plan,
        dependencies=tuple(found),
        optional=tuple(liked),
        packages=tuple(resolved.packages.values()),
        fallback=resolved.fallback,
        signature=json.dumps(content, sort_keys=True, default=str),
    )


def _on_lost_remote(reference: str, remotes: Mapping[str, str]) -> str:
    """Why a resource of a remote is not known yet; empty when it is not on a remote that is away."""
    return remotes.get(reference.rpartition("/")[2].partition(":")[0], "")


def _unknown_model(path: str, config: ResourceConfig, specs: Sequence[ListedModel]) -> str:
    models = sorted(spec.model for spec in specs if spec.api == config.api)
    if not models:
        apis = sorted({spec.api for spec in specs})
        return f"{path}.api: this machine has no models for {config.api}{_suggestion(config.api, apis)}"
    return f"{path}.model: {config.model} is not a model of {config.api}{_suggestion(config.model, models)}"


def _unknown_name(reference: str, keys: Sequence[ResourceKey]) -> str:
    names = sorted({key.name for key in keys})
    hint = _suggestion(reference, names) if names else ""
    return f"depends on {reference!r}, which is not in the configuration{hint}"


def _suggestion(wrong: str, right: Sequence[str]) -> str:
    close = get_close_matches(wrong, right, n=1, cutoff=0.5)
    guess = f". Did you mean {close[0]}?" if close else "."
    return f"{guess} Known: {', '.join(right)}."


def _attribute_problems(path: str, error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        place = format_path((f"{path}.attributes", *problem["loc"]))
        problems.append(f"{place}: {in_words(problem)}")
    return "; ".join(problems)


def _in_dependency_order(plans: Mapping[ResourceKey, Plan]) -> list[Plan]:
    ordered: list[Plan] = []
    done: set[ResourceKey] = set()
    waiting = dict(plans)
    while waiting:
        free = [key for key, plan in waiting.items() if done.issuperset(plan.dependencies)]
        if not free:
            break
        for key in free:
            ordered.append(waiting.pop(key))
            done.add(key)
    for key, plan in waiting.items():
        cycle = _cycle_from(key, waiting)
        error = f"{plan.path}: depends on itself: {' → '.join(str(k) for k in cycle)}" if cycle else plan.error
        ordered.append(replace(plan, error=error))
    return ordered


def _cycle_from(start: ResourceKey, plans: Mapping[ResourceKey, Plan]) -> list[Any]:
    """The way from a resource back to itself, or nothing when it only hangs on a cycle of others."""
    trail: list[ResourceKey] = []
    seen: set[ResourceKey] = set()

    def walk(key: ResourceKey) -> bool:
        trail.append(key)
        for dependency in plans[key].dependencies if key in plans else ():
            if dependency == start:
                trail.append(start)
                return True
            if dependency not in seen:
                seen.add(dependency)
                if walk(dependency):
                    return True
        trail.pop()
        return False

    return trail if walk(start) else []
