from __future__ import annotations

from pathlib import Path

import pytest

from gleaner.app.keys import KeyProblem, Keys, new_kek

KEY = "ab" * 32


def test_keys_are_made_once_and_are_private(tmp_path: Path) -> None:
    first = Keys.open(tmp_path / "data", {})
    assert Keys.open(tmp_path / "data", {}) == first
    assert first.database != first.tokens
    for path in (tmp_path / "data", tmp_path / "data" / "keys"):
        assert path.stat().st_mode & 0o777 == 0o700
    for file in (tmp_path / "data" / "keys").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    assert first.database not in b"".join(file.read_bytes() for file in (tmp_path / "data" / "keys").iterdir())


def test_key_file_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    Keys.open(tmp_path, {})
    (tmp_path / "keys" / "kek").chmod(0o644)
    with pytest.raises(KeyProblem, match="chmod 600"):
        Keys.open(tmp_path, {})


def test_key_comes_from_the_environment_or_a_command(tmp_path: Path) -> None:
    opened = Keys.open(tmp_path, {"GLEANER_KEY": KEY})
    assert not (tmp_path / "keys" / "kek").exists()
    assert Keys.open(tmp_path, {}, f"echo {KEY}") == opened


def test_data_of_another_key_is_refused(tmp_path: Path) -> None:
    Keys.open(tmp_path, {"GLEANER_KEY": KEY})
    with pytest.raises(KeyProblem, match="another key-encryption key"):
        Keys.open(tmp_path, {"GLEANER_KEY": "cd" * 32})


def test_lost_key_file_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    Keys.open(tmp_path, {})
    (tmp_path / "keys" / "kek").unlink()
    with pytest.raises(KeyProblem, match="backup"):
        Keys.open(tmp_path, {})


@pytest.mark.parametrize("text", ["", "short", "zz" * 32, "YWJj"])
def test_nonsense_is_no_key(tmp_path: Path, text: str) -> None:
    with pytest.raises(KeyProblem, match=r"64 hex digits|failed"):
        Keys.open(tmp_path, {}, f"printf %s '{text}'")


def test_failing_key_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyProblem, match="no-such-command"):
        Keys.open(tmp_path, {}, "no-such-command")


def test_wrapped_keys_open_for_their_purpose_only(tmp_path: Path) -> None:
    keys = Keys.open(tmp_path, {})
    wrapped = keys.wrap(b"k" * 32, "pack")
    assert keys.unwrap(wrapped, "pack") == b"k" * 32
    with pytest.raises(KeyProblem):
        keys.unwrap(wrapped, "spool")


def test_a_new_key_opens_what_earlier_ones_protect_and_they_open_nothing_new(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = Keys.open(data, {})
    old_kek = (data / "keys" / "kek").read_text()
    wrapped = first.wrap(b"k" * 32, "pack")
    for _ in range(2):
        current = Keys.open(data, {})
        current.rotated(data, new_kek()).take_over(data)
    opened = Keys.open(data, {})
    assert (opened.database, opened.tokens) == (first.database, first.tokens)
    assert opened.unwrap(wrapped, "pack") == b"k" * 32
    assert opened.kek_id != first.kek_id
    with pytest.raises(KeyProblem, match="another key-encryption key"):
        Keys.open(data, {"GLEANER_KEY": old_kek})
    with pytest.raises(KeyProblem):
        first.unwrap(opened.wrap(b"k" * 32, "pack"), "pack")


def test_a_rotation_cut_off_at_any_step_leaves_a_key_that_opens_everything(tmp_path: Path) -> None:
    first = Keys.open(tmp_path, {})
    second = first.rotated(tmp_path, new_kek())  # killed before the new one took over
    assert Keys.open(tmp_path, {}).database == first.database
    second.take_over(tmp_path)
    assert Keys.open(tmp_path, {}) == second
    assert Keys.open(tmp_path, {}).database == first.database


def test_a_key_can_come_back(tmp_path: Path) -> None:
    keys = Keys.open(tmp_path, {"GLEANER_KEY": KEY})
    wrapped = keys.wrap(b"k" * 32, "pack")
    keys.rotated(tmp_path, bytes.fromhex("cd" * 32))
    keys = Keys.open(tmp_path, {"GLEANER_KEY": "cd" * 32})
    between = keys.wrap(b"m" * 32, "pack")
    keys.rotated(tmp_path, bytes.fromhex(KEY))
    keys = Keys.open(tmp_path, {"GLEANER_KEY": KEY})
    assert (keys.unwrap(wrapped, "pack"), keys.unwrap(between, "pack")) == (b"k" * 32, b"m" * 32)
