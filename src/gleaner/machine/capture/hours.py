"""The ledger by hour: which hour a file belongs to, and the same sum for every collector and UTC hour.

A file belongs to the hour in its name; files of readings end at the hour for it. Hours count from the epoch. What was
captured, left or dropped before the ledger knew hours is in its totals only.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gleaner.machine.capture.directory import Waiting

KEPT_HOURS = 24 * 90

ByHour = Mapping[tuple[str, int], Waiting]
"""By collector directory and hour."""


def hour_rows(
    stored: ByHour,
    left: Mapping[tuple[str, int], Mapping[tuple[str, str], int]],
    since: int,
) -> list[dict[str, Any]]:
    """Oldest first. `left`: records by (fate, reason); what is synced or set aside was stored before."""
    rows = []
    for directory, hour in sorted(stored.keys() | left.keys(), key=lambda key: (key[1], key[0])):
        if hour < since:
            continue
        counts = left.get((directory, hour), {})
        synced = sum(n for (fate, _), n in counts.items() if fate == "synced")
        aside = sum(n for (fate, _), n in counts.items() if fate == "set_aside")
        dropped: dict[str, int] = {}
        for (fate, reason), records in counts.items():
            if fate != "synced" and records:
                dropped[reason] = dropped.get(reason, 0) + records
        waiting = max(0, stored.get((directory, hour), Waiting()).records - synced - aside)
        parts = directory.split("/")
        rows.append(
            {
                "hour": datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H:00:00Z"),
                "component": parts[1] if len(parts) == 3 else directory,
                "method": parts[2] if len(parts) == 3 else "",
                "captured": synced + waiting + sum(dropped.values()),
                "synced": synced,
                "waiting": waiting,
                "dropped": dict(sorted(dropped.items())),
            }
        )
    return rows
