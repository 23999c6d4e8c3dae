"""What the sync process is told, over its standard input: a secret must not be visible in a process list."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from gleaner.machine.capture.at_rest import Keyring


@dataclass(frozen=True)
class SyncSettings:
    capture_dir: str
    part_id: str
    secret: str = field(repr=False)
    web_address: str
    """`http(s)://host:port` of the app."""
    ca_certificate: str = ""
    """PEM of the only authority to trust; empty: the system's."""
    additional_sync_paths: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    """Put on arbitrary files; captures carry theirs in the file."""
    settle_ms: int = 10_000
    """An arbitrary file is sent when it has not changed for so long."""
    bandwidth_limit: int = 0
    """Bytes a second on the line, all sync together; 0: no limit."""

    key_id: str = ""
    key: str = field(default="", repr=False)
    """An API key, for a machine that has no secret."""
    held: bool = False
    """Nothing is sent but what somebody asks for, until the machine says otherwise."""
    capture_keys: tuple[str, ...] = field(default=(), repr=False)
    """In hexadecimal: captures that are encrypted on the disk are sent in plain, inside TLS."""

    @property
    def credentials(self) -> dict[str, str]:
        """As the app's HTTP door takes them."""
        if self.secret:
            return {"part_id": self.part_id, "secret": self.secret}
        return {"part_id": self.part_id, "key_id": self.key_id, "key": self.key}

    @property
    def keyring(self) -> Keyring:
        return Keyring(tuple(bytes.fromhex(key) for key in self.capture_keys))

    @property
    def root(self) -> Path:
        return Path(self.capture_dir)

    @property
    def url(self) -> str:
        scheme, _, rest = self.web_address.rstrip("/").partition("://")
        return f"{'wss' if scheme == 'https' else 'ws'}://{rest}/api/sync"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SyncSettings:
        known = {f.name: value[f.name] for f in fields(cls) if f.name in value}
        for name in ("additional_sync_paths", "tags", "capture_keys"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)


def line(kind: str, **values: Any) -> bytes:
    """One message of the control pipe, either direction: a JSON object on a line of its own."""
    return json.dumps({"type": kind, **values}, separators=(",", ":")).encode() + b"\n"
