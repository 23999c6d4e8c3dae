"""The licence of a checkpoint, read from its model card: the front matter of its README.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gleaner.learn.backbone_name import BackboneName
from gleaner.learn.errors import RunProblem

PERMISSIVE = frozenset(
    {
        "0bsd", "afl-3.0", "apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0",
        "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "ecl-2.0",
        "isc", "mit", "mit-0", "ncsa", "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
    }
)  # fmt: skip
"""Identifiers of model cards for licences that allow every use and ask for no more than a notice."""


def licenses_of(card: str) -> list[str]:
    """Those that a card names, in lower case; none if it has no front matter that can be read, or says nothing."""
    import yaml

    lines = card.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return []
    end = next((n for n, line in enumerate(lines[1:], 1) if line.strip() in ("---", "...")), None)
    if end is None:
        return []
    try:
        front: Any = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.YAMLError:
        return []
    if not isinstance(front, dict):
        return []
    said = front.get("license")
    if said == "other" and isinstance(front.get("license_name"), str):
        said = front["license_name"]
    named = said if isinstance(said, list) else [said]
    return [str(one).strip().lower() for one in named if isinstance(one, str) and one.strip()]


def require_permissive(name: BackboneName, found: Sequence[str], accepted: bool) -> str:
    """The licence as the report says it. Raises RunProblem unless it is permissive, or somebody accepts it as it is."""
    said = ", ".join(found)
    if accepted or (found and all(one in PERMISSIVE for one in found)):
        return said or "unknown"
    why = f"its card says {said}, which is not permissive" if found else "its card (README.md) names none"
    raise RunProblem(
        f"The licence of {name} may not allow what you do with the model: {why}.",
        "Read its terms; if they suit you, train again with --accept-license (in the app: tick “I accept its licence”), "
        "or choose a checkpoint under Apache-2.0, MIT or BSD.",
    )
