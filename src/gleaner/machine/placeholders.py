"""`${packages.…}` and `${environment.…}` in attributes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

# Source of the package form: packages(.<type>)?.<name>, the name of word characters, colons, slashes and dashes.
_PLACEHOLDER = re.compile(r"\$\{(?:packages(?:\.(ml_model|module|slam_map|archive))?\.([\w:/-]+)|environment\.(\w+))\}")


@dataclass(frozen=True)
class PackageLocation:
    """Where a configured package is. `folder` is None while it is not on the machine; `problem` says why."""

    name: str
    version: str
    folder: Path | None
    problem: str = ""


class PackageSource(Protocol):
    """The packages of a machine, as its resources see them."""

    def locate(self, name: str, kind: str) -> PackageLocation | None:
        """The version to use now; None when no such package is configured. `kind` is empty for any type."""

    def loaded(self, name: str, version: str) -> None:
        """A resource runs with this version."""

    def rejected(self, name: str, version: str, error: str) -> None:
        """A resource could not be built with this version: an earlier one, if there is one, is used again."""


class NoPackages:
    def locate(self, name: str, kind: str) -> PackageLocation | None:
        return None

    def loaded(self, name: str, version: str) -> None:
        return

    def rejected(self, name: str, version: str, error: str) -> None:
        return


@dataclass
class Resolved:
    """Attributes with their placeholders replaced; names that are not known stay as they are."""

    attributes: Any = None
    packages: dict[str, PackageLocation] = field(default_factory=dict)

    @property
    def waits_for(self) -> str:
        """Why the attributes cannot be used yet; empty when they can."""
        for location in self.packages.values():
            if location.folder is None:
                return f"waits for package {location.name!r}: {location.problem or 'not downloaded yet'}"
        return ""

    @property
    def fallback(self) -> str:
        """Why an older version than the configured one is in use; empty when it is not."""
        return next((p.problem for p in self.packages.values() if p.folder is not None and p.problem), "")


def resolve(attributes: Any, packages: PackageSource, environment: Mapping[str, str] = os.environ) -> Resolved:
    result = Resolved()

    def replace(match: re.Match[str]) -> str:
        kind, name, variable = match.groups()
        if variable is not None:
            return environment.get(variable, match.group(0))
        location = packages.locate(name, kind or "")
        if location is None:
            return match.group(0)
        result.packages[name] = location
        return match.group(0) if location.folder is None else str(location.folder)

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return _PLACEHOLDER.sub(replace, value)
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    result.attributes = walk(attributes)
    return result
