"""`gleaner demo`: an app and a simulated rover, one URL, one Ctrl-C.

The rover is set up once, over the same REST API that a user's script would use; later starts only start the two parts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gleaner.cli import processes
from gleaner.cli.extras import need_app_extra
from gleaner.cli.rest_client import RestClient, RestError

HOST = "127.0.0.1"
START_S = 30.0


@dataclass(frozen=True)
class Ports:
    web: int
    grpc: int
    machine: int


class CannotStart(Exception):
    """One line that says what is in the way, and one that says what to do."""


def demo(
    data_dir: Annotated[Path, typer.Option(help="Where the demo keeps its data; delete it to start afresh.")] = Path(
        "demo-data"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Web pages.")] = 8090,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Viam's app API, for SDK clients.")] = 8091,
    machine_port: Annotated[int, typer.Option(min=1, max=65535, help="The rover's own robot API.")] = 8080,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
) -> None:
    """Start the whole loop with a simulated rover: prints one URL with a one-time login. Ctrl-C ends everything."""
    need_app_extra("gleaner demo")
    console = Console(highlight=False, soft_wrap=True)
    stop = threading.Event()
    children: list[processes.Child] = []

    def end(_number: int, _frame: object) -> None:
        stop.set()
        if not children:
            raise KeyboardInterrupt  # nothing runs yet that would have to end in order

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        url = _start(data_dir.resolve(), Ports(port, grpc_port, machine_port), children, console, stop)
        if url:
            _tell(console, url, data_dir, opened=not no_browser and _open(url))
            _watch(children, stop)
    except CannotStart as problem:
        console.print(f"[red]{problem}[/red]")
        raise typer.Exit(1) from None
    finally:
        # The machine first: what it captured stays on its disk and is sent at the next start.
        for child in reversed(children):
            child.stop()


def _start(folder: Path, ports: Ports, children: list[processes.Child], console: Console, stop: threading.Event) -> str:
    """Starts app, then rover. Returns the login link, or nothing when it was stopped meanwhile."""
    _check_ports(ports)
    with console.status("Starting the app"):
        link = _login_link(folder, ports)
        if stop.is_set():
            return ""
        children.append(_start_app(folder, ports))
        is_up = processes.wait_until_answering(children[0], f"http://{HOST}:{ports.web}/api/auth/me", stop, START_S)
        if stop.is_set():
            return ""
        if not is_up:
            raise CannotStart(f"The app did not start. The end of {children[0].log}:\n{children[0].last_lines()}")
    setup = folder / "rover" / "machine.json"
    if not setup.exists():
        with console.status("Setting up the rover"):
            _set_up_rover(folder, ports, setup)
    _point_at(setup, ports)
    if stop.is_set():
        return ""
    children.append(_start_machine(setup))
    return link


def _check_ports(ports: Ports) -> None:
    for what, number, option in (
        ("web pages", ports.web, "--port"),
        ("gRPC", ports.grpc, "--grpc-port"),
        ("rover", ports.machine, "--machine-port"),
    ):
        if not processes.port_is_free(HOST, number):
            free = next((each for each in range(number + 10, 65536) if processes.port_is_free(HOST, each)), 8190)
            variable = option.strip("-").replace("-", "_").upper()
            raise CannotStart(
                f"Port {number} (for the {what}) is in use by another program. Stop that program, "
                f"or choose another port: make demo {variable}={free} (gleaner demo {option} {free})"
            )


def _login_link(folder: Path, ports: Ports) -> str:
    """Made beside the app, on its database: the link works however often the demo was started before."""
    from gleaner.app.assembly import build_context
    from gleaner.app.database import NewerSchema
    from gleaner.app.keys import KeyProblem
    from gleaner.app.server import CannotStart as AppCannotStart
    from gleaner.app.server import prepare_data_dir
    from gleaner.app.settings import Settings

    settings = Settings(data_dir=folder / "app", port=ports.web, grpc_port=ports.grpc)
    try:
        prepare_data_dir(settings.data_dir)
        context = build_context(settings)
    except (AppCannotStart, KeyProblem) as problem:
        raise CannotStart(str(problem)) from problem
    try:
        context.database.create_tables()
        context.auth.bootstrap(settings.owner_email)
        return f"http://{HOST}:{ports.web}/login?token={context.auth.create_login_link()}"
    except NewerSchema as problem:
        raise CannotStart(str(problem)) from problem
    finally:
        context.database.close()


def _start_app(folder: Path, ports: Ports) -> processes.Child:
    command = [sys.executable, "-m", "gleaner.cli.main", "app", "--data-dir", str(folder / "app")]
    command += ["--port", str(ports.web), "--grpc-port", str(ports.grpc)]
    return processes.start("app", command, folder / "app.log")


def _start_machine(setup: Path) -> processes.Child:
    command = [sys.executable, "-m", "gleaner.cli.main", "machine", "--config", str(setup), "--home", str(setup.parent)]
    return processes.start("rover", command, setup.parent.parent / "rover.log")


def _set_up_rover(folder: Path, ports: Ports, setup: Path) -> None:
    client = RestClient(f"http://{HOST}:{ports.web}")
    try:
        client.log_in(_login_link(folder, ports))
        organization = client.get("/auth/me")["organizations"][0]["id"]
        location = client.get(f"/organizations/{organization}/locations")[0]["id"]
        machine = client.post("/machines", {"name": "rover", "location_id": location})
        part = machine["parts"][0]["id"]
        known = client.get(f"/parts/{part}/config")
        client.put(f"/parts/{part}/config", {"config": rover_config(ports), "base_revision": known["revision"]})
        machine_json = client.post(f"/parts/{part}/secret", {})["machine_json"]
    except RestError as error:
        raise CannotStart(
            f"The rover could not be set up: {error}. The app's output is in {folder / 'app.log'}"
        ) from error
    _write_private(setup, machine_json)


def _point_at(setup: Path, ports: Ports) -> None:
    """Ports may differ from the last start; so may the rover's own, which its configuration in the app holds."""
    value = json.loads(setup.read_text())
    wanted = {"app_address": f"http://{HOST}:{ports.grpc}", "web_address": f"http://{HOST}:{ports.web}"}
    network = {"bind_address": f"{HOST}:{ports.machine}"}
    if {**value["cloud"], **wanted} != value["cloud"] or value.get("network") != network:
        _write_private(setup, {**value, "cloud": {**value["cloud"], **wanted}, "network": network})


def _write_private(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        json.dump(value, handle, indent=2)
    temporary.rename(path)


def rover_config(ports: Ports) -> dict[str, Any]:
    """A camera that captures once a second, a base to drive, a sensor, and the data manager that sends every three seconds."""
    capture = {
        "type": "data_manager",
        "attributes": {"capture_methods": [{"method": "GetImages", "capture_frequency_hz": 1.0}]},
    }
    readings = {
        "type": "data_manager",
        "attributes": {"capture_methods": [{"method": "Readings", "capture_frequency_hz": 0.2}]},
    }
    return {
        "components": [
            {
                "name": "cam",
                "api": "rdk:component:camera",
                "model": "gleaner:camera:sim",
                "attributes": {},
                "service_configs": [capture],
            },
            {"name": "base", "api": "rdk:component:base", "model": "gleaner:base:sim", "attributes": {}},
            {
                "name": "computer",
                "api": "rdk:component:sensor",
                "model": "gleaner:sensor:system",
                "attributes": {},
                "service_configs": [readings],
            },
        ],
        "services": [
            {
                "name": "data-manager",
                "api": "rdk:service:data_manager",
                "model": "rdk:builtin:builtin",
                "attributes": {"sync_interval_mins": 0.05},
            },
        ],
    }


def _open(url: str) -> bool:
    """Opens a browser where a person sits in front of a screen."""
    if not sys.stdout.isatty() or (
        sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    ):
        return False
    return webbrowser.open(url)


def _tell(console: Console, url: str, data_dir: Path, opened: bool) -> None:
    console.print("\n  Gleaner is running, with a simulated rover that captures a picture every second.\n")
    console.print(f"  {'Opened' if opened else 'Open'}  [bold cyan]{url}[/bold cyan]   (logs you in, once)\n")
    console.print(
        f"  Drive it with W A S D under Machines → rover → Control. Data and logs: {data_dir}/   Ctrl-C ends everything.\n"
    )


def _watch(children: list[processes.Child], stop: threading.Event) -> None:
    while not stop.wait(0.2):
        for child in children:
            if not child.is_running:
                # Time for a log line that is still on its way to the file.
                time.sleep(0.2)
                raise CannotStart(f"The {child.name} ended unexpectedly. The end of {child.log}:\n{child.last_lines()}")
