"""What a user gets wrong is told in one line with what to do, and never as a traceback."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gleaner.machine.config_file import likely_misspelled
from gleaner.wire.machine_config import parse_config

ROOT = Path(__file__).resolve().parents[3]
EXTRAS = ("sqlalchemy", "fastapi", "uvicorn", "uvloop", "sqlcipher3", "obstore", "alembic", "argon2", "torch", "onnx")
#: Runs the command as if only the base install were there.
WITHOUT_EXTRAS = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r})); from gleaner.cli.main import app; app()"


def gleaner(*arguments: str, without_extras: bool = False) -> subprocess.CompletedProcess[str]:
    start = ["-c", WITHOUT_EXTRAS] if without_extras else ["-m", "gleaner.cli.main"]
    return subprocess.run([sys.executable, *start, *arguments], capture_output=True, text=True, timeout=60, check=False)


def the_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done
    [line] = [line for line in (done.stdout + done.stderr).splitlines() if line and " INFO " not in line]
    return line


@pytest.mark.parametrize("command", [["app"], ["demo", "--no-browser"]])
def test_the_base_install_names_the_extra(command: list[str], tmp_path: Path) -> None:
    arguments = [command[0], "--data-dir", str(tmp_path / "data"), *command[1:]]
    line = the_line(gleaner(*arguments, without_extras=True), 1)
    assert line.startswith(f"gleaner {command[0]} needs libraries that are not installed here (fastapi, uvicorn,")
    assert "Run: pip install 'gleaner[app]'" in line
    assert not (tmp_path / "data").exists()


def test_the_base_install_runs_a_machine(tmp_path: Path) -> None:
    camera = {"name": "cam", "api": "rdk:component:camera", "model": "gleaner:camera:sim"}
    manager = {"name": "data", "api": "rdk:service:data_manager", "model": "builtin"}
    config = {"network": {"bind_address": "127.0.0.1:0"}, "components": [camera], "services": [manager]}
    (tmp_path / "machine.json").write_text(json.dumps(config))
    command = [sys.executable, "-c", WITHOUT_EXTRAS, "machine", "--config", str(tmp_path / "machine.json")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--home", str(tmp_path / "home")], stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
        )
    assert process.stdout is not None
    try:
        assert next_ready(process), (tmp_path / "log").read_text()
        process.terminate()
        assert process.wait(15) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def next_ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return next((line for line in process.stdout if line.startswith("ready      camera cam, data_manager data")), "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tls-cert-file", "no.pem"], "needs both --tls-cert-file and --tls-key-file"),
        (["--tls-cert-file", "no.pem", "--tls-key-file", "no.key"], "no.pem cannot be read: No such file"),
        (["--tls-cert-file", __file__, "--tls-key-file", __file__], "is not a certificate in PEM form"),
        (["--host", "203.0.113.9"], "Choose an address of this computer with --host"),
        (["--host", "no host"], "Choose an address of this computer with --host"),
        (["--database-url", "nonsense"], "Write it like postgresql+psycopg://user@host/name"),
        (["--key-command", "false"], "The key command `false` failed"),
    ],
)
def test_an_app_that_cannot_start_says_why_in_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = gleaner("app", "--data-dir", str(tmp_path / "data"), "--port", "0", "--grpc-port", "0", *arguments)
    assert words in the_line(done, 1)


@pytest.mark.parametrize("command", [[], ["login-link"]])
def test_a_data_folder_that_cannot_be_used_is_one_line(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").touch()
    line = the_line(gleaner("app", "--data-dir", str(tmp_path / "file"), *command), 1)
    assert line.startswith(f"The data folder {tmp_path / 'file'} cannot be used: ")
    assert "Choose another --data-dir" in line


def test_a_port_that_is_taken_or_none_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        app = gleaner("app", "--data-dir", str(tmp_path / "app"), "--grpc-port", port, "--port", "0")
        demo = gleaner("demo", "--no-browser", "--data-dir", str(tmp_path / "demo"), "--port", port)
    assert "Choose another port with --grpc-port, or stop what uses it" in the_line(app, 1)
    found = re.search(r"make demo PORT=(\d+) \(gleaner demo --port \1\)", the_line(demo, 1))
    assert found, demo.stdout
    assert int(found[1]) > int(port) or found[1] == "8190"
    assert gleaner("app", "--port", "99999").returncode == 2


def test_a_login_link_can_be_followed_when_the_app_listens_everywhere(tmp_path: Path) -> None:
    link = the_line(gleaner("app", "--data-dir", str(tmp_path), "--host", "0.0.0.0", "login-link"), 0)
    assert re.match(r"https://[\w.:-]+:8090/login\?token=", link)
    assert "//0.0.0.0" not in link


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{\n "components": [\n  {"name": "a",}\n ]\n}', "line 3, column 16: "),
        (b"[1]", "it must be a JSON object"),
        (b"\xff\xfe{}", "the file cannot be read as text (byte 0)"),
    ],
)
def test_a_setup_file_that_is_none_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "machine.json"
    path.write_bytes(content)
    line = the_line(gleaner("machine", "--config", str(path), "--home", str(tmp_path / "home")), 2)
    assert line.startswith(f"{path} cannot be used: {words}")


def test_a_home_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "machine.json").write_text("{}")
    (tmp_path / "file").touch()
    done = gleaner("machine", "--config", str(tmp_path / "machine.json"), "--home", str(tmp_path / "file"))
    assert "choose another with --home" in the_line(done, 2)
    done = gleaner("machine", "--config", str(tmp_path), "--home", str(tmp_path / "home"))
    assert the_line(done, 2) == f"{tmp_path} cannot be used: the file cannot be read: Is a directory"


def test_keys_that_look_like_known_ones_are_named() -> None:
    camera = {"name": "c", "api": "rdk:component:camera", "model": "fake", "atributes": {}}
    config = parse_config({"component": [], "components": [camera], "processes": [], "network": {"bind_adress": ""}})
    assert likely_misspelled(config) == [
        "component: no such key, it is ignored. Did you mean components?",
        "components[0].atributes: no such key, it is ignored. Did you mean attributes?",
        "network.bind_adress: no such key, it is ignored. Did you mean bind_address?",
    ]


def test_an_old_python_is_named_with_what_to_do() -> None:
    fake = (
        "import sys; sys.path.insert(0, sys.argv[1]); import bootstrap; sys.version_info = (3, 9, 2, 'final', 0); "
        "bootstrap.platform.python_version = lambda: '3.9.2'; bootstrap.main()"
    )
    command = [sys.executable, "-c", fake, str(ROOT / "scripts")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Gleaner needs Python 3.11 or newer" in done.stderr
    assert "is 3.9.2" in done.stderr
    assert "make demo PYTHON=python3.12" in done.stderr
