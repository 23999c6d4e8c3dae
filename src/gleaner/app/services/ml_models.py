"""Trained models: the packages of type `ml_model`, seen as models with versions, reports and deployments."""

from __future__ import annotations

import json
import math
from typing import Any

from gleaner.app.caller import Caller
from gleaner.app.errors import NotFound
from gleaner.app.services.deploy import DeployService
from gleaner.app.services.fleet_values import iso
from gleaner.app.services.packages import ML_MODEL, Package, PackageService

_DATASET = {"id", "name", "version", "item_count"}


class MlModelService:
    def __init__(self, packages: PackageService, deploy: DeployService) -> None:
        self._packages = packages
        self._deploy = deploy

    def listed(self, caller: Caller, organization_id: str) -> list[dict[str, Any]]:
        """Every model with its versions, newest model first."""
        models: dict[str, list[Package]] = {}
        for package in self._packages.listed(caller, organization_id, type=ML_MODEL):
            models.setdefault(package.name, []).append(package)
        return [self._model(caller, organization_id, name, versions) for name, versions in models.items()]

    def get(self, caller: Caller, organization_id: str, name: str) -> dict[str, Any]:
        versions = self._packages.listed(caller, organization_id, name=name, type=ML_MODEL)
        if not versions:
            raise NotFound(f"there is no model {name}", "Train one from a dataset, or upload a package.")
        return self._model(caller, organization_id, name, versions)

    def report(self, caller: Caller, organization_id: str, name: str, version: str) -> dict[str, Any]:
        """The training report; raises NotFound for a model that was not trained here."""
        package = self._packages.get(caller, organization_id, name, version)
        report: dict[str, Any] = json.loads(self._packages.member(package, "report.json"))
        return report

    def delete(self, caller: Caller, organization_id: str, name: str) -> int:
        """All versions. Machines that run it keep running what they have."""
        return self._packages.delete(caller, organization_id, name)

    def _model(self, caller: Caller, organization_id: str, name: str, versions: list[Package]) -> dict[str, Any]:
        newest = versions[0].about
        return {
            "id": f"{organization_id}:{name}",
            "name": name,
            "model_type": str(newest.get("model_type") or ""),
            "labels": _texts(newest.get("labels")),
            "versions": [_version(package) for package in versions],
            "deployments": [d.as_json() for d in self._deploy.deployments(caller, organization_id, name)],
        }


def _version(package: Package) -> dict[str, Any]:
    # What an uploaded package says about itself is anything; what training wrote has the right types.
    about, dataset = package.about, package.about.get("dataset")
    return {
        "version": package.version,
        "created_at": iso(package.created_ns),
        "accuracy": _number(about.get("accuracy")),
        "suggested_threshold": _number(about.get("suggested_threshold")),
        "size_bytes": package.size_bytes,
        "compared": package.compared,
        "held": package.is_held,
        "job_id": job_id if isinstance(job_id := about.get("job_id"), str) else None,
        "dataset": dataset if isinstance(dataset, dict) and dataset.keys() >= _DATASET else None,
    }


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
