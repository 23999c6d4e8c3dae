"""The systemd unit that keeps a machine running: pure text, so that it can be shown and checked before it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SERVICE = "gleaner-machine"
_MEMORY = re.compile(r"^\d+(\.\d+)?[KMGT%]?$")


@dataclass(frozen=True)
class UnitOptions:
    python: Path
    config: Path
    home: Path
    user: str
    """Empty in a unit of the user's own systemd."""
    memory_max: str

    def __post_init__(self) -> None:
        if not _MEMORY.match(self.memory_max):
            raise ValueError(f"{self.memory_max!r} is no amount of memory: write 1G, 512M or 50%")
        for path in (self.python, self.config, self.home):
            if "\n" in str(path):
                raise ValueError("a path with a line break cannot stand in a systemd unit")


def unit_text(options: UnitOptions) -> str:
    """Restarts always, starts at boot, limits memory.

    Hardening stops where drivers begin: /dev stays whole (cameras, serial ports, I²C), a home folder may be written
    because modules and capture folders may lie there, and nothing forbids generated code, which ML runtimes need.
    """
    is_system = bool(options.user)
    command = [str(options.python), "-m", "gleaner.cli.main", "machine", "--config", str(options.config)]
    command += ["--home", str(options.home)]
    protection = ["ProtectSystem=full", "ProtectControlGroups=true", "ProtectKernelTunables=true", "PrivateTmp=true"]
    who = [f"User={options.user}", "SupplementaryGroups=video"] if is_system else []
    lines = [
        "[Unit]",
        "Description=Gleaner machine",
        *(["Wants=network-online.target", "After=network-online.target"] if is_system else []),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        f"ExecStart={' '.join(_quoted(word) for word in command)}",
        *who,
        "Restart=always",
        "RestartSec=2",
        "TimeoutStopSec=15",
        "KillMode=mixed",
        f"MemoryMax={options.memory_max}",
        "OOMPolicy=stop",
        "UMask=0077",
        "NoNewPrivileges=true",
        *(protection if is_system else []),
        "RestrictSUIDSGID=true",
        "",
        "[Install]",
        f"WantedBy={'multi-user' if is_system else 'default'}.target",
    ]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
