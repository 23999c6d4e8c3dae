"""`gleaner machine status` and `install`: true while the machine runs and when it does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gleaner.cli.main import app
from gleaner.machine.capture.ledger import DropReason
from gleaner.machine.models import data_manager
from gleaner.machine.models.data_manager import DataManagerAttributes
from gleaner.machine.offline.status import REASONS, capture_folder

MACHINE: dict[str, Any] = {
    "network": {"bind_address": "localhost:0"},
    "components": [
        {
            "name": "fake",
            "api": "rdk:component:sensor",
            "model": "fake",
            "service_configs": [
                {
                    "type": "data_manager",
                    "attributes": {"capture_methods": [{"method": "Readings", "capture_frequency_hz": 50}]},
                }
            ],
        },
    ],
    "services": [{"name": "data", "api": "rdk:service:data_manager"}],
}


def ask(*words: str) -> Any:
    return CliRunner().invoke(app, ["machine", *words], env={"COLUMNS": "200"})


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "machine.json"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


def test_status_of_a_running_machine_and_of_the_one_that_was_killed(tmp_path: Path) -> None:
    broken = {"name": "wrong", "api": "rdk:component:sensor", "model": "fake", "attributes": {"value": 1}}
    config = write_config(tmp_path, {**MACHINE, "components": [*MACHINE["components"], broken]})
    home = tmp_path / "home"
    command = [sys.executable, "-m", "gleaner.cli.main", "machine", "--config", str(config), "--home", str(home)]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            state = _until_captured(home)
            assert state["is_running"]
            assert [each["name"] for each in state["not_ready"]] == ["wrong"]
            running = ask("status", "--home", str(home))
            assert running.exit_code == 1
            assert "wrong is not ready" in running.output
            assert "no app is configured" in running.output
            assert not any("no app" in problem for problem in state["problems"])
        finally:
            process.kill()
    stopped = ask("status", "--home", str(home), "--json")
    assert stopped.exit_code == 3
    [row] = json.loads(stopped.stdout)["ledger"]["collectors"]
    assert row["captured"] == row["synced"] + row["waiting"] + sum(row["dropped"].values()) > 0


def _until_captured(home: Path) -> Any:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = ask("status", "--home", str(home), "--json")
        state = json.loads(answer.stdout) if answer.stdout else {}
        rows = (state.get("ledger") or {}).get("collectors", [])
        if state.get("is_running") and rows and rows[0]["captured"] and state["not_ready"]:
            return state
    raise AssertionError("the machine captured nothing")


def test_status_says_in_one_line_that_there_is_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    answer = ask("status")
    assert (answer.exit_code, len(answer.output.strip().splitlines())) == (2, 1)
    for name in ("a", "b"):
        (tmp_path / ".gleaner/machines" / name).mkdir(parents=True)
    assert "several machines" in ask("status").output
    (tmp_path / ".gleaner/machines/b").rmdir()
    assert ask("status").exit_code == 3


def test_every_reason_of_a_drop_has_words() -> None:
    assert REASONS.keys() >= {str(reason) for reason in DropReason}


def test_a_machine_is_still_run_by_its_configuration_alone() -> None:
    answer = ask()
    assert (answer.exit_code, "--config" in answer.output) == (2, True)


@pytest.mark.parametrize("options", [["--run-as", "root"], ["--user"]])
def test_the_unit_is_one_that_systemd_accepts(tmp_path: Path, options: list[str]) -> None:
    folder = tmp_path / "with space 100%"
    folder.mkdir()
    config = write_config(folder, MACHINE)
    shown = ask("install", "--config", str(config), "--memory-max", "512M", "--dry-run", *options)
    assert shown.exit_code == 0, shown.output
    for line in ("Restart=always", "MemoryMax=512M", "NoNewPrivileges=true"):
        assert line in shown.stdout.splitlines()
    assert f'"{sys.executable}"' in shown.stdout
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "gleaner-machine.service"
    unit.write_text(shown.stdout)
    where = ["--user"] if options == ["--user"] else []
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    verified = subprocess.run(
        ["systemd-analyze", *where, "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    said = [line for line in verified.stderr.splitlines() if "gleaner-machine" in line]
    assert not said, said


def test_install_refuses_what_cannot_work_in_one_line(tmp_path: Path) -> None:
    config = str(write_config(tmp_path, MACHINE))
    for options, said in (
        (["--memory-max", "lots"], "no amount of memory"),
        (["--run-as", "nobody-of-that-name"], "no user"),
        *([] if Path("/run/systemd/system").is_dir() else [([], "does not run systemd")]),
    ):
        answer = ask("install", "--config", config, *options)
        assert (answer.exit_code, len(answer.output.strip().splitlines())) == (1, 1)
        assert said in answer.output


def test_a_relative_capture_folder_lies_below_the_machines_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = DataManagerAttributes(capture_dir="kept/here")
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    services = [{**MACHINE["services"][0], "attributes": {"capture_dir": attributes.capture_dir}}]
    config = write_config(tmp_path, {**MACHINE, "services": services})
    monkeypatch.chdir(elsewhere)
    assert data_manager.capture_folder(attributes, home) == home / "kept/here"
    assert capture_folder(home, config) == home / "kept/here"
