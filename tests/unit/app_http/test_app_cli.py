"""`gleaner app` and its commands, as an owner types them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
from running_app import running_app

from gleaner.app.assembly import build_context
from gleaner.app.server import prepare_data_dir
from gleaner.app.settings import Settings

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


def test_a_new_login_link_leads_to_the_app_that_runs_on_that_data(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    with running_app(data) as app:
        for command in (["--data-dir", data, "login-link"], ["login-link", "--data-dir", data]):
            link = gleaner(*command).stdout.strip()
            assert link.startswith(f"{app.web}/login?token=")
            assert httpx.get(link, trust_env=False).status_code == 303
        used = httpx.get(link, trust_env=False)
        assert used.status_code == 401
        assert f"gleaner app login-link --data-dir &#x27;{data}&#x27;" in used.text
    (data / "web_address").write_text(app.web)  # left by an app that was killed
    assert gleaner("--data-dir", data, "login-link").stdout.startswith("http://127.0.0.1:8090/login?token=")


def test_limits_of_queries_are_the_owners(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, query_seconds=7, query_memory_mb=100, queries_at_once=3)
    prepare_data_dir(tmp_path)
    context = build_context(settings)
    try:
        assert (context.queries.seconds, context.queries.memory_mb) == (7, 100)
    finally:
        context.database.close()
    refused = gleaner("--query-seconds", "0")
    assert refused.returncode == 2 and "query-seconds" in refused.stderr
