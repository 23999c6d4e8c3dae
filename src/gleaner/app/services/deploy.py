"""One-click deployment: puts a model into a machine's configuration and tells how far the machine has come with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gleaner.app.caller import Caller
from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.services.deploy_config import Deploy, Names, deployed, find_names, undeployed
from gleaner.app.services.fleet import FleetService
from gleaner.app.services.packages import ML_MODEL, PackageService

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Deployment:
    part_id: str
    part_name: str
    machine_id: str
    machine_name: str
    version: str
    wanted_version: str
    state: str
    error: str
    latency_ms: float | None
    names: Names

    def as_json(self) -> dict[str, Any]:
        return {
            "part": {"id": self.part_id, "name": self.part_name},
            "machine": {"id": self.machine_id, "name": self.machine_name},
            "version": self.version,
            "wanted_version": self.wanted_version,
            "state": self.state,
            "error": self.error,
            "latency_ms": self.latency_ms,
            "mlmodel": self.names.mlmodel,
            "vision": self.names.vision,
            "transform": self.names.transform,
            "camera": self.names.camera,
        }


class DeployService:
    def __init__(self, fleet: FleetService, packages: PackageService) -> None:
        self._fleet = fleet
        self._packages = packages

    def deploy(
        self,
        caller: Caller,
        part_id: str,
        model: str,
        version: str = "latest",
        camera: str = "",
        *,
        even_if_worse: bool = False,
    ) -> Deployment:
        """Edits and saves the part's configuration.

        Raises NotFound for an unknown model, version or part, Conflict for a version that is held back.
        """
        self._fleet.part(caller, part_id, owner=True)
        place = self._fleet.place(part_id)
        if place is None:
            raise NotFound(f"there is no machine part {part_id}", "Choose a machine from the list.")
        package = self._packages.get(caller, place.organization_id, model, version or "latest")
        if package.type != ML_MODEL:
            raise InvalidInput(f"{model} is a package of type {package.type}", "Choose a model.")
        compared = package.compared
        if compared and package.is_held and version not in ("", "latest") and not even_if_worse:
            raise Conflict(
                f"Version {version} of {model} did worse than version {compared['version']}: {_figures(compared)}",
                "Look at its wrong pictures, train it anew, or deploy it all the same.",
            )
        saved = self._fleet.configs.current(part_id)
        threshold = package.about.get("suggested_threshold") or DEFAULT_THRESHOLD
        wanted = Deploy(
            organization_id=place.organization_id,
            model=model,
            version=version or "latest",
            model_type=str(package.about.get("model_type", "")),
            threshold=round(float(threshold), 2),
            camera=camera,
        )
        config, _ = deployed(saved.config, wanted)
        self._fleet.put_config(caller, part_id, config, saved.revision)
        return self.deployment(part_id, model)

    def remove(self, caller: Caller, part_id: str, model: str) -> None:
        self._fleet.part(caller, part_id, owner=True)
        place, saved = self._fleet.place(part_id), self._fleet.configs.current(part_id)
        assert place is not None
        self._fleet.put_config(caller, part_id, undeployed(saved.config, place.organization_id, model), saved.revision)

    def deployments(self, caller: Caller, organization_id: str, model: str) -> list[Deployment]:
        visible = {part.id for machine in self._fleet.machines(caller, organization_id) for part in machine.parts}
        using = self._fleet.configs.parts_using(f"{organization_id}/{model}")
        return [self.deployment(part_id, model) for part_id in using if part_id in visible]

    def deployment(self, part_id: str, model: str) -> Deployment:
        """How far a part has come, from what it last reported about itself."""
        place, served = self._fleet.place(part_id), self._fleet.configs.served(part_id)
        assert place is not None
        names = find_names(served.config, model)
        full = f"{place.organization_id}/{model}"
        entry: dict[str, Any] = next((p for p in served.config.get("packages") or [] if p.get("package") == full), {})
        written = self._fleet.configs.current(part_id).config.get("packages") or []
        wanted = next((p.get("version", "latest") for p in written if p.get("package") == full), "latest")
        now = self._fleet.presence.now(part_id)
        online = self._fleet.presence.online_state(part_id, 1) == "online"
        state, error = deployment_state(
            now.status, served.revision, str(entry.get("name", model)), names, online=online
        )
        return Deployment(
            place.part_id,
            place.part_name,
            place.machine_id,
            place.machine_name,
            str(entry.get("version", "latest")),
            wanted,
            state,
            error,
            _latency_ms(now.status, names),
            names,
        )


def _latency_ms(status: dict[str, Any], names: Names) -> float | None:
    resources = {r.get("name"): r for r in status.get("resources") or []}
    found = resources.get(names.mlmodel, {}).get("latency_ms")
    return float(found) if isinstance(found, int | float) else None


def _figures(compared: dict[str, Any]) -> str:
    """Of both versions on the same test pictures, in words."""
    names = {"map50": "mAP50", "macro_f1": "F1"}
    if None in (compared["now"], compared["before"]) or compared["measure"] not in names:
        now, before = compared["right_now"], compared["right_before"]
        return f"{now} of {compared['pictures']} test pictures right, {before} before"
    name, now, before = names[compared["measure"]], compared["now"], compared["before"]
    return f"{name} {now:.1%} on {compared['pictures']} test pictures, {before:.1%} before"


def deployment_state(
    status: dict[str, Any], revision: str, package: str, names: Names, *, online: bool
) -> tuple[str, str]:
    """(state, error) from the machine's own status. A machine that does not have the newest configuration is `saving`."""
    if not online or not status:
        return "offline", ""
    if status.get("revision") != revision:
        return "saving", ""
    packages = {p.get("name"): p for p in status.get("packages") or []}
    reported = packages.get(package)
    if reported is None:
        return "downloading", ""
    if reported.get("state") == "failed":
        return "failed", str(reported.get("error") or "the machine could not get the package")
    if reported.get("state") != "ready":
        return "loading" if reported.get("state") == "loading" else "downloading", ""
    resources = {r.get("name"): r for r in status.get("resources") or []}
    for name in (names.mlmodel, names.vision):
        resource = resources.get(name, {})
        if name and resource.get("state") == "unhealthy":
            return "failed", f"{name}: {resource.get('error') or 'not healthy'}"
        if name and resource.get("state") != "ready":
            return "loading", ""
    return "running", ""
