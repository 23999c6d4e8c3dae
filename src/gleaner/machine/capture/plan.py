"""From a machine's configuration to the collectors it asks for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from gleaner.machine.capture.collector import CollectorSettings, combined_tags
from gleaner.machine.capture.directory import collector_path
from gleaner.machine.capture.errors import CaptureError
from gleaner.machine.capture.methods import find_method
from gleaner.machine.capture.schedule import SLOWEST_HZ
from gleaner.wire.machine_config import CaptureMethodConfig, MachineConfig, ResourceConfig


@dataclass(frozen=True)
class Plan:
    collectors: tuple[CollectorSettings, ...]
    problems: dict[str, str]
    """Why something that was asked for is not captured, by collector directory."""


def make_plan(config: MachineConfig, service_tags: Sequence[str], rotate_bytes: int) -> Plan:
    """Collectors of all components and services; a wrong one is a problem, the others stay."""
    collectors: dict[str, CollectorSettings] = {}
    problems: dict[str, str] = {}
    for resource in config.resources():
        try:
            methods = resource.capture_methods()
        except (ValidationError, TypeError) as error:
            problems[collector_path(resource.api, resource.name, "capture_methods")] = _first_problem(error)
            continue
        for method in methods:
            if method.disabled:
                continue
            settings = _settings(resource, method, service_tags, rotate_bytes)
            problem = _problem(settings)
            if problem:
                problems[settings.directory] = problem
            elif settings.directory in collectors:
                problems[settings.directory] = f"{method.method} of {resource.name} is configured twice: remove one"
            else:
                collectors[settings.directory] = settings
    return Plan(tuple(collectors.values()), problems)


def _settings(
    resource: ResourceConfig, method: CaptureMethodConfig, service_tags: Sequence[str], rotate_bytes: int
) -> CollectorSettings:
    return CollectorSettings(
        api=resource.api,
        resource=resource.name,
        method=method.method,
        frequency_hz=method.capture_frequency_hz,
        params=method.additional_params,
        tags=combined_tags(service_tags, method.tags),
        queue_size=method.capture_queue_size,
        rotate_bytes=rotate_bytes,
    )


def _problem(settings: CollectorSettings) -> str:
    if settings.frequency_hz < SLOWEST_HZ:
        return f"capture_frequency_hz is {settings.frequency_hz:g}: nothing is captured. Set it above 0, e.g. 1"
    try:
        find_method(settings.api, settings.method).check(settings.api, settings.params)
    except CaptureError as error:
        return str(error)
    return ""


def _first_problem(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return "capture_methods must be a list of objects with method and capture_frequency_hz"
    first = error.errors()[0]
    return f"capture_methods cannot be used: {'.'.join(str(p) for p in first['loc'])}: {first['msg']}"
