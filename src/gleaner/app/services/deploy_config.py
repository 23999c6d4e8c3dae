"""A machine configuration with a model in it: the package, the ML model service, the vision service and the overlay camera.

Pure: takes a configuration, returns a new one. Doing it again changes only what must change (the version), and keeps
every setting a person has edited since.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from gleaner.app.errors import InvalidInput

CAMERA_API = "rdk:component:camera"
MLMODEL_API, MLMODEL = "rdk:service:mlmodel", "gleaner:mlmodel:onnx-cpu"
VISION_API, VISION = "rdk:service:vision", "rdk:builtin:mlmodel"
TRANSFORM = "rdk:builtin:transform"
_LONGEST_NAME = 60
_DETECTION = "object_detection"
NOISE_CONFIDENCE = 0.05
"""A detector answers with fifty boxes, most of them nothing: what it is less sure of than this is not worth sending to anybody."""


@dataclass(frozen=True)
class Names:
    """What the resources of a deployed model are called. `transform` is empty when there is no camera to draw on."""

    mlmodel: str
    vision: str
    transform: str
    camera: str


@dataclass(frozen=True)
class Deploy:
    organization_id: str
    model: str
    version: str
    model_type: str
    threshold: float
    camera: str = ""
    """Empty: the machine's only camera."""


def deployed(config: dict[str, Any], wanted: Deploy) -> tuple[dict[str, Any], Names]:
    """The configuration with the model, and the names used. Raises InvalidInput when the camera is not clear."""
    config = copy.deepcopy(config)
    names = names_for(wanted.model, _choose_camera(config, wanted))
    packages = config.setdefault("packages", [])
    package = _find(packages, "name", wanted.model)
    if package is None:
        package = {"name": wanted.model, "type": "ml_model"}
        packages.append(package)
    package |= {"package": f"{wanted.organization_id}/{wanted.model}", "version": wanted.version}

    services = config.setdefault("services", [])
    folder = f"${{packages.ml_model.{wanted.model}}}"
    model = _ensure(services, names.mlmodel, MLMODEL_API, MLMODEL)
    model["attributes"] |= {"model_path": f"{folder}/model.onnx", "label_path": f"{folder}/labels.txt"}
    vision = _ensure(services, names.vision, VISION_API, VISION)
    vision["attributes"]["mlmodel_name"] = names.mlmodel
    if wanted.model_type == _DETECTION:
        vision["attributes"].setdefault("default_minimum_confidence", NOISE_CONFIDENCE)
    if names.camera:
        vision["attributes"]["camera_name"] = names.camera
        overlay = _ensure(config.setdefault("components", []), names.transform, CAMERA_API, TRANSFORM)
        overlay["attributes"].setdefault("source", names.camera)
        overlay["attributes"].setdefault("pipeline", [_stage(wanted, names.vision)])
    return config, names


def undeployed(config: dict[str, Any], organization_id: str, model: str) -> dict[str, Any]:
    """The configuration without what `deployed` added."""
    config = copy.deepcopy(config)
    names = names_for(model, "")
    ours = {names.mlmodel, names.vision}
    config["packages"] = [p for p in config.get("packages") or [] if p.get("package") != f"{organization_id}/{model}"]
    config["services"] = [s for s in config.get("services") or [] if s.get("name") not in ours]
    config["components"] = [c for c in config.get("components") or [] if not _draws(c, names.vision)]
    return config


def find_names(config: dict[str, Any], model: str) -> Names:
    """The names in a configuration that already holds the model."""
    services = config.get("services") or []
    folder = f"${{packages.ml_model.{model}}}"
    attributes = [(s.get("name", ""), s.get("attributes") or {}) for s in services]
    mlmodel = next((n for n, a in attributes if str(a.get("model_path", "")).startswith(folder)), "")
    vision = next((n for n, a in attributes if mlmodel and a.get("mlmodel_name") == mlmodel), "")
    camera = next((str(a.get("camera_name", "")) for n, a in attributes if n == vision), "")
    overlay = next((c["name"] for c in config.get("components") or [] if vision and _draws(c, vision)), "")
    return Names(mlmodel, vision, overlay, camera)


def names_for(model: str, camera: str) -> Names:
    transform = f"{camera}-{model}"[:_LONGEST_NAME] if camera else ""
    return Names(f"{model}-model", f"{model}-vision", transform, camera)


def cameras(config: dict[str, Any]) -> list[str]:
    """Cameras that see something themselves: overlays and other transforms are left out."""
    found = []
    for entry in config.get("components") or []:
        is_camera = entry.get("api") == CAMERA_API or entry.get("type") == "camera"
        if is_camera and str(entry.get("model", "")).rsplit(":", 1)[-1] != "transform":
            found.append(entry["name"])
    return found


def _choose_camera(config: dict[str, Any], wanted: Deploy) -> str:
    known = cameras(config)
    if wanted.camera:
        all_names = {c.get("name") for c in config.get("components") or []}
        if wanted.camera not in all_names:
            raise InvalidInput(f"the machine has no camera {wanted.camera!r}", f"It has: {', '.join(known) or 'none'}.")
        return wanted.camera
    used = find_names(config, wanted.model).camera
    if used:
        return used
    if len(known) > 1:
        raise InvalidInput("the machine has several cameras", f"Choose one: {', '.join(known)}.")
    return known[0] if known else ""


def _stage(wanted: Deploy, vision: str) -> dict[str, Any]:
    threshold = {"confidence_threshold": wanted.threshold}
    if wanted.model_type == _DETECTION:
        return {"type": "detections", "attributes": {"detector_name": vision, **threshold}}
    most = {"max_classifications": 5} if wanted.model_type == "multi_label_classification" else {}
    return {"type": "classifications", "attributes": {"classifier_name": vision, **threshold, **most}}


def _ensure(entries: list[dict[str, Any]], name: str, api: str, model: str) -> dict[str, Any]:
    """The entry of that name, made if missing. Raises InvalidInput if something else has the name."""
    entry = _find(entries, "name", name)
    if entry is None:
        entry = {"name": name, "api": api, "model": model, "attributes": {}}
        entries.append(entry)
    if entry.get("api") not in (api, None) or entry.get("model") != model:
        raise InvalidInput(f"the machine already has something else named {name!r}", "Rename it, then deploy again.")
    entry.setdefault("attributes", {})
    return entry


def _find(entries: list[dict[str, Any]], key: str, value: str) -> dict[str, Any] | None:
    return next((entry for entry in entries if entry.get(key) == value), None)


def _draws(component: dict[str, Any], vision: str) -> bool:
    for stage in (component.get("attributes") or {}).get("pipeline") or []:
        attributes = stage.get("attributes") or {}
        if vision in (attributes.get("classifier_name"), attributes.get("detector_name")):
            return True
    return False
