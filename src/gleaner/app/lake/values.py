"""What DuckDB answers as values of a BSON document."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import uuid
from collections.abc import Callable
from typing import Any

_LARGEST_INT = 2**63

Convert = Callable[[Any], Any]


def converter(type_: Any) -> Convert:
    """For values of a DuckDB type (of a cursor's description)."""
    if str(type_) == "JSON":
        return lambda value: None if value is None else json.loads(value)
    if "JSON" in str(type_) and type_.id in ("list", "array"):
        inner = converter(dict(type_.children)["child"])
        return lambda value: None if value is None else [inner(one) for one in value]
    if "JSON" in str(type_) and type_.id == "struct":
        fields = {name: converter(child) for name, child in type_.children}
        return lambda value: None if value is None else {name: fields[name](one) for name, one in value.items()}
    return plain


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -_LARGEST_INT <= value < _LARGEST_INT else float(value)
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, dt.datetime):
        return value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    if isinstance(value, (dt.time, uuid.UUID)):
        return str(value)
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    return value


def with_plain_keys(value: Any) -> Any:
    """With a visible sign for each zero byte in a key."""
    if isinstance(value, dict):
        return {key.replace("\0", "\u2400"): with_plain_keys(one) for key, one in value.items()}
    return [with_plain_keys(one) for one in value] if isinstance(value, list) else value
