"""How a configured module is started: its program, folder and environment, and what meta.json asks for before."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gleaner.machine.modules.program import Program
from gleaner.machine.placeholders import PackageLocation, PackageSource, resolve
from gleaner.wire.durations import parse_duration_ns
from gleaner.wire.machine_config import CloudConfig, MachineConfig, ModuleConfig

# Source: Viam's documented limit and marker of first_run.
FIRST_RUN_LIMIT_S = 3600.0
FIRST_RUN_MARKER = ".first_run_succeeded"


class CannotLaunch(Exception):
    """The module cannot be started as things are; the message says why and what to do."""


@dataclass(frozen=True)
class Launch:
    """Everything that makes a run of a module what it is. Equal launches: the running program stays."""

    config: ModuleConfig
    program: Path
    folder: Path
    """The unpacked package, or where the program is."""
    environment: tuple[tuple[str, str], ...]


def plan_launch(
    module: ModuleConfig, machine: MachineConfig, packages: PackageSource, home: Path, cloud: CloudConfig | None
) -> Launch:
    """Raises CannotLaunch."""
    resolved = resolve({"path": module.executable_path, "env": module.env}, packages)
    if resolved.waits_for:
        raise CannotLaunch(f"module {module.name!r} {resolved.waits_for}")
    if module.type == "registry" or not module.executable_path:
        program, folder = _packaged(module, packages, str(resolved.attributes["path"]))
    else:
        program = Path(resolved.attributes["path"]).expanduser().absolute()
        folder = next((p.folder for p in resolved.packages.values() if p.folder is not None), program.parent)
    if not program.is_file():
        raise CannotLaunch(f"module {module.name!r}: there is no program {program}: correct executable_path")
    if not os.access(program, os.X_OK):
        raise CannotLaunch(f"module {module.name!r}: {program} may not be executed: chmod +x {program}")
    environment = _viam_environment(module, machine, home, cloud, folder) | dict(resolved.attributes["env"])
    return Launch(module, program, folder, tuple(sorted(environment.items())))


def _packaged(module: ModuleConfig, packages: PackageSource, path: str) -> tuple[Path, Path]:
    """A registry module can run when its package came from the app; the registry itself is not asked."""
    names = [module.name, module.module_id.replace(":", "_"), module.module_id.replace(":", "-")]
    location = next((found for name in names if name and (found := packages.locate(name, "module"))), None)
    if location is None:
        raise CannotLaunch(
            f"module {module.name!r} is in Viam's registry ({module.module_id or 'no module_id'}), which is not reached "
            "from here: copy its files to this machine and set type to local and executable_path to its program"
        )
    folder = _folder(module, location)
    if path:
        return Path(path), folder
    entry = read_meta(folder).get("entrypoint")
    if not entry:
        raise CannotLaunch(f"module {module.name!r}: {folder / 'meta.json'} names no entrypoint: set executable_path")
    return folder / str(entry), folder


def _folder(module: ModuleConfig, location: PackageLocation) -> Path:
    if location.folder is None:
        raise CannotLaunch(
            f"module {module.name!r} waits for package {location.name!r}: {location.problem or 'not downloaded yet'}"
        )
    return location.folder


def read_meta(folder: Path) -> Mapping[str, Any]:
    """meta.json of a module; empty when it has none. Raises CannotLaunch."""
    path = folder / "meta.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CannotLaunch(f"{path} cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}


def _viam_environment(
    module: ModuleConfig, machine: MachineConfig, home: Path, cloud: CloudConfig | None, folder: Path
) -> dict[str, str]:
    """What Viam promises a module; paths of sockets are added at each start."""
    part = cloud.id if cloud is not None else "local"
    values = {
        "VIAM_HOME": str(home),
        "VIAM_MODULE_NAME": module.name,
        "VIAM_MODULE_ROOT": str(folder),
        "VIAM_MODULE_DATA": str(home / "module-data" / part / module.name),
        "VIAM_MODULE_ID": module.module_id,
        "VIAM_PRIMARY_ORG_ID": cloud.organization_id if cloud else "",
        "VIAM_LOCATION_ID": cloud.location_id if cloud else "",
        "VIAM_MACHINE_ID": cloud.machine_id if cloud else "",
        "VIAM_MACHINE_PART_ID": cloud.id if cloud else "",
    }
    for handler in machine.auth.get("handlers") or []:
        keys = {} if handler.get("type") != "api-key" else handler.get("config") or {}
        for key_id, key in keys.items():
            if key_id != "keys" and isinstance(key, str) and "VIAM_API_KEY" not in values:
                values |= {"VIAM_API_KEY_ID": key_id, "VIAM_API_KEY": key}
    return {name: value for name, value in values.items() if value}


async def run_first(launch: Launch, environment: Mapping[str, str], log: logging.Logger) -> None:
    """The module's own preparation, once for each version of its script. Raises CannotLaunch."""
    script_name = (await asyncio.to_thread(read_meta, launch.folder)).get("first_run")
    if not script_name:
        return
    script = launch.folder / str(script_name)
    if not script.is_file():
        raise CannotLaunch(f"first_run of {launch.folder / 'meta.json'}: there is no {script}")
    digest = await asyncio.to_thread(lambda: hashlib.blake2b(script.read_bytes(), digest_size=16).hexdigest())
    marker = launch.folder / FIRST_RUN_MARKER
    if marker.exists() and marker.read_text(encoding="utf-8").strip() in ("", digest):
        return
    log.info("first_run: %s", script)
    await _run_script(launch, script, environment, log)
    try:
        marker.write_text(digest + "\n", encoding="utf-8")
    except OSError as error:
        log.warning("first_run runs again at the next start: %s cannot be written: %s", marker, error.strerror)


async def _run_script(launch: Launch, script: Path, environment: Mapping[str, str], log: logging.Logger) -> None:
    limit_s = _first_run_limit_s(launch.config)
    program = await Program.start([str(script)], environment, launch.folder, log)
    try:
        async with asyncio.timeout(limit_s):
            ending = await program.wait()
    except TimeoutError as error:
        raise CannotLaunch(
            f"first_run ({script}) took longer than {limit_s:g} s: make it faster or raise first_run_timeout"
        ) from error
    finally:
        await program.stop(1.0)
    if not ending.startswith("ended with code 0"):
        raise CannotLaunch(f"first_run ({script}) {ending}")


def _first_run_limit_s(module: ModuleConfig) -> float:
    if not module.first_run_timeout:
        return FIRST_RUN_LIMIT_S
    try:
        return parse_duration_ns(module.first_run_timeout) / 1e9
    except ValueError as error:
        raise CannotLaunch(f"first_run_timeout of module {module.name!r}: {error}") from error
