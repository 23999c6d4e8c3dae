"""Many collectors on one machine: every one is captured at its rate, and every reading arrives once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_loop import Loop, captured, settle, wait_for

from gleaner.machine.capture.outside import read_ledger

COLLECTORS = 200
HZ = 1.0
READINGS_EACH = 4


def sensor(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "api": "rdk:component:sensor",
        "model": "rdk:builtin:fake",
        "attributes": {"values": {"name": name, "n": {"shape": "counter", "period_s": 0.001}}},
        "service_configs": captured("Readings", HZ),
    }


def rows(loop: Loop) -> dict[str, dict[str, Any]]:
    return {each["component"]: each for each in read_ledger(loop.capture_dir)["collectors"]}


@pytest.mark.slow
def test_two_hundred_collectors_on_one_machine_are_all_captured_and_sent(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    web, grpc, machine = free_ports(3)
    loop = Loop(tmp_path, (web, grpc, machine))
    loop.more_components = [sensor(f"s{n}") for n in range(COLLECTORS)]
    loop.sync_interval_mins = 0.03
    names = {each["name"] for each in loop.more_components} | {"meter", "cam"}
    loop.app.start()
    try:
        loop.log_in()
        loop.set_up()
        loop.machine.start()
        wait_for(
            lambda: (
                (known := rows(loop)).keys() == names and min(r["captured"] for r in known.values()) >= READINGS_EACH
            ),
            90,
            lambda: f"{rows(loop)}\n{loop.machine.log.read_text()[-2000:]}",
        )
        live = loop.client.get(f"/parts/{loop.part_id}/status")["capture"]["collectors"]
        assert not [each["last_error"] for each in live if each["last_error"]]
        settle(loop)
        for row in rows(loop).values():
            assert row["captured"] == row["synced"] >= READINGS_EACH, row
            assert not row["dropped"]
        assert loop.readings() == sum(row["synced"] for name, row in rows(loop).items() if name != "cam")
        series = loop.client.get(f"/readings/series?part_id={loop.part_id}")
        assert {each["component_name"]: each["count"] for each in series} == {
            name: row["synced"] for name, row in rows(loop).items() if name != "cam"
        }
        assert loop.items() == rows(loop)["cam"]["synced"]
    finally:
        loop.machine.stop()
        loop.app.stop()
