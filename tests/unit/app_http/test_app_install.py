"""A machine installs the app's own wheel: what is in it, who gets it, and that pip makes a working Gleaner of it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shlex
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import urldefrag

import httpx
import pytest
from running_app import RunningApp, running_app

import gleaner
from gleaner.app.context import Addresses
from gleaner.app.errors import PermissionDenied, Unavailable
from gleaner.app.services.install import INSTALL_LINK_S, InstallLinks
from gleaner.app.services.wheel import Wheel, build_wheel, own_wheel

INFO = f"gleaner-{gleaner.__version__}.dist-info"
INSTALLED = gleaner.__version__ != "0.0.0"
installed_only = pytest.mark.skipif(not INSTALLED, reason="Gleaner is not installed here: scripts/bootstrap.py dev")
WHEEL = Wheel("gleaner-1-py3-none-any.whl", b"bytes", "0" * 64)
HTTP = Addresses("http://127.0.0.1:8090", "http://127.0.0.1:8091")


def url_of(commands: list[str]) -> str:
    return shlex.split(commands[-1])[-1]


def parts_of(url: str) -> tuple[str, str]:
    """(token, file name)."""
    token, name = urldefrag(url).url.split("/")[-2:]
    return token, name


def opened(wheel: Wheel) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(wheel.data))


@installed_only
def test_the_wheel_holds_the_package_and_its_metadata_but_no_pages() -> None:
    with opened(own_wheel()) as wheel:
        names = wheel.namelist()
        assert wheel.testzip() is None
        assert wheel.read(f"{INFO}/METADATA").decode() == distribution("gleaner").read_text("METADATA")
        assert b"gleaner = gleaner.cli.main:app" in wheel.read(f"{INFO}/entry_points.txt")
        assert b"Root-Is-Purelib: true\nTag: py3-none-any\n" in wheel.read(f"{INFO}/WHEEL")
        assert b"Apache License" in wheel.read(f"{INFO}/licenses/LICENSE")
    assert len(names) == len(set(names))
    assert {"gleaner/py.typed", "gleaner/wire/model_catalog.json", "gleaner/learn/weights/backbone.npz"} <= {*names}
    assert not [name for name in names if "__pycache__" in name or "/static/" in name or name.endswith(".pyc")]
    assert {name.split("/")[0] for name in names} == {"gleaner", INFO}


@installed_only
def test_the_record_names_every_file_with_its_hash_and_size() -> None:
    with opened(own_wheel()) as wheel:
        rows = list(csv.reader(io.StringIO(wheel.read(f"{INFO}/RECORD").decode())))
        assert [row[0] for row in rows] == wheel.namelist()
        assert rows.pop() == [f"{INFO}/RECORD", "", ""]
        for path, digest, size in rows:
            data = wheel.read(path)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={expected}", str(len(data)))


@installed_only
def test_the_same_files_make_the_same_bytes_and_debris_stays_out(tmp_path: Path) -> None:
    for name in ("__init__.py", "z.py", "a/b.json", "app/static/index.html", "a/__pycache__/b.pyc", ".swp", "z.py~"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    first = build_wheel(tmp_path, distribution("gleaner"))
    os.utime(tmp_path / "z.py", (2_000_000_000, 2_000_000_000))
    assert build_wheel(tmp_path, distribution("gleaner")) == first
    with opened(first) as wheel:
        packaged = [name for name in wheel.namelist() if name.startswith("gleaner/")]
    assert packaged == ["gleaner/__init__.py", "gleaner/a/b.json", "gleaner/z.py"]


def test_an_install_link_ends_after_a_day_and_opens_nothing_else() -> None:
    now = [1_800_000_000 * 10**9]
    links = InstallLinks(b"k" * 32, lambda: now[0], lambda: WHEEL)
    token, name = parts_of(url_of(links.commands(HTTP)))
    now[0] += INSTALL_LINK_S * 10**9 - 1
    assert links.wheel(token, name) == WHEEL
    for wrong in ((token[:-1], name), (token, "other-1.0-py3-none-any.whl"), ("", name), ("ä", name)):
        with pytest.raises(PermissionDenied):
            links.wheel(*wrong)
    with pytest.raises(PermissionDenied):
        InstallLinks(b"other" * 8, lambda: now[0], lambda: WHEEL).wheel(token, name)
    now[0] += 1
    with pytest.raises(PermissionDenied, match="24 hours"):
        links.wheel(token, name)


def test_an_install_link_ends_when_the_app_is_updated() -> None:
    wheels = [
        Wheel("gleaner-1-py3-none-any.whl", b"old", "0" * 64),
        Wheel("gleaner-1-py3-none-any.whl", b"new", "1" * 64),
    ]
    before, after = (InstallLinks(b"k" * 32, wheel=lambda wheel=wheel: wheel) for wheel in wheels)
    token, name = parts_of(url_of(before.commands(HTTP)))
    with pytest.raises(PermissionDenied, match="updated"):
        after.wheel(token, name)


def test_under_a_private_authority_pip_is_told_to_go_by_the_hash() -> None:
    links = InstallLinks(b"k" * 32, wheel=lambda: WHEEL)
    plain, own, private = (
        links.commands(where)[-1]
        for where in (HTTP, Addresses("https://g.lan:8090"), Addresses("https://g.lan:8090", ca_certificate="PEM"))
    )
    assert "--trusted-host" not in plain + own
    assert "--trusted-host g.lan:8090 " in " ".join(shlex.split(private))
    assert url_of([private]).endswith(f"#sha256={WHEEL.sha256}")


def test_a_gleaner_that_was_never_installed_has_no_commands_to_give() -> None:
    def none() -> Wheel:
        raise Unavailable("never installed", "Install it.")

    assert InstallLinks(b"k" * 32, wheel=none).commands(HTTP) == []


@installed_only
def test_the_address_needs_no_login_and_a_wrong_one_says_what_to_do(app: RunningApp) -> None:
    part_id, _ = app.new_part()
    url = url_of(app.client.post(f"/api/parts/{part_id}/secret").json()["install"])
    token, name = parts_of(url)
    with httpx.Client(base_url=app.web, trust_env=False, timeout=30) as nobody:
        answer = nobody.get(url)
        assert (answer.status_code, answer.content) == (200, own_wheel().data)
        session = app.client.cookies["gleaner_session"]
        for wrong in (f"/install/{token}x/{name}", f"/install/{token}/other.whl", f"/install/{session}/{name}"):
            refused = nobody.get(wrong)
            assert (refused.status_code, refused.headers["content-type"]) == (403, "text/plain; charset=utf-8")
            assert "make a new setup file" in refused.text


@installed_only
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_pip_installs_a_working_gleaner_from_the_pasted_command(tmp_path: Path, host: str) -> None:
    """Without its libraries, which are here already; over TLS with the private authority for anything but loopback."""
    with running_app(tmp_path / "data", host=host, public_host="127.0.0.1") as app:
        commands = app.context.install.commands(app.context.addresses)
        assert commands[0] == "python3 -m venv gleaner"
        pip, *arguments = shlex.split(commands[1])
        assert (pip, app.context.addresses.tls) == ("gleaner/bin/pip", host == "0.0.0.0")
        there = tmp_path / "machine"
        offline = ["--no-deps", "--no-index", "--no-cache-dir", "--disable-pip-version-check", "--target", str(there)]
        installed = run_python(tmp_path, "-m", "pip", *arguments, *offline)
        assert installed.returncode == 0, installed.stdout
        wrong = [*arguments[:-1], arguments[-1].replace("#sha256=", "#sha256=0")[:-1]]
        refused = run_python(tmp_path, "-m", "pip", *wrong, *offline, "--upgrade")
        assert refused.returncode != 0
        assert "DO NOT MATCH THE HASHES" in refused.stdout
    found = run_python(tmp_path, "-c", "import gleaner.machine; print(gleaner.machine.__file__)", PYTHONPATH=str(there))
    assert Path(found.stdout.strip()).is_relative_to(there)
    helped = run_python(tmp_path, str(there / "bin" / "gleaner"), "machine", "--help", PYTHONPATH=str(there))
    assert (helped.returncode, "--config" in helped.stdout) == (0, True), helped.stdout


def run_python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | {"COLUMNS": "200"}
    return subprocess.run(
        command,
        cwd=folder,
        env={**clean, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
