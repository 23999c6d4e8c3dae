"""Everything that is wrong with a machine configuration, each with its path and what to do, before it is saved.

A model that the catalogue does not know is let through: it may come from a module, or from a newer machine, and a
machine reports a model it lacks on the resource itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import jsonschema
from pydantic import BaseModel, ValidationError

from gleaner.app.errors import Problem
from gleaner.wire.machine_config import (
    CaptureMethodConfig,
    ConfigProblem,
    PartRetentionPolicy,
    RetentionPolicy,
    format_path,
    parse_config,
)
from gleaner.wire.validation_words import in_words

_PLACEHOLDER = re.compile(r"\$\{(packages|environment)\.[^}]+\}")


def check_config(config: Any) -> list[Problem]:
    """All problems; an empty list means that the configuration may be saved."""
    if not isinstance(config, dict):
        return [Problem("", "a configuration is a JSON object", 'Start from {"components": [], "services": []}.')]
    try:
        parse_config(config)
    except ConfigProblem as error:
        return [Problem(path, message, _hint(path, message)) for path, message in error.problems]
    problems: list[Problem] = []
    if "data_retention_policy" in config:
        problems += _check_model("data_retention_policy", config["data_retention_policy"], PartRetentionPolicy)
    for group in ("components", "services"):
        for index, entry in enumerate(config.get(group) or []):
            problems += _check_resource(f"{group}[{index}]", entry, "service" if group == "services" else "component")
    return problems


@cache
def models() -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """The catalogue of machine models by (api, model triplet)."""
    from gleaner.wire.catalog import load_catalog

    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for entry in load_catalog():
        for name in (entry["model"], *entry.get("aliases", ())):
            found[entry["api"], _triplet(name)] = entry
    return found


def _check_resource(path: str, entry: Mapping[str, Any], kind: str) -> list[Problem]:
    api = entry.get("api") or f"{entry.get('namespace') or 'rdk'}:{kind}:{entry.get('type')}"
    model = models().get((api, _triplet(entry.get("model") or "builtin")))
    problems = _check_capture(path, entry, model)
    if model is None:
        return problems
    schema, attributes = model["attributes"], entry.get("attributes") or {}
    validator = jsonschema.Draft202012Validator(schema)
    for error in sorted(validator.iter_errors(attributes), key=lambda e: [str(p) for p in e.absolute_path]):
        if isinstance(error.instance, str) and _PLACEHOLDER.search(error.instance):
            continue
        problems += _attribute_problems(f"{path}.attributes", schema, error)
    return problems


def _attribute_problems(path: str, schema: Mapping[str, Any], error: Any) -> Iterable[Problem]:
    tail = format_path(tuple(error.absolute_path))
    where = f"{path}{'' if not tail or tail.startswith('[') else '.'}{tail}"
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        for name in sorted(set(error.instance) - set(known)):
            close = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known attributes: {', '.join(known) or 'none'}."
            yield Problem(f"{where}.{name}", "this model has no such attribute", hint)
        return
    if error.validator == "required":
        for name in sorted(set(error.validator_value) - set(error.instance)):
            about = error.schema.get("properties", {}).get(name, {}).get("description", "")
            yield Problem(f"{where}.{name}", "is required", about or f"Add the attribute {name!r}.")
        return
    yield Problem(where, _said(error), error.schema.get("description", "") if isinstance(error.schema, dict) else "")


def _said(error: Any) -> str:
    """jsonschema's text, in the words of someone filling in a form."""
    value, limit = error.instance, error.validator_value
    texts = {
        "type": f"{value!r} is not of type {limit}",
        "minimum": f"{value} is too small: at least {limit}",
        "maximum": f"{value} is too large: at most {limit}",
        "exclusiveMinimum": f"{value} is too small: it must be more than {limit}",
        "exclusiveMaximum": f"{value} is too large: it must be less than {limit}",
        "enum": f"{value!r} is not one of {', '.join(map(str, limit)) if isinstance(limit, list) else limit}",
        "pattern": f"{value!r} does not have the expected form ({limit})",
        "minItems": f"needs at least {limit} entries",
        "minLength": "must not be empty" if limit == 1 else f"needs at least {limit} characters",
    }
    return texts.get(error.validator, str(error.message))


def _check_capture(path: str, entry: Mapping[str, Any], model: Mapping[str, Any] | None) -> list[Problem]:
    problems: list[Problem] = []
    for i, service in enumerate(entry.get("service_configs") or []):
        if str(service.get("type", "")).rsplit(":", 1)[-1] != "data_manager":
            continue
        if "retention_policy" in (attributes := service.get("attributes") or {}):
            where = f"{path}.service_configs[{i}].attributes.retention_policy"
            problems += _check_model(where, attributes["retention_policy"], RetentionPolicy)
        for j, method in enumerate((service.get("attributes") or {}).get("capture_methods") or []):
            where = f"{path}.service_configs[{i}].attributes.capture_methods[{j}]"
            problems += _check_method(where, method, model)
    return problems


def _check_model(where: str, value: Any, model: type[BaseModel]) -> Iterable[Problem]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        for one in error.errors():
            at = format_path(one["loc"])
            yield Problem(f"{where}.{at}" if at else where, in_words(one), 'For example {"days": 30}.')


def _check_method(where: str, method: Any, model: Mapping[str, Any] | None) -> Iterable[Problem]:
    try:
        parsed = CaptureMethodConfig.model_validate(method)
    except ValidationError as error:
        for one in error.errors():
            yield Problem(f"{where}.{format_path(one['loc'])}", in_words(one), "")
        return
    if parsed.capture_frequency_hz < 0:
        yield Problem(f"{where}.capture_frequency_hz", "a frequency cannot be negative", "Use 0 to capture nothing.")
    known = [one["method"] for one in (model or {}).get("capture", [])]
    if known and parsed.method not in known:
        yield Problem(f"{where}.method", f"this model cannot capture {parsed.method!r}", f"It can: {', '.join(known)}.")


def _triplet(model: str) -> str:
    return model if ":" in model else f"rdk:builtin:{model}"


def _hint(path: str, message: str) -> str:
    if message == "is missing":
        return f"Add {path.rsplit('.', 1)[-1]!r} there."
    if message.startswith("must be an object"):
        return "Compare with another entry, or remove this one and add it again with the + button."
    return ""
