"""Two real app processes on one PostgreSQL and one bucket: what one takes in, the other shows, and one goes on alone."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bucket_server import BucketServer


@contextmanager
def app(data_dir: Path, environment: dict[str, str], *flags: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The process, its log-in link, and what it says it uses."""
    command = [sys.executable, "-m", "gleaner.cli.main", "app", "--data-dir", str(data_dir), "--port", "0"]
    with (data_dir.parent / f"{data_dir.name}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--grpc-port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | environment,
        )
    with process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            assert "is running" in lines[0], Path(log.name).read_text()
            yield process, lines[1].split()[-1], lines[2]
        finally:
            process.send_signal(signal.SIGTERM)


def test_what_one_app_takes_in_the_other_shows_and_goes_on_when_it_is_gone(
    tmp_path: Path, postgres_url: str, buckets: BucketServer
) -> None:
    environment = buckets.environment() | {"GLEANER_DATABASE_URL": postgres_url, "GLEANER_STORE": buckets.address()}
    with app(tmp_path / "one", environment) as (first, link, uses), httpx.Client(trust_env=False) as browser:
        assert environment["GLEANER_STORE"] in uses
        assert "postgresql" in uses
        # What processes on the same data share besides: the keys.
        (tmp_path / "two").mkdir(mode=0o700)
        shutil.copytree(tmp_path / "one" / "keys", tmp_path / "two" / "keys")
        with app(tmp_path / "two", environment, "--no-background") as (_, other_link, _):
            one, other = (address.partition("/login")[0] for address in (link, other_link))
            browser.get(link)
            me = browser.get(f"{other}/api/auth/me")  # logged in at one, known to the other
            assert me.status_code == 200
            form = {"organization_id": me.json()["organizations"][0]["id"]}
            row = upload(browser, one, "a.txt", b"from one", form)
            assert browser.get(f"{other}/api/items/{row}/content").content == b"from one"
            assert upload(browser, other, "a.txt", b"from one", form) == row  # a duplicate, whoever gets it
            script = upload_script(browser, one, form["organization_id"])
            first.kill()
            first.wait()
            row = upload(browser, other, "b.txt", b"from the other", form)
            assert browser.get(f"{other}/api/items/{row}/content").content == b"from the other"
            assert len(browser.get(f"{other}/api/items/index").content) == 2 * 4
            path = f"/api/packages/{form['organization_id']}/teacher/1.0.0.tar.gz"
            assert browser.get(other + path).content == script  # what a machine downloads
    assert not (tmp_path / "one" / "packs").exists()
    assert not list((tmp_path / "one").rglob("*.package"))


def upload_script(browser: httpx.Client, app: str, organization_id: str) -> bytes:
    """A package of the smallest kind that a page can send."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("setup.py", "model/training.py"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    values = {"organization_id": organization_id, "name": "teacher", "version": "1.0.0"}
    answer = browser.post(f"{app}/api/training_jobs/scripts", params=values, content=buffer.getvalue())
    assert answer.status_code == 200, answer.text
    return buffer.getvalue()


def upload(browser: httpx.Client, app: str, name: str, content: bytes, form: dict[str, str]) -> int:
    answer = browser.post(f"{app}/api/items/upload", files=[("files", (name, content))], data=form)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["items"][0]["row"])
