"""A revoked secret, and an app that comes back from a backup: files wait, arrive once, and never go to `failed/`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from fault_chaos import doubled
from fault_loop import Loop, assert_nothing_lost_or_doubled, settle, wait_for

from gleaner.app.assembly import build_context
from gleaner.app.settings import Settings
from gleaner.app.store import sniff
from gleaner.app.store import tables as t


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


def stored_in(data_dir: Path) -> int:
    """Pictures in the folder of an app that is stopped."""
    context = build_context(Settings(data_dir=data_dir))
    try:
        with context.database.read() as db:
            pictures = sa.select(t.origin.c.id).where(t.origin.c.kind == sniff.IMAGE)
            query = sa.select(sa.func.count()).select_from(t.item)
            return int(db.scalar(query.where(t.item.c.origin_id.in_(pictures))) or 0)
    finally:
        context.database.close()


@pytest.mark.slow
def test_an_app_restored_from_a_backup_gets_everything_that_is_still_on_the_machine_once(loop: Loop) -> None:
    data_dir, backup = loop.folder / "app", loop.folder / "backup"
    loop.app.stop()
    shutil.copytree(data_dir, backup)
    in_backup = stored_in(backup)
    loop.app.start()
    wait_for(
        lambda: loop.ledger()["GetImages"]["waiting"] == 0 or loop.ledger()["GetImages"]["synced"] > 20,
        60,
        lambda: str(loop.ledger()),
    )
    loop.app.stop()
    at_the_end = stored_in(data_dir)
    shutil.rmtree(data_dir)
    backup.rename(data_dir)
    loop.app.start()
    wait_for(lambda: loop.app.log.read_text().count("Log in once") >= 3, 60, lambda: loop.app.log.read_text()[-2000:])
    settle(loop)
    ledger = loop.ledger()
    # What was acknowledged after the backup is gone with the app's disk, at most all that was stored there; the rest is here, once.
    assert loop.items() >= in_backup + ledger["GetImages"]["synced"] - at_the_end
    assert not doubled(loop.picture_times())
    assert not doubled(loop.reading_times())
    for counts in ledger.values():
        assert counts["captured"] == counts["synced"]
        assert not counts["dropped"]
