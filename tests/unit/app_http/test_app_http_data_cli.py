"""`gleaner data upload | tag | delete | download` against a real app."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from running_app import RunningApp
from typer.testing import CliRunner, Result

from gleaner.cli.main import app as cli


@pytest.fixture(autouse=True)
def environment(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    made = app.client.post(
        f"/api/organizations/{app.organization_id}/keys",
        json={"name": "k", "role": "owner", "resource_type": "organization", "resource_id": app.organization_id},
    ).json()
    values = {"GLEANER_APP": app.web, "GLEANER_API_KEY_ID": made["id"], "GLEANER_API_KEY": made["key"]}
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    for number in range(40):
        path = made / ("a" if number % 2 else 'b "ü"') / f"{number // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (20, 30, 3), np.uint8)
        path.write_bytes(bytes(cv2.imencode(".png", pixels)[1]))
    return made


def ran(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["data", *(str(one) for one in arguments)])


def total(app: RunningApp, query: str = "") -> int:
    return int(app.client.get(f"/api/items/facets?{query}").json()["total"])


def test_files_are_uploaded_once_and_bad_ones_named(app: RunningApp, folder: Path) -> None:
    done = ran("upload", folder, "--tag", "new", "--dataset", "mine")
    assert done.exit_code == 0 and "40 new, 0 were there already" in done.stdout, done.output
    (folder / "fake.png").write_bytes(b"no picture")
    again = ran("upload", folder, "--tag", "new")
    assert again.exit_code == 1 and "0 new, 40 were there already" in again.stdout and "fake.png" in again.stderr
    assert total(app) == total(app, "tag=new") == 40
    assert app.client.get(f"/api/datasets?organization_id={app.organization_id}").json()[0]["item_count"] == 40


def test_filters_choose_what_is_tagged_deleted_and_brought_back(app: RunningApp, folder: Path) -> None:
    ran("upload", folder / "a", "--tag", "odd")
    ran("upload", folder / 'b "ü"')
    assert "20 items changed" in ran("tag", "--untagged", "--add", "even", "--since", "1h").stdout
    assert "20 items changed" in ran("tag", "--tag", "even", "--add", "x", "--remove", "even").stdout
    assert "nothing fits" in ran("delete", "--tag", "even", "--yes").stdout
    refused = CliRunner().invoke(cli, ["data", "delete", "--tag", "x"], input="n\n")
    assert refused.exit_code == 1 and total(app) == 40
    deleted = ran("delete", "--tag", "x", "--yes").stdout
    assert total(app) == 20
    undo = re.search(r"--undo (\d+)", deleted)
    assert undo and "20 items are back" in ran("delete", "--undo", undo[1]).stdout
    assert total(app) == 40


def test_what_fits_is_downloaded_and_not_fetched_twice(app: RunningApp, folder: Path, tmp_path: Path) -> None:
    ran("upload", folder / "a", "--tag", "odd")
    ran("upload", folder / 'b "ü"', "--tag", "split:val")
    out = tmp_path / "out"
    first = ran("download", "--out", out, "--tag", "odd", "--tag", "split:val")
    assert first.exit_code == 0 and "41 files written, 0 were" in first.stdout, first.output
    lines = [json.loads(line) for line in (out / "dataset.jsonl").read_text().splitlines()]
    assert len(lines) == 40 and sum(one.get("split") == "val" for one in lines) == 20
    assert all((out / one["image_path"]).stat().st_size for one in lines)
    (out / lines[0]["image_path"]).unlink()
    assert "2 files written, 39 were there already" in ran("download", "--out", out).stdout
    assert "data.yaml" in {path.name for path in _downloaded(tmp_path / "yolo", "yolo").iterdir()}


def _downloaded(out: Path, format_: str) -> Path:
    assert ran("download", "--out", out, "--format", format_).exit_code == 0
    return out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tag", "--add", "x"], "no filter was given"),
        (["delete", "--yes"], "no filter was given"),
        (["tag", "--tag", "x"], "there is nothing to do"),
        (["delete", "--since", "yesterday", "--yes"], "yesterday"),
        (["tag", "--dataset", "none", "--add", "x"], "there is no dataset 'none'"),
        (["delete", "--undo", "12"], "answered 404"),
    ],
)
def test_what_is_not_clear_changes_nothing(arguments: list[str], said: str) -> None:
    done = ran(*arguments)
    assert done.exit_code in (1, 2) and said in done.stderr, done.output


def test_near_duplicates_are_named_by_one_of_them_or_left_out(app: RunningApp, tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    y, x = np.mgrid[:120, :160]
    for name, pixels in (("wave", np.sin(x / 9) * 90 + 120), ("disc", np.hypot(x - 60, y - 70) * 2 % 255)):
        for level in (1, 9):
            data = cv2.imencode(".png", pixels.astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, level])[1]
            (folder / f"{name}_{level}.png").write_bytes(bytes(data))
    ran("upload", folder)
    rows = np.frombuffer(app.client.get("/api/items/index?search=wave_1").content, "<u4")
    deadline = time.monotonic() + 60
    while total(app, f"near={rows[0]}") != 2 or total(app, "once=true") != 2:
        assert time.monotonic() < deadline, "the pictures were not compared"
        time.sleep(0.05)
    assert "2 items changed" in ran("tag", "--near", rows[0], "--add", "wavy").stdout
    assert total(app, "tag=wavy&search=wave") == 2
    assert "3 files written" in ran("download", "--once", "--out", tmp_path / "few").stdout
