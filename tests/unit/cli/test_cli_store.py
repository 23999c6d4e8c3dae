"""The commands that look after an app's data, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def gleaner_app(data_dir: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gleaner.cli.main", "app", "--data-dir", str(data_dir), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment
    )


def test_backup_restore_and_a_new_key_from_the_command_line(tmp_path: Path) -> None:
    data, usb, new = tmp_path / "data", tmp_path / "usb", tmp_path / "new"
    assert gleaner_app(data, "login-link").returncode == 0
    done = gleaner_app(data, "backup", str(usb), "--verify")
    assert done.returncode == 0 and "keys/kek" in done.stdout, done
    done = gleaner_app(new, "restore", str(usb), "--key-file", str(data / "keys" / "kek"))
    assert done.returncode == 0 and "All is well" in done.stdout, done

    assert gleaner_app(new, "rotate-key").returncode == 0
    assert (new / "keys" / "kek").read_text() != (data / "keys" / "kek").read_text()
    done = gleaner_app(new, "fsck", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["is_healthy"], done

    done = gleaner_app(tmp_path / "other", "restore", str(usb), "--key-file", str(new / "keys" / "kek"))
    assert done.returncode == 1 and "not the key of snapshot" in done.stderr, done
    assert not (tmp_path / "other").exists()


def test_what_is_no_app_is_not_made_one(tmp_path: Path) -> None:
    for arguments in (["fsck"], ["backup", str(tmp_path / "usb")]):
        done = gleaner_app(tmp_path / "none", *arguments)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert "There is no app's data in" in done.stderr
    assert list(tmp_path.iterdir()) == []
