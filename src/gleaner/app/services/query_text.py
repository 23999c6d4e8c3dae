"""A pipeline of Mongo's as people type it (JSON) and as clients send it (BSON). Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import bson

from gleaner.app.errors import InvalidInput
from gleaner.app.lake import mql

_EXAMPLE = 'Write a list of stages, for example [{"$match": {"component_name": "oven"}}, {"$limit": 10}].'
_MOST_BYTES = 256 << 10


def stages_of_text(text: str) -> tuple[bytes, ...]:
    """The stages of `[{…}, …]`; a time is written `{"$date": "2026-03-04T05:00:00Z"}`. Raises InvalidInput."""
    try:
        stages = json.loads(text, object_hook=_with_date)
    except (ValueError, RecursionError) as err:
        where = f" in line {err.lineno}, column {err.colno}" if isinstance(err, json.JSONDecodeError) else ""
        what = err.msg if isinstance(err, json.JSONDecodeError) else str(err)
        raise InvalidInput(f"The pipeline is not JSON: {what}{where}", _EXAMPLE) from err
    if isinstance(stages, dict):
        stages = [stages]
    if not isinstance(stages, list) or not all(isinstance(one, dict) for one in stages):
        raise InvalidInput("The pipeline is not a list of stages", _EXAMPLE)
    try:
        return tuple(bson.encode(one) for one in stages)
    except (bson.errors.InvalidDocument, OverflowError, RecursionError) as err:
        raise InvalidInput(f"The pipeline holds what BSON cannot say: {err}", "Use numbers below 2^63.") from err


def text_of_stages(stages: Iterable[bytes]) -> str:
    """As somebody would type it; `stages_of_text` reads it back."""
    return json.dumps([bson.decode(one) for one in stages], indent=2, ensure_ascii=False, default=_as_json)


def checked_stages(stages: Sequence[bytes]) -> tuple[bytes, ...]:
    """Raises InvalidInput for what is not BSON, is too large, or has a stage that cannot be run here."""
    if not stages:
        raise InvalidInput("The pipeline has no stages", _EXAMPLE)
    if sum(map(len, stages)) > _MOST_BYTES:
        raise InvalidInput(f"The pipeline has more than {_MOST_BYTES >> 10} KB", "Write a shorter one.")
    mql.checked(decoded(stages))
    return tuple(stages)


def decoded(stages: Iterable[bytes]) -> list[dict[str, Any]]:
    try:
        return [dict(bson.decode(one)) for one in stages]
    except bson.errors.InvalidBSON as err:
        raise InvalidInput(f"A stage is not BSON: {err}", "Encode each stage as one BSON document.") from err


def split(stored: bytes) -> tuple[bytes, ...]:
    """BSON documents that lie one behind the other: each begins with its length."""
    found = []
    at = 0
    while at < len(stored):
        size = int.from_bytes(stored[at : at + 4], "little")
        found.append(stored[at : at + size])
        at += size
    return tuple(found)


def _with_date(given: dict[str, Any]) -> Any:
    if set(given) != {"$date"}:
        return given
    try:
        moment = datetime.fromisoformat(given["$date"])
    except (TypeError, ValueError) as err:
        raise ValueError(f"{given['$date']!r} is no time like 2026-03-04T05:00:00Z") from err
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _as_json(given: Any) -> Any:
    if isinstance(given, datetime):  # BSON's times are UTC and come without saying so
        moment = given if given.tzinfo else given.replace(tzinfo=UTC)
        return {"$date": moment.isoformat().replace("+00:00", "Z")}
    return str(given)
