"""What is wrong with a value, in the words of who wrote it: Pydantic's own speak of inputs and of Python's types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a number that is finite",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
"""Of Pydantic's error types: what there must be instead."""
_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_LONGEST_SHOWN = 40


def in_words(problem: Mapping[str, Any]) -> str:
    """One of `ValidationError.errors()`, to be read behind its place: "must be at least 1, not 0". What is not known here stays
    as Pydantic says it."""
    kind, context = problem["type"], problem.get("ctx") or {}
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "is not known here: check its spelling, or remove it"
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}{_not(problem)}"
    if kind in _LIMITS:
        words, limit = _LIMITS[kind]
        value = context[limit]
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        return f"must be {words} {value}{_not(problem)}"
    if kind in ("literal_error", "enum"):
        return f"must be {context['expected']}{_not(problem)}"
    return str(problem["msg"]).removeprefix("Value error, ")


def _not(problem: Mapping[str, Any]) -> str:
    """What is there, if it is short enough to be recognized."""
    value = problem.get("input")
    if isinstance(value, bool):
        return f", not {str(value).lower()}"
    shown = repr(value) if isinstance(value, str | int | float) else ""
    return f", not {shown}" if 0 < len(shown) <= _LONGEST_SHOWN else ""
