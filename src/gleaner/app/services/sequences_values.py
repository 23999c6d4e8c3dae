"""A sequence: a stretch of time of some resources of one part. What is one, and the file machines write for it."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gleaner.app.errors import InvalidInput
from gleaner.app.services.items_values import ItemFilter
from gleaner.app.store.records import clean_tags, derived_key

MOST_FILE_BYTES = 1 << 20
"""Of a `.seq`: room for thousands of resources."""
_LONGEST_TAG = 200
_MOST_NS = 2**63 - 1
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")
_HINT_FILE = "It stays on the machine; look at it there."


@dataclass(frozen=True)
class SequenceDraft:
    """What a sequence covers. `resources` are (resource name, method); both ends of the time belong to it."""

    resources: tuple[tuple[str, str], ...]
    tags: tuple[str, ...]
    start_ns: int
    end_ns: int

    def id_in(self, part_id: str) -> str:
        """Follows from what it covers: Viam's machines send no key, and must be able to send it again."""
        what = json.dumps([sorted(self.resources), sorted(self.tags)])
        key = derived_key("sequence", part_id, self.start_ns, self.end_ns, what)
        return str(uuid.UUID(bytes=key[:16]))


@dataclass(frozen=True)
class CapturedSequence:
    """One as it is stored. The places are those of the part when it came."""

    id: str
    organization_id: str
    location_id: str
    machine_id: str
    part_id: str
    covers: SequenceDraft
    created_ns: int
    updated_ns: int
    dataset_ids: tuple[str, ...] = ()

    def item_filter(self) -> ItemFilter:
        """What belongs to it."""
        return ItemFilter(
            organization_ids=(self.organization_id,),
            part_ids=(self.part_id,),
            resources=self.covers.resources,
            start_ns=self.covers.start_ns,
            end_ns=self.covers.end_ns + 1,
        )


@dataclass(frozen=True)
class SequencePage:
    """`next_token` is empty when there is no more."""

    sequences: list[CapturedSequence]
    next_token: str


def checked(
    resources: Iterable[tuple[str, str]], tags: Sequence[str], start_ns: int | None, end_ns: int | None
) -> SequenceDraft:
    """Raises InvalidInput."""
    named = tuple(dict.fromkeys(resources))
    if not named:
        raise InvalidInput("A sequence needs at least one resource", "Send resource_name and method_name.")
    for name, method in named:
        if not name or not method:
            raise InvalidInput("A resource of the sequence has no name or no method", "Send both of each resource.")
    if not start_ns or not end_ns or not 0 < start_ns <= _MOST_NS or not 0 < end_ns <= _MOST_NS:
        raise InvalidInput("A sequence needs a start and an end", "Send start_time and end_time.")
    if end_ns < start_ns:
        raise InvalidInput("The sequence ends before it starts", "Exchange start_time and end_time.")
    cleaned = clean_tags(tags)
    for tag in cleaned:
        if len(tag) > _LONGEST_TAG or any(ord(c) < 32 for c in tag):
            raise InvalidInput(f"{tag[:40]!r} is no tag", f"Use up to {_LONGEST_TAG} letters, digits, _ and -.")
    return SequenceDraft(named, cleaned, start_ns, end_ns)


def read_file(data: bytes) -> SequenceDraft:
    """A `.seq` as Viam's server or ours has written it. Raises InvalidInput."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise InvalidInput(f"The sequence is not JSON: {err}", _HINT_FILE) from err
    if not isinstance(content, dict):
        raise InvalidInput("The sequence is not a JSON object", _HINT_FILE)
    resources, tags = content.get("resources"), content.get("sequence_tags") or []
    if not isinstance(resources, list) or not all(isinstance(one, dict) for one in resources):
        raise InvalidInput("The sequence's resources are no list of objects", _HINT_FILE)
    named = [(one.get("resource_name"), one.get("method_name")) for one in resources]
    if not all(isinstance(text, str) for pair in named for text in pair):
        raise InvalidInput("A resource of the sequence has no name or no method", _HINT_FILE)
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidInput("sequence_tags is no list of texts", _HINT_FILE)
    return checked(named, tags, _time_ns(content, "start_time"), _time_ns(content, "end_time"))


def _time_ns(content: dict[str, Any], key: str) -> int:
    """RFC 3339 to the nanosecond, which Go writes and Python's datetime does not hold."""
    text = content.get(key)
    match = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidInput(f"The sequence's {key} is {text!r}, not a time", _HINT_FILE)
    day, clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError as err:
        raise InvalidInput(f"The sequence's {key} is {text!r}, not a time", _HINT_FILE) from err
    since = moment - datetime.fromtimestamp(0, UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
