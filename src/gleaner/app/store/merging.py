"""Which small packs become one. Every group commit makes a pack; a busy day makes many thousands of small files.

In tiers, as log-structured stores do: packs of one tier are merged when there are `FAN_IN` of them or they fill a whole pack,
so a byte is rewritten at most once per tier. Oldest first, so that what was captured together stays together; thumbnails
apart from what they show, so that a page of the gallery reads few packs. A pack of `TARGET_BYTES` or more is left alone,
and a merged one is at most twice that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MIB = 1 << 20
TARGET_BYTES = 128 * MIB
FAN_IN = 32
_TIERS = (1 * MIB, 8 * MIB, 64 * MIB, TARGET_BYTES)
"""Upper bounds, exclusive."""


@dataclass(frozen=True)
class PackSize:
    id: int
    created_ns: int
    size: int
    is_thumbnails: bool


def plan_merges(packs: Iterable[PackSize]) -> list[tuple[int, ...]]:
    """Groups of pack ids to merge into one each."""
    tiers: dict[tuple[bool, int], list[PackSize]] = {}
    for pack in packs:
        if pack.size < TARGET_BYTES:
            tier = next(number for number, below in enumerate(_TIERS) if pack.size < below)
            tiers.setdefault((pack.is_thumbnails, tier), []).append(pack)
    return [group for _, members in sorted(tiers.items()) for group in _groups(members)]


def _groups(packs: list[PackSize]) -> Iterable[tuple[int, ...]]:
    group: list[int] = []
    size = 0
    for pack in sorted(packs, key=lambda pack: (pack.created_ns, pack.id)):
        group.append(pack.id)
        size += pack.size
        if size >= TARGET_BYTES:
            if len(group) > 1:
                yield tuple(group)
            group, size = [], 0
    if len(group) >= FAN_IN:
        yield tuple(group)
