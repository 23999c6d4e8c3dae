"""Go's duration text (`1m30s`, `500ms`), which Viam's configuration uses, as whole nanoseconds."""

from __future__ import annotations

import re

_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+)(?:\.(\d+))?(ns|us|µs|ms|s|m|h)")


def parse_duration_ns(text: str) -> int:
    """`"1m30s"` is 90,000,000,000. Raises ValueError that shows what is expected."""
    body = text.strip()
    sign = -1 if body.startswith("-") else 1
    body = body.lstrip("+-")
    if body == "0":
        return 0
    total, position = 0, 0
    for match in _PART.finditer(body):
        if match.start() != position:
            break
        whole, fraction, unit = match.group(1), match.group(2) or "", _UNIT_NS[match.group(3)]
        total += int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        position = match.end()
    if not body or position != len(body):
        raise ValueError(f"{text!r} is not a duration: write it like 500ms, 2s or 1m30s")
    return sign * total


def format_duration_ns(value_ns: int) -> str:
    """The shortest exact text that `parse_duration_ns` reads back, in descending units: `1m30s`, `500ms`."""
    if value_ns == 0:
        return "0s"
    rest, text = abs(value_ns), "-" if value_ns < 0 else ""
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, rest = divmod(rest, _UNIT_NS[unit])
        if count:
            text += f"{count}{unit}"
    return text
