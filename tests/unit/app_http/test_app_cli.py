"""`gleaner app` and its commands, as an owner types them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
from running_app import running_app

GLEANER = [sys.executable, "-m", "gleaner.cli.main", "app"]


def gleaner(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*GLEANER, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def test_app_prints_a_link_that_logs_in_once_and_stops_cleanly(tmp_path: Path) -> None:
    command = [*GLEANER, "--data-dir", str(tmp_path / "data"), "--port", "0", "--grpc-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "is running at http://127.0.0.1:" in process.stdout.readline()
        link = process.stdout.readline().split()[-1]
        with httpx.Client(trust_env=False) as browser:
            assert browser.get(link).status_code in (302, 303, 307)
            base = link.partition("/login")[0]
            assert browser.get(f"{base}/api/auth/me").status_code == 200
        with httpx.Client(trust_env=False) as other:
            other.get(link)
            assert other.get(f"{base}/api/auth/me").status_code == 401
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert (tmp_path / "data" / "metadata.db").stat().st_mode & 0o077 == 0


def test_problems_at_start_are_one_line(tmp_path: Path) -> None:
    assert gleaner("--data-dir", tmp_path, "login-link").returncode == 0
    (tmp_path / "keys" / "kek").chmod(0o644)
    refused = gleaner("--data-dir", tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1 and "chmod 600" in refused.stderr


def test_lost_metadata_is_rebuilt_so_that_the_owner_sees_the_pictures_again(tmp_path: Path) -> None:
    with running_app(tmp_path) as app:
        part_id, _ = app.new_part("porch")
        form = {"part_id": part_id, "tags": ["night"]}
        app.client.post("/api/items/upload", files=[("files", ("a.txt", b"hello"))], data=form)
        before = app.client.get("/api/items/facets").json()
        organization = app.organization_id
    for file in tmp_path.glob("metadata.db*"):
        file.unlink()
    done = gleaner("--data-dir", tmp_path, "rebuild")
    assert done.returncode == 0, done.stderr
    assert "1 records from 1 packs" in done.stdout
    with running_app(tmp_path) as app:
        assert app.organization_id == organization
        assert app.client.get("/api/items/facets").json() == before
        machines = app.client.get(f"/api/machines?organization_id={organization}").json()
        assert [one["name"] for one in machines] == ["porch"]
