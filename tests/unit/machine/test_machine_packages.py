from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from machine_fake_app import PART, SECRET, FakeApp, fake_app, tarball
from machine_fakes import until

from gleaner.machine.cloud import packages as packages_module
from gleaner.machine.cloud.connection import AppConnection
from gleaner.machine.cloud.download import DownloadInterrupted, PackageDamaged, download, unpack
from gleaner.machine.cloud.packages import PackageManager
from gleaner.machine.status import PackageState
from gleaner.wire.machine_config import PackageConfig
from gleaner.wire.package_signature import KEY_FIELD, SIGNATURE_FIELD, public_text, sign


def package(version: str, name: str = "signs") -> PackageConfig:
    return PackageConfig(name=name, package="org/signs", version=version)


class Bench:
    def __init__(self, app: FakeApp, root: Path, package_key: str = "") -> None:
        self.app = app
        self.cloud = app.cloud.model_copy(update={"package_key": package_key})
        self.root = root
        self.used = True
        self.reapplied = 0
        self.connection = AppConnection(app.cloud)
        self.manager = self.make()

    def make(self) -> PackageManager:
        return PackageManager(
            self.connection, self.cloud, self.root, reapply=self.reapply, is_used=lambda _name: self.used
        )

    async def reapply(self) -> None:
        self.reapplied += 1

    def state(self) -> PackageState:
        return self.manager.reports()[0].state

    async def bring(self, *versions: str) -> None:
        for version in versions:
            self.manager.configure([package(version)])
            await until(lambda: self.state() is not PackageState.DOWNLOADING)


@asynccontextmanager
async def bench_in(tmp_path: Path, package_key: str = "") -> AsyncIterator[Bench]:
    async with fake_app() as app:
        for version in ("1", "2", "3.0"):
            app.packages[f"org-signs-{version}"] = tarball(**{"model.onnx": f"model {version}", "labels.txt": "a\nb"})
        bench = Bench(app, tmp_path / "packages", package_key)
        try:
            yield bench
        finally:
            await bench.manager.close()
            bench.connection.close()


async def test_a_package_is_downloaded_and_becomes_current_when_it_runs(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.bring("1")
        assert bench.state() is PackageState.LOADING
        location = bench.manager.locate("signs", "ml_model")
        assert location is not None and location.folder is not None
        assert location.folder == bench.root / "data/ml_model/org-signs-1"
        assert (location.folder / "model.onnx").read_text() == "model 1"
        assert not (bench.root / "signs").exists()
        bench.manager.loaded("signs", "1")
        assert bench.state() is PackageState.READY
        assert (bench.root / "signs" / "labels.txt").read_text() == "a\nb"
        assert bench.app.requests[0]["secret"] == SECRET
        assert bench.app.requests[0]["part_id"] == PART
        report = bench.manager.reports()[0]
        assert report.bytes_downloaded == report.total_bytes > 0
        assert bench.manager.locate("signs", "module") is None
        assert bench.manager.locate("other", "") is None


async def test_a_package_that_nothing_uses_is_ready_at_once(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        bench.used = False
        bench.manager.configure([package("1")])
        await until(lambda: bench.state() is PackageState.READY)
        assert bench.reapplied == 1


async def test_the_old_version_serves_until_the_new_one_runs_and_is_then_removed(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.bring("1")
        bench.manager.loaded("signs", "1")
        await bench.bring("3.0")
        assert (bench.root / "signs").resolve().name == "org-signs-1"
        bench.manager.loaded("signs", "3.0")
        assert (bench.root / "signs").resolve().name == "org-signs-3_0"
        await until(lambda: not (bench.root / "data/ml_model/org-signs-1").exists())
        assert not list(bench.root.glob("data/ml_model/org-signs-1*"))


async def test_a_version_that_does_not_load_falls_back(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.bring("1")
        bench.manager.loaded("signs", "1")
        await bench.bring("2")
        bench.manager.rejected("signs", "2", "bad tensor")
        report = bench.manager.reports()[0]
        assert (report.state, report.version, report.error) == (
            PackageState.FAILED,
            "2",
            "it could not be loaded: bad tensor; version 1 stays in use",
        )
        location = bench.manager.locate("signs", "")
        assert location is not None
        assert location.version == "1"
        assert location.problem == "package signs 2: it could not be loaded: bad tensor; version 1 stays in use"
        # Running the old one does not make the new one's failure go away.
        bench.manager.loaded("signs", "1")
        assert bench.state() is PackageState.FAILED


async def test_the_first_version_that_does_not_load_is_tried_again(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.bring("1")
        bench.manager.rejected("signs", "1", "busy")
        location = bench.manager.locate("signs", "")
        assert location is not None and location.folder is not None and location.problem == ""
        bench.manager.loaded("signs", "1")
        assert bench.state() is PackageState.READY


async def test_a_machine_starts_with_its_packages_without_the_app(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.bring("1")
        bench.manager.loaded("signs", "1")
        await bench.manager.close()
    async with fake_app() as other:
        other.grpc_port = 1  # nobody listens there
        bench = Bench(other, tmp_path / "packages")
        await bench.bring("1")
        assert bench.state() is PackageState.LOADING
        location = bench.manager.locate("signs", "")
        assert location is not None and location.folder is not None
        assert location.folder.name == "org-signs-1"
        await bench.manager.close()
        bench.connection.close()


async def test_going_back_to_an_older_version_keeps_it(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        for version in ("1", "2", "1", "2"):
            await bench.bring(version)
            bench.manager.loaded("signs", version)
            assert (bench.root / "signs" / "model.onnx").read_text() == f"model {version}"
        await until(lambda: len(list(bench.root.glob("data/ml_model/*.status.json"))) == 1)
        assert (bench.root / "signs" / "model.onnx").read_text() == "model 2"


def test_a_full_disk_is_not_the_packages_fault(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tarball(a="x"))
    blocked = tmp_path / "blocked"
    blocked.mkdir(mode=0o500)
    (blocked / "target").touch()  # a file where the folder must go stands in for a disk that refuses
    with pytest.raises(DownloadInterrupted, match="cannot be unpacked into"):
        unpack(archive, blocked / "target")
    assert archive.exists()


async def test_latest_becomes_a_concrete_version(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.bring("latest")
        assert bench.manager.reports()[0].version == "2"


async def test_a_version_that_does_not_exist_fails_with_the_apps_words(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.bring("9")
        assert bench.manager.reports()[0].error == "no package org-signs-9"
        location = bench.manager.locate("signs", "")
        assert location is not None
        assert (location.folder, location.problem) == (None, "no package org-signs-9")


def sealed(bench: Bench, key: Ed25519PrivateKey, version: str, content: bytes | None = None) -> None:
    """As the app signs that version, or other content in its name."""
    name = f"org-signs-{version}"
    digest = hashlib.sha256(content or bench.app.packages[name]).digest()
    bench.app.seals[name] = {
        KEY_FIELD: public_text(key),
        SIGNATURE_FIELD: sign(key, "org/signs", version, digest),
    }


async def test_signed_packages_are_checked_against_the_first_key_that_was_seen(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        app_key, other_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        sealed(bench, app_key, "1")
        await bench.bring("1")
        assert bench.state() is PackageState.LOADING
        bench.manager.loaded("signs", "1")
        sealed(bench, app_key, "2", b"what the app really signed")
        await bench.bring("2")
        assert "not what the app signed" in bench.manager.reports()[0].error
        assert "version 1 stays in use" in bench.manager.reports()[0].error
        sealed(bench, other_key, "3.0")
        await bench.bring("3.0")
        assert "another app than before" in bench.manager.reports()[0].error
        del bench.app.seals["org-signs-3.0"]
        await bench.bring("1", "3.0")
        assert "not signed" in bench.manager.reports()[0].error
        sealed(bench, app_key, "3.0")
        await bench.bring("1", "3.0")
        assert bench.state() is PackageState.LOADING


async def test_the_key_of_the_setup_file_is_the_only_one_from_the_first_package_on(tmp_path: Path) -> None:
    app_key, other_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    async with bench_in(tmp_path, package_key=public_text(app_key)) as bench:
        await bench.bring("1")
        assert "not signed" in bench.manager.reports()[0].error
        sealed(bench, other_key, "2")
        await bench.bring("2")
        assert "another app than the one that machine.json names" in bench.manager.reports()[0].error
        assert bench.state() is PackageState.FAILED
        sealed(bench, app_key, "3.0")
        await bench.bring("3.0")
        assert bench.state() is PackageState.LOADING
        assert not (bench.root / "keys").exists()


async def test_an_app_that_signs_nothing_is_believed(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.bring("1", "2")
        assert bench.state() is PackageState.LOADING
        assert not (bench.root / "keys").exists()


async def test_a_wrong_checksum_fails(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        bench.app.hash_header = "AAAAAA=="
        await bench.bring("1")
        assert bench.state() is PackageState.FAILED
        assert "the app promised AAAAAA==" in bench.manager.reports()[0].error
        assert not list(bench.root.glob("part/*/*"))


async def test_a_cut_download_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages_module, "backoff_s", lambda _attempt: 0.0)
    async with bench_in(tmp_path) as bench:
        bench.app.cut_after = 40
        bench.manager.configure([package("1")])
        await until(lambda: bench.state() is PackageState.LOADING)
        assert [request.get("range") for request in bench.app.requests] == [None, "bytes=40-"]


async def test_an_app_that_cannot_be_reached_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages_module, "backoff_s", lambda _attempt: 0.01)
    async with bench_in(tmp_path) as bench:
        real_port, bench.app.grpc_port = bench.app.grpc_port, 1
        bench.connection.close()
        bench.connection = AppConnection(bench.app.cloud)
        manager = bench.manager = bench.make()
        manager.configure([package("1")])
        await until(lambda: "cannot be reached" in manager.reports()[0].error)
        assert bench.state() is PackageState.DOWNLOADING
        bench.app.grpc_port = real_port


@pytest.mark.parametrize("name", ["../outside", "/etc/outside"])
def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tarball(**{name: "x"}))
    with contextlib.suppress(PackageDamaged):  # a path out of the folder is refused, an absolute one is put inside
        unpack(archive, tmp_path / "in" / "target")
    assert not (tmp_path / "in" / "outside").exists()
    assert not Path("/etc/outside").exists()


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link, io.BytesIO())
    with pytest.raises(PackageDamaged):
        unpack(archive, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_rubbish_is_not_an_archive(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(PackageDamaged, match="cannot be unpacked"):
        unpack(archive, tmp_path / "target")


async def test_downloads_explain_what_went_wrong(tmp_path: Path) -> None:
    async with fake_app() as app:

        async def fetch(url: str) -> Any:
            return await asyncio.to_thread(download, url, {}, tmp_path)

        with pytest.raises(DownloadInterrupted, match="answers HTTP 404"):
            await fetch(f"http://127.0.0.1:{app.http_port}/nothing.tar.gz")
        with pytest.raises(DownloadInterrupted, match="refused"):
            await fetch("http://127.0.0.1:1/x.tar.gz")
        app.packages["a"] = b"0123456789"
        app.hash_header = ""
        with pytest.raises(PackageDamaged, match="cannot be checked"):
            await fetch(f"http://127.0.0.1:{app.http_port}/a.tar.gz")
        # A part longer than the file is of another time: it is thrown away.
        app.hash_header = None
        app.cut_after = 5
        with pytest.raises(DownloadInterrupted, match="5 of 10 bytes"):
            await fetch(f"http://127.0.0.1:{app.http_port}/a.tar.gz")
        part = next(tmp_path.glob("*/*.part"))
        part.write_bytes(b"x" * 20)
        assert (await fetch(f"http://127.0.0.1:{app.http_port}/a.tar.gz")).read_bytes() == b"0123456789"
