"""Machine configurations: every version kept, one current, and what a machine is served.

A stored revision is `<number>-<hash>`. What is served also holds the concrete versions of packages that ask for
`latest`; if there are any the served revision gets `+<hash of those versions>`, so a machine notices a new model by the revision
alone. Only the part before the `+` decides whether an editor's base is stale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.errors import ConfigRejected, Conflict
from gleaner.app.services import fleet_tables as t
from gleaner.app.services.config_check import check_config

EMPTY: dict[str, Any] = {"components": [], "services": []}


class LatestVersions(Protocol):
    def latest_version(self, organization_id: str, name: str) -> str | None:
        """The newest version of a package, or None if there is none yet."""


@dataclass(frozen=True)
class SavedConfig:
    config: dict[str, Any]
    revision: str
    saved_ns: int | None
    edited_by: str = ""


class ConfigStore:
    def __init__(self, database: Database, clock_ns: Callable[[], int]) -> None:
        self._database = database
        self._clock_ns = clock_ns
        self.versions: LatestVersions | None = None
        """Who knows the newest version of a package; set when the app is put together."""

    def current(self, part_id: str) -> SavedConfig:
        """As the user wrote it; a part that was never configured has an empty configuration, revision `0`."""
        with self._database.read() as db:
            return _current(db, part_id)

    def served(self, part_id: str) -> SavedConfig:
        """As the machine gets it: `latest` replaced by versions that exist."""
        saved = self.current(part_id)
        packages = saved.config.get("packages") or []
        resolved = [self._resolve(package) for package in packages]
        if resolved == packages:
            return saved
        versions = [package.get("version") for package in resolved]
        revision = f"{saved.revision}+{_hash(versions)}"
        return SavedConfig({**saved.config, "packages": resolved}, revision, saved.saved_ns, saved.edited_by)

    def save(self, part_id: str, config: dict[str, Any], base_revision: str | None, edited_by: str) -> str:
        """Returns the new served revision; saving what is current already changes nothing."""
        problems = check_config(config)
        if problems:
            raise ConfigRejected(problems)
        with self._database.write() as db:
            current = _current(db, part_id)
            if base_revision is not None and base_revision.partition("+")[0] != current.revision:
                raise Conflict(
                    f"the configuration was changed by {current.edited_by or 'someone else'} in the meantime",
                    "Load the current configuration and make your change again.",
                )
            if config != current.config or current.revision == "0":
                number = int(current.revision.partition("-")[0]) + 1
                db.execute(
                    t.part_config.insert().values(
                        part_id=part_id,
                        number=number,
                        revision=f"{number}-{_hash(config)}",
                        config=config,
                        saved_ns=self._clock_ns(),
                        edited_by=edited_by,
                    )
                )
        return self.served(part_id).revision

    def history(self, part_id: str, limit: int = 100) -> list[SavedConfig]:
        """Newest first."""
        newest = (
            sa.select(t.part_config).where(t.part_config.c.part_id == part_id).order_by(t.part_config.c.number.desc())
        )
        with self._database.read() as db:
            return [_saved(row) for row in db.execute(newest.limit(limit)).mappings()]

    def parts_using(self, package: str) -> list[str]:
        """Parts whose current configuration holds `<organization id>/<name>`, whatever its version."""
        newest = (
            sa.select(t.part_config.c.part_id, sa.func.max(t.part_config.c.number).label("number"))
            .group_by(t.part_config.c.part_id)
            .subquery()
        )
        rows = sa.select(t.part_config.c.part_id, t.part_config.c.config).join(
            newest, sa.and_(newest.c.part_id == t.part_config.c.part_id, newest.c.number == t.part_config.c.number)
        )
        with self._database.read() as db:
            return [
                part_id
                for part_id, config in db.execute(rows)
                if any(entry.get("package") == package for entry in config.get("packages") or [])
            ]

    def _resolve(self, package: dict[str, Any]) -> dict[str, Any]:
        wanted = package.get("version") or "latest"
        organization_id, slash, name = str(package.get("package", "")).partition("/")
        if wanted != "latest" or not slash or self.versions is None:
            return package
        return {**package, "version": self.versions.latest_version(organization_id, name) or "latest"}


def _current(db: sa.Connection, part_id: str) -> SavedConfig:
    newest = sa.select(t.part_config).where(t.part_config.c.part_id == part_id).order_by(t.part_config.c.number.desc())
    row = db.execute(newest.limit(1)).mappings().first()
    return _saved(row) if row else SavedConfig(dict(EMPTY), "0", None)


def _saved(row: sa.RowMapping) -> SavedConfig:
    return SavedConfig(row["config"], row["revision"], row["saved_ns"], row["edited_by"])


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
