"""Names of things that are followed over frames: `<label>_<number>_<YYYYMMDD>_<HHMMSS>`, as Viam's own object tracker makes them.

A Detection has no field for an id, so it goes where every client sees it. The time (UTC) is when the thing was first seen: numbers
begin anew with the service, names do not.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_NAME = re.compile(r"(.+)_(\d{1,9})_(\d{8}_\d{6})", re.DOTALL)


def track_name(label: str, number: int, first_seen: datetime) -> str:
    return f"{label}_{number}_{first_seen.astimezone(UTC):%Y%m%d_%H%M%S}"


def split_track(name: str) -> tuple[str, int | None]:
    """The label, and the number if the name is that of a thing that is followed."""
    found = _NAME.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, None)


def short_name(name: str) -> str:
    """For people: `red star #3`; other names as they are."""
    label, number = split_track(name)
    return label if number is None else f"{label} #{number}"
