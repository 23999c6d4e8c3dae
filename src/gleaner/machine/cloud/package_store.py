"""Packages on the machine's disk, in Viam's layout.

    packages/data/<type>/<package with / as ->-<version with . as _>/             the unpacked package
    packages/data/<type>/<…>.status.json                                          {"package_id", "version", "sync_status"}
    packages/<name> → data/<type>/<…>                                             the version that last ran
    packages/keys/<part id>.pub                                                   the app's key for signatures (`seal.py`)
    packages/part/<hash>/package.tar.gz.part                                      downloads under way

Only PackageManager writes here. A folder without a status file that says `done` was cut off and is unpacked again; the
link is replaced by a rename, so it always names a whole version.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from gleaner.machine.home import write_private
from gleaner.wire.machine_config import PackageConfig


class PackageStore:
    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def parts(self) -> Path:
        return self.root / "part"

    def trusted_key(self, part_id: str) -> Path:
        """Where the key is kept with which the app of this part signs; another app gives another part."""
        return self.root / "keys" / f"{''.join(c if c.isalnum() or c in '-_' else '_' for c in part_id)}.pub"

    def folder(self, package: PackageConfig, version: str) -> Path:
        name = f"{package.package.replace('/', '-')}-{version.replace('.', '_')}"
        return self.root / "data" / package.type / "".join(c if c.isalnum() or c in "-_ " else "_" for c in name)

    def is_complete(self, folder: Path) -> bool:
        return folder.is_dir() and self._status(folder).get("sync_status") == "done"

    def mark_complete(self, folder: Path, package: PackageConfig, version: str) -> None:
        status = {
            "package_id": package.package,
            "version": version,
            "modified_time": datetime.now(UTC).isoformat(),
            "sync_status": "done",
        }
        write_private(folder.with_name(folder.name + ".status.json"), json.dumps(status).encode())

    def current(self, name: str) -> tuple[Path, str] | None:
        """(folder, version) that last ran under this name."""
        link = self._link(name)
        if not link.is_symlink():
            return None
        folder = link.resolve()
        return (folder, str(self._status(folder).get("version", ""))) if self.is_complete(folder) else None

    def make_current(self, name: str, folder: Path) -> None:
        link = self._link(name)
        if link.is_symlink() and link.resolve() == folder.resolve():
            return
        link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = link.with_name(f".{link.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(folder, link.parent))
        temporary.replace(link)

    def remove_unused(self, names: Iterable[str], folders: Iterable[Path]) -> None:
        """Delete every link and version but these."""
        keep_links, keep = {self._link(name) for name in names}, {folder.resolve() for folder in folders}
        for link in self.root.glob("*"):
            if link.is_symlink() and link not in keep_links:
                link.unlink()
        for folder in self.root.glob("data/*/*"):
            if folder.is_dir() and folder.resolve() not in keep:
                folder.with_name(folder.name + ".status.json").unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)

    def _link(self, name: str) -> Path:
        return self.root / "".join(c if c.isalnum() or c in "-_" else "_" for c in name)

    @staticmethod
    def _status(folder: Path) -> dict[str, str]:
        try:
            value = json.loads(folder.with_name(folder.name + ".status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}
