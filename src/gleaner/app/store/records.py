"""What the store knows about one upload besides its bytes: written into the pack's header and into the index."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gleaner.app.services.fleet_values import Place
from gleaner.app.store.payload import Payload

READINGS_AS_SENT = "application/vnd.gleaner.readings"
"""MIME type of a batch that holds a capture file's records as they came. Its key says what its bytes are."""


@dataclass(frozen=True)
class Box:
    """Normalized: 0–1, x to the right, y down. Confidence is None for a box a person drew."""

    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    confidence: float | None = None


@dataclass(frozen=True)
class Classification:
    label: str
    confidence: float | None = None


@dataclass(frozen=True)
class ReadingsSummary:
    """What the index keeps of a batch of readings; `latest` is the newest reading's data as JSON text."""

    count: int
    first_ns: int
    last_ns: int
    latest: str


@dataclass(frozen=True)
class RecordInfo:
    """`readings` is set for a batch of readings and None for an item."""

    place: Place
    idempotency_key: bytes
    digest: bytes
    size: int
    component_type: str = ""
    component_name: str = ""
    method: str = ""
    mime_type: str = ""
    kind: str = ""
    file_name: str = ""
    file_ext: str = ""
    captured_ns: int = 0
    received_ns: int = 0
    synced_ns: int = 0
    width: int = 0
    height: int = 0
    tags: tuple[str, ...] = ()
    dataset_ids: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    classifications: tuple[Classification, ...] = ()
    method_parameters: dict[str, Any] = field(default_factory=dict)
    readings: ReadingsSummary | None = None

    @property
    def file_id(self) -> str:
        """Follows from the idempotency key, so that a rebuilt index gives every item its old name."""
        return file_id_of(self.idempotency_key)

    def header(self) -> dict[str, Any]:
        values: dict[str, Any] = {"record": "readings" if self.readings else "item"}
        for name, value in vars(self).items():
            if value or value == 0:
                values[name] = value
        # By hand: asdict copies everything deeply, which took longer than encrypting the picture.
        values["place"] = dict(vars(self.place))
        values["idempotency_key"] = self.idempotency_key.hex()
        values["digest"] = self.digest.hex()
        for name in ("boxes", "classifications"):
            if name in values:
                values[name] = [dict(vars(one)) for one in values[name]]
        if self.readings is not None:
            values["readings"] = dict(vars(self.readings))
        return values

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> RecordInfo:
        values = {name: value for name, value in header.items() if name != "record"}
        values["place"] = Place(**values["place"])
        values["idempotency_key"] = bytes.fromhex(values["idempotency_key"])
        values["digest"] = bytes.fromhex(values["digest"])
        values["tags"] = tuple(values.get("tags", ()))
        values["dataset_ids"] = tuple(values.get("dataset_ids", ()))
        values["boxes"] = tuple(Box(**box) for box in values.get("boxes", ()))
        values["classifications"] = tuple(Classification(**one) for one in values.get("classifications", ()))
        if values.get("readings"):
            values["readings"] = ReadingsSummary(**values["readings"])
        return cls(**values)

    def having(self, **changes: Any) -> RecordInfo:
        # By hand: `replace` sets 23 fields one by one, for each picture of a rush.
        made = object.__new__(RecordInfo)
        vars(made).update(vars(self), **changes)
        return made


@dataclass(frozen=True)
class Upload:
    """One thing to store exactly once. With `revive`, one that was deleted comes back instead of counting as a duplicate."""

    info: RecordInfo
    payload: Payload
    revive: bool = False


def file_id_of(idempotency_key: bytes) -> str:
    return hashlib.blake2b(idempotency_key, digest_size=16, person=b"gleaner file id").hexdigest()


def derived_key(*parts: str | bytes | int) -> bytes:
    """An idempotency key from what makes an upload itself; parts are length-prefixed, so they cannot run together."""
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(4, "little") + data)
    return digest.digest()


def clean_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Without blanks, empty ones and repetitions, in their order."""
    return tuple(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
