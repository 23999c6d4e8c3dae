"""What several kinds of tests share: free ports, real photos, a Chromium, and the whole stack as `make demo` starts it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from bucket_server import BucketServer
    from gleaner.app.settings import Settings
    from postgres import Server

ROOT = Path(__file__).resolve().parent.parent
# How long an example takes is the machine's business: a loaded one must not fail a test. A change must not fail because of
# an example that has nothing to do with it either: the same ones every time here, others with `make search`.
settings.register_profile("gleaner", deadline=None, derandomize="GLEANER_SEARCH" not in os.environ)
settings.load_profile("gleaner")
LEFT_BEHIND = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="what apps that tests start in their own process keep metadata in (the store's tests use both anyway)",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Tests never read or write the state of the person who runs them.
    os.environ.pop("VIAM_HOME", None)
    os.environ.pop("GLEANER_KEY", None)


ORDER = ("unit", "property", "compat", "fault", "journey")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quick kinds first. The browser's last: Playwright keeps an event loop in the main thread while its browser is open."""
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(ROOT / "tests").parts[0]))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """Ports nobody listens on, for programs that are told their port before they start."""
    return _free_ports


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photos; tests that need it are skipped where it is missing."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "signs").is_dir():
        pytest.skip(f"the photos are not here ({folder}): see docs/development.md")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[tuple[Server, str]]:
    """A server, and the name of a database in it that has the app's tables."""
    from gleaner.app.database import Database
    from postgres import postgres_server

    with postgres_server() as server, server.database() as template:
        database = Database.from_url(server.url(template))
        database.create_tables()
        database.close()
        yield server, template


@pytest.fixture(scope="session")
def buckets() -> Iterator[BucketServer]:
    from bucket_server import bucket_server

    with bucket_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: tuple[Server, str]) -> Iterator[str]:
    """A database of the test's own that has the app's tables."""
    server, template = postgres
    with server.database(template) as name:
        yield server.url(name)


@pytest.fixture(autouse=True)
def _database_of_apps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With `--database postgresql`: each data folder gets a database of its own there, for the length of the test."""
    if request.config.getoption("--database") == "sqlite":
        yield
        return
    from gleaner.app import assembly
    from gleaner.app.database import Database

    server, template = request.getfixturevalue("postgres")
    with contextlib.ExitStack() as databases:
        names: dict[Path, str] = {}

        def opened(settings: Settings, keys: object) -> Database:
            if settings.data_dir not in names:
                names[settings.data_dir] = databases.enter_context(server.database(template))
            return Database.from_url(server.url(names[settings.data_dir]))

        monkeypatch.setattr(assembly, "_open_database", opened)
        yield


@pytest.fixture(scope="session")
def chromium_path() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    if not Path(path).exists():
        pytest.skip(
            "no Chromium on this machine: install Debian's chromium package or run `playwright install chromium`"
        )
    return path


_first_seen: dict[threading.Thread, str] = {}


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(nodeid: str) -> None:
    """Remembers during which test a thread appeared, so that one which never ends can be traced to it."""
    for thread in threading.enumerate():
        _first_seen.setdefault(thread, nodeid)


def _left_behind() -> list[str]:
    threads = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in threads:
        thread.join(5)
    return [f"thread {t.name!r} of {_first_seen.get(t, 'the last test')}" for t in threads if t.is_alive()]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A thread that a test left running would keep the interpreter from ending, long after the last line was printed."""
    session.config.stash[LEFT_BEHIND] = left = _left_behind()
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for one in config.stash.get(LEFT_BEHIND, []):
        terminalreporter.write_line(f"LEFT BEHIND: {one}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if config.stash.get(LEFT_BEHIND, []):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
