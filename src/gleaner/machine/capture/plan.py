"""From a machine's configuration to the collectors it asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from gleaner.machine.capture.collector import QUEUE_SIZE, CollectorSettings, combined_tags
from gleaner.machine.capture.directory import collector_path
from gleaner.machine.capture.errors import CaptureError
from gleaner.machine.capture.methods import find_method
from gleaner.machine.capture.schedule import FASTEST_HZ, SLOWEST_HZ
from gleaner.wire.machine_config import CaptureMethodConfig, MachineConfig
from gleaner.wire.validation_words import in_words


@dataclass(frozen=True)
class Plan:
    collectors: tuple[CollectorSettings, ...]
    problems: dict[str, str]
    """Why something that was asked for is not captured, by collector directory."""


def make_plan(config: MachineConfig, service_tags: Sequence[str], rotate_bytes: int) -> Plan:
    """Collectors of all components, services and remotes; a wrong one is a problem, the others stay."""
    collectors: dict[str, CollectorSettings] = {}
    problems: dict[str, str] = {}
    for source, method in _sources(config, problems):
        if method.disabled:
            continue
        settings = _settings(source, method, service_tags, rotate_bytes)
        if source.lookup and settings.directory in collectors:
            # Two machines have a resource of that name: the remote's files say whose they are.
            settings = replace(settings, resource=source.lookup)
        problem = _problem(settings)
        if problem:
            problems[settings.directory] = problem
        elif settings.directory in collectors:
            problems[settings.directory] = f"{method.method} of {settings.resource} is configured twice: remove one"
        else:
            collectors[settings.directory] = settings
    return Plan(tuple(collectors.values()), problems)


@dataclass(frozen=True)
class _Source:
    """A resource that is captured; `lookup` is its name in this machine where that is not `name`."""

    api: str
    name: str
    lookup: str = ""


def _sources(config: MachineConfig, problems: dict[str, str]) -> Iterator[tuple[_Source, CaptureMethodConfig]]:
    for resource in config.resources():
        try:
            for method in resource.capture_methods():
                yield _Source(resource.api, resource.name), method
        except (ValidationError, TypeError) as error:
            problems[collector_path(resource.api, resource.name, "capture_methods")] = _first_problem(error)
    for remote in config.remotes:
        try:
            for method in remote.capture_methods():
                if source := _remote_source(remote.name, method.name):
                    yield source, method
                else:
                    problems[collector_path("remote", remote.name, method.method)] = (
                        f"name {method.name!r} is no full resource name: write it like "
                        f"rdk:component:camera/{remote.name}:cam"
                    )
        except (ValidationError, TypeError) as error:
            problems[collector_path("remote", remote.name, "capture_methods")] = _first_problem(error)


def _remote_source(remote: str, full_name: str) -> _Source | None:
    """Captures of a remote's resource carry its own short name, and the part id of this machine."""
    api, slash, name = full_name.partition("/")
    if not slash or api.count(":") != 2 or not name:
        return None
    lookup = name if name.startswith(f"{remote}:") else f"{remote}:{name}"
    return _Source(api, name.rpartition(":")[2], lookup)


def _settings(
    source: _Source, method: CaptureMethodConfig, service_tags: Sequence[str], rotate_bytes: int
) -> CollectorSettings:
    return CollectorSettings(
        api=source.api,
        resource=source.name,
        lookup=source.lookup,
        method=method.method,
        frequency_hz=method.capture_frequency_hz,
        params=method.additional_params,
        tags=combined_tags(service_tags, method.tags),
        queue_size=method.capture_queue_size or QUEUE_SIZE,
        rotate_bytes=rotate_bytes,
    )


def _problem(settings: CollectorSettings) -> str:
    if settings.frequency_hz < SLOWEST_HZ:
        return f"capture_frequency_hz is {settings.frequency_hz:g}: nothing is captured. Set it above 0, e.g. 1"
    if not settings.frequency_hz <= FASTEST_HZ:
        return f"capture_frequency_hz is {settings.frequency_hz:g}: it can be {FASTEST_HZ:g} at most"
    try:
        find_method(settings.api, settings.method).check(settings.api, settings.params)
    except CaptureError as error:
        return str(error)
    return ""


def _first_problem(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return "capture_methods must be a list of objects with method and capture_frequency_hz"
    first = error.errors()[0]
    return f"capture_methods cannot be used: {'.'.join(str(p) for p in first['loc'])}: {in_words(first)}"
