"""The app's certificate runs out, is renewed, and is somebody else's for a while: files wait, and arrive once."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest
from sync_certificates import Authority, authority
from sync_support import captures, ledger_row, put_pictures, put_readings, syncing, until

from stand_in_app import StandInApp

pytestmark = pytest.mark.usefixtures("said", "hurry")
DAY = datetime.timedelta(days=1)


def tls(folder: Path, by: Authority, begins_days: float, ends_days: float) -> ssl.SSLContext:
    now = datetime.datetime.now(datetime.UTC)
    (folder / "server.pem").write_bytes(by.issue(now + begins_days * DAY, now + ends_days * DAY))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


async def test_files_wait_for_a_certificate_that_is_valid_again(tmp_path: Path, said: list[dict[str, Any]]) -> None:
    def errors() -> str:
        return "\n".join(str(line["error"]) for line in said if line.get("error"))

    ours, other, root = authority("ours"), authority("somebody else"), tmp_path / "capture"
    app = StandInApp()
    await app.start(ssl=tls(tmp_path, ours, -30, 1))
    put_pictures(root, 3)
    try:
        address = app.address.replace("http", "https")
        async with syncing(root, app, web_address=address, ca_certificate=ours.pem):
            await until(lambda: not captures(root))
            for context, words in (
                (tls(tmp_path, ours, -30, -1), "has expired"),
                (tls(tmp_path, other, -1, 1), "does not trust"),
            ):
                await app.stop()
                await app.start(ssl=context)
                put_readings(root, f"{words}.capture", 2)
                await until(lambda words=words: words in errors())
            assert len(captures(root)) == 2
            assert len(app.files) == 3
            await app.stop()
            await app.start(ssl=tls(tmp_path, ours, -1, 300))
            await until(lambda: not captures(root))
    finally:
        await app.stop()
    assert len(app.files) == 5
    assert ledger_row(root, "Readings")["synced"] == 4
    assert ledger_row(root, "ReadImage")["synced"] == 3
    assert not (root / "failed").exists()
