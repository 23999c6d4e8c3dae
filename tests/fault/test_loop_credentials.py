"""A revoked secret, and an app that comes back from a backup: files wait, arrive once, and never go to `failed/`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_chaos import doubled
from fault_loop import Loop, assert_nothing_lost_or_doubled, settle, wait_for


@pytest.fixture
def loop(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Loop]:
    web, grpc, machine = free_ports(3)
    made = Loop(tmp_path, (web, grpc, machine))
    made.app.start()
    try:
        made.log_in()
        made.set_up()
        made.machine.start()
        wait_for(made.items, 60, lambda: "no first picture: " + made.machine.log.read_text()[-2000:])
        yield made
    finally:
        made.machine.stop()
        made.app.stop()


@pytest.mark.slow
def test_a_machine_whose_secret_was_revoked_goes_on_with_a_new_setup_file(loop: Loop) -> None:
    loop.app.stop()
    loop.app.start()
    wait_for(lambda: loop.app.log.read_text().count("Log in once") >= 2, 60, lambda: "the app did not come back")
    secrets = [loop.client.post(f"/parts/{loop.part_id}/secret", {})["machine_json"] for _ in range(2)]
    loop.app.stop()  # whoever is connected has to say the secret again
    loop.app.start()
    words = "refuses this part's secret"
    wait_for(lambda: words in loop.machine.log.read_text(), 60, lambda: loop.machine.log.read_text()[-2000:])
    before = sum(1 for _ in loop.capture_dir.rglob("*.capture"))
    wait_for(
        lambda: sum(1 for _ in loop.capture_dir.rglob("*.capture")) > before,
        30,
        lambda: "nothing is captured while the app refuses the machine",
    )
    assert not (loop.capture_dir / "failed").exists()
    temporary = loop.setup_file.with_suffix(".new")
    temporary.write_text(json.dumps(secrets[-1]))
    temporary.chmod(0o600)
    temporary.replace(loop.setup_file)
    wait_for(
        lambda: "the machine starts again with it" in loop.machine.log.read_text(),
        60,
        lambda: loop.machine.log.read_text()[-2000:],
    )
    settle(loop)
    assert_nothing_lost_or_doubled(loop, at_least=10)
    assert not (loop.capture_dir / "failed").exists()


@pytest.mark.slow
def test_an_app_restored_from_a_backup_gets_everything_that_is_still_on_the_machine_once(loop: Loop) -> None:
    data_dir, backup = loop.folder / "app", loop.folder / "backup"
    loop.app.stop()
    shutil.copytree(data_dir, backup)
    loop.app.start()
    wait_for(
        lambda: loop.ledger()["GetImages"]["waiting"] == 0 or loop.ledger()["GetImages"]["synced"] > 20,
        60,
        lambda: str(loop.ledger()),
    )
    loop.app.stop()
    at_restore = loop.ledger()
    shutil.rmtree(data_dir)
    backup.rename(data_dir)
    loop.app.start()
    wait_for(lambda: loop.app.log.read_text().count("Log in once") >= 3, 60, lambda: loop.app.log.read_text()[-2000:])
    in_backup = loop.items(), loop.readings()
    settle(loop)
    ledger = loop.ledger()
    # What was acknowledged after the backup is gone with the app's disk; everything else is there, once.
    assert loop.items() >= in_backup[0] + ledger["GetImages"]["synced"] - at_restore["GetImages"]["synced"]
    assert not doubled(loop.picture_times())
    assert not doubled(loop.reading_times())
    for counts in ledger.values():
        assert counts["captured"] == counts["synced"]
        assert not counts["dropped"]
