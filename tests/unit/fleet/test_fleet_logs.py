"""Machine logs: newest first, searched, paged, bounded."""

from __future__ import annotations

import pytest
from fleet_world import Fleet

from gleaner.app.errors import NotFound, PermissionDenied
from gleaner.app.services import logs
from gleaner.app.services.logs import NewLine


def lines(*texts: str, level: str = "INFO") -> list[NewLine]:
    return [NewLine(0, level, "rdk.camera", text) for text in texts]


def texts(fleet: Fleet, **wanted: object) -> list[str]:
    page = fleet.context.logs.page(fleet.owner, fleet.part_id, **wanted)  # type: ignore[arg-type]
    return [line.message for line in page.lines]


def test_pages_follow_each_other_without_gap_or_overlap(fleet: Fleet) -> None:
    service = fleet.context.logs
    service.append(fleet.part(), fleet.part_id, lines(*(str(n) for n in range(5))))
    seen, before = [], None
    while True:
        page = service.page(fleet.owner, fleet.part_id, before=before, limit=2)
        seen += [line.message for line in page.lines]
        if page.next is None:
            break
        before = page.next
    assert seen == ["4", "3", "2", "1", "0"]


def test_search_and_levels(fleet: Fleet) -> None:
    part = fleet.part()
    fleet.context.logs.append(part, fleet.part_id, lines("Camera found", "100% done", "a_b"))
    fleet.context.logs.append(part, fleet.part_id, lines("lens dirty", level="WARNING"))
    assert texts(fleet, search="CAMERA") == ["lens dirty", "a_b", "100% done", "Camera found"], "logger names count"
    assert texts(fleet, search="found") == ["Camera found"]
    assert texts(fleet, search="0%") == ["100% done"], "a percent sign is itself"
    assert texts(fleet, search="x_b") == []
    assert texts(fleet, levels=["warn"]) == ["lens dirty"]


def test_only_the_newest_lines_are_kept(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_LINES", 3)
    monkeypatch.setattr(logs, "_TRIM_EVERY", 1)
    part = fleet.part()
    for number in range(6):
        fleet.context.logs.append(part, fleet.part_id, lines(str(number)))
    assert texts(fleet) == ["5", "4", "3"]


def test_old_lines_go(fleet: Fleet) -> None:
    fleet.context.logs.append(fleet.part(), fleet.part_id, [NewLine(10**9, "info", "x", "from 1970"), *lines("now")])
    assert texts(fleet) == ["now"]


def test_a_machine_writes_only_its_own_log(fleet: Fleet) -> None:
    other = fleet.context.fleet.create_machine(fleet.owner, "other", fleet.location_id)
    with pytest.raises(NotFound):
        fleet.context.logs.append(fleet.part(), other.main.id, lines("forged"))
    with pytest.raises((NotFound, PermissionDenied)):
        fleet.context.logs.page(fleet.part(), other.main.id)
