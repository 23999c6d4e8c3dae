"""`gleaner dataset` against a real app: out, in, cut and continued."""

from __future__ import annotations

import json
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from running_app import RunningApp
from typer.testing import CliRunner, Result

from gleaner.cli.main import app as cli
from gleaner.formats.registry import Format


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


@pytest.fixture(autouse=True)
def environment(app: RunningApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = app.client.post(
        f"/api/organizations/{app.organization_id}/keys",
        json={"name": "k", "role": "owner", "resource_type": "organization", "resource_id": app.organization_id},
    ).json()
    values = {"GLEANER_APP": app.web, "GLEANER_API_KEY_ID": made["id"], "GLEANER_API_KEY": made["key"]}
    for name, value in (values | {"XDG_CACHE_HOME": str(tmp_path / "cache")}).items():
        monkeypatch.setenv(name, value)


def ran(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def classes(folder: Path, count: int = 150) -> Path:
    for number in range(count):
        path = folder / ("train" if number % 3 else "val") / f"class {number % 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return folder


def as_viam(folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "dataset.jsonl").read_text().splitlines()]
    return {
        f"{one['split']} {sorted(tag['annotation_label'] for tag in one['classification_annotations'])}"
        f" {hash((folder / one['image_path']).read_bytes())}": one["file_name"]
        for one in lines
    }


def test_a_folder_goes_in_and_out_in_every_format(tmp_path: Path) -> None:
    source = classes(tmp_path / "in", 20)
    (source / "train" / "class 1" / "fake.png").write_bytes(b"no picture")
    done = ran("dataset", "import", source, "--dataset", "pets", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["format"], said["added"], said["known"], said["problem_count"]) == ("folders", 20, 0, 1)
    assert "fake.png" in said["problems"][0]
    assert "pets  20 pictures" in ran("dataset", "list").stdout
    first = tmp_path / "first"
    assert ran("dataset", "export", "pets", "--format", "viam", "--out", first).exit_code == 0
    for format_ in Format:
        out = tmp_path / f"{format_}.zip"
        assert ran("dataset", "export", "pets", "--format", format_, "--out", out).exit_code == 0
        again = json.loads(ran("dataset", "import", out, "--dataset", f"from {format_}", "--json").stdout)
        assert (again["format"], again["known"], again["problem_count"]) == (format_, 20, 0)
        back = tmp_path / f"{format_} again"
        assert ran("dataset", "export", f"from {format_}", "--format", "viam", "--out", back).exit_code == 0
        assert as_viam(back) == as_viam(first)


@contextmanager
def cutting(target: str, *after_bytes: int | None) -> Iterator[str]:
    """A proxy that closes its first connections after so many bytes of answer each (None: not at all)."""
    host, port = target.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    cuts = iter(after_bytes)

    def serve(near: socket.socket) -> None:
        with near, socket.create_connection((host, int(port))) as far:
            sender = threading.Thread(target=pump, args=(near, far, None))
            sender.start()
            limit = next(cuts, None)
            pump(far, near, limit)
            for one in (near, far):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
            sender.join(20)

    def pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        given = 0
        try:
            while data := source.recv(65536):
                sink.sendall(data if limit is None else data[: limit - given])
                given += len(data)
                if limit is not None and given >= limit:
                    return
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(near,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(20)
        for one in threads:
            one.join(20)


@pytest.mark.parametrize("out", ["folder", "file.zip", "file.tar"])
def test_a_download_that_is_cut_goes_on(app: RunningApp, tmp_path: Path, out: str) -> None:
    assert ran("dataset", "import", classes(tmp_path / "in"), "--dataset", "pets").exit_code == 0
    with cutting(app.web, None, None, 300_000, 2_000, 300_000) as address:
        done = ran("dataset", "export", "pets", "--format", "viam", "--out", tmp_path / out, "--app", address)
    assert done.exit_code == 0, done.output
    assert ran("dataset", "export", "pets", "--format", "viam", "--out", tmp_path / "whole").exit_code == 0
    if out == "file.zip":
        with zipfile.ZipFile(tmp_path / out) as archive:
            assert archive.testzip() is None
            archive.extractall(tmp_path / "folder")
    if out != "file.tar":
        assert as_viam(tmp_path / "folder") == as_viam(tmp_path / "whole")
        assert len(as_viam(tmp_path / "whole")) == 150
    assert not list(tmp_path.glob("**/*.part*")) and not list(tmp_path.glob("**/.gleaner-export.json"))


def test_an_import_that_is_cut_goes_on_and_keeps_nothing_twice(app: RunningApp, tmp_path: Path) -> None:
    source = classes(tmp_path / "in")
    # Who am I, which datasets, a new one; then the answers of two batches are lost, after the app has stored them.
    with cutting(app.web, None, None, None, 10, None, 10) as address:
        done = ran("dataset", "import", source, "--dataset", "pets", "--app", address, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["added"], said["known"]) == (22, 128)
    assert "pets  150 pictures" in ran("dataset", "list").stdout
    assert not list((tmp_path / "cache").glob("**/import-*.json"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "nothing", "--format", "coco", "--out", "x"], "there is no dataset 'nothing'"),
        (["export", "nothing", "--format", "csv", "--out", "x"], "there is no format 'csv'"),
        (["list", "--app", "http://127.0.0.1:1"], "cannot be reached"),
        (["list", "--key", "wrong"], "answered 401"),
        (["list", "--app", ""], "--app is missing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], said: str) -> None:
    done = ran("dataset", *arguments)
    assert done.exit_code in (1, 2) and said in done.stderr and "Traceback" not in done.output
