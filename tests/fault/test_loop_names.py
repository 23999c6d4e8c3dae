"""A name service that fails and comes back: the machine captures on, says so, and sends everything."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_loop import Loop, answers, assert_nothing_lost_or_doubled, settle, wait_for

NAME = "gleaner-app.test"
KNOWN, UNKNOWN = f"127.0.0.1 localhost {NAME}\n", "127.0.0.1 localhost\n"


def with_own_names(folder: Path) -> list[str]:
    """Runs a command whose /etc/hosts and /etc/resolv.conf are files of `folder`; its process id stays."""
    (folder / "hosts").write_text(KNOWN)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    mounts = " && ".join(f"mount --bind {folder / name} /etc/{name}" for name in ("hosts", "resolv.conf"))
    command = ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"needs the right to mount: {tried.stderr.decode().strip()}")
    return command


@pytest.mark.slow
def test_a_name_service_that_fails_and_comes_back_costs_nothing(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    web, grpc, machine = free_ports(3)
    loop = Loop(tmp_path, (web, grpc, machine), machine_at=with_own_names(tmp_path), app_name=NAME)
    loop.app.start()
    try:
        loop.log_in()
        loop.set_up()
        loop.machine.start()
        wait_for(loop.items, 60, lambda: "no first picture: " + loop.machine.log.read_text()[-2000:])
        (tmp_path / "hosts").write_text(UNKNOWN)
        loop.app.stop()  # every connection has to be made anew, by name
        loop.app.start()
        words = f"the name {NAME} cannot be looked up"
        wait_for(lambda: words in loop.machine.log.read_text(), 60, lambda: loop.machine.log.read_text()[-2000:])
        wait_for(lambda: answers(loop), 60, lambda: "the app did not come back: " + loop.app.log.read_text()[-2000:])
        known, captured = loop.items(), loop.ledger()["Readings"]["captured"]
        wait_for(lambda: loop.ledger()["Readings"]["captured"] > captured + 10, 30, lambda: str(loop.ledger()))
        assert loop.items() == known
        (tmp_path / "hosts").write_text(KNOWN)
        settle(loop)
        assert_nothing_lost_or_doubled(loop, at_least=10)
        assert loop.machine.log.read_text().count(words) <= 4, "one line for each change of state and connection"
    finally:
        loop.machine.stop()
        loop.app.stop()
