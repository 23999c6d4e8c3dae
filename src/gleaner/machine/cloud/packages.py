"""The packages of a configuration: downloaded, handed to resources, switched only when a resource runs with them.

A version goes downloading → loading → ready, or failed. While a new one is on its way, and when it cannot be used, the
one that last ran stays: `locate` answers with it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from viam.proto.app.packages import GetPackageRequest, GetPackageResponse, PackageServiceStub, PackageType

from gleaner.machine.cloud.connection import AppConnection, AppRefused, AppUnreachable, client_tls, http_credentials
from gleaner.machine.cloud.download import DownloadInterrupted, PackageDamaged, download, unpack
from gleaner.machine.cloud.package_store import PackageStore
from gleaner.machine.cloud.reachability import backoff_s
from gleaner.machine.cloud.seal import Seal, check_seal
from gleaner.machine.placeholders import PackageLocation
from gleaner.machine.status import PackageReport, PackageState
from gleaner.wire.machine_config import CloudConfig, PackageConfig
from gleaner.wire.package_signature import KEY_FIELD, SIGNATURE_FIELD

_LOG = logging.getLogger("gleaner.cloud.packages")

_TYPES = {
    "archive": PackageType.PACKAGE_TYPE_ARCHIVE,
    "ml_model": PackageType.PACKAGE_TYPE_ML_MODEL,
    "module": PackageType.PACKAGE_TYPE_MODULE,
    "slam_map": PackageType.PACKAGE_TYPE_SLAM_MAP,
}


@dataclass(eq=False)
class _Entry:
    config: PackageConfig
    version: str
    """The configured version; a concrete one as soon as the app has told it."""
    state: PackageState = PackageState.DOWNLOADING
    error: str = ""
    folder: Path | None = None
    """The unpacked version; None until it is on the disk."""
    rejected: bool = False
    bytes_downloaded: int = 0
    total_bytes: int = 0
    last_updated: datetime = field(default_factory=lambda: datetime.now(UTC))
    task: asyncio.Task[None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def become(self, state: PackageState, error: str = "") -> None:
        self.state, self.error, self.last_updated = state, error, datetime.now(UTC)


class PackageManager:
    """A `PackageSource` for the graph and `PackageReports` for the status. Used on the event loop."""

    def __init__(
        self,
        connection: AppConnection,
        cloud: CloudConfig,
        root: Path,
        *,
        reapply: Callable[[], Awaitable[None]],
        is_used: Callable[[str], bool],
    ) -> None:
        self._connection = connection
        self._cloud = cloud
        self._pinned_key = cloud.package_key  # the file's, whatever the app says later
        self._store = PackageStore(root)
        self._reapply = reapply
        self._is_used = is_used
        self._entries: dict[str, _Entry] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._disk = asyncio.Lock()
        """Held while versions appear and disappear, so that none is removed that was just chosen."""
        self.on_change: Callable[[], None] = lambda: None

    # -- what the machine asks ----------------------------------------------------------------------------------

    def configure(self, packages: Sequence[PackageConfig]) -> None:
        """Start what is new or changed; forget what is gone. Versions already here are used without the app."""
        wanted = {package.name: package for package in packages}
        for name, entry in list(self._entries.items()):
            if wanted.get(name) != entry.config:
                self._retire(self._entries.pop(name))
        for name, package in wanted.items():
            if name not in self._entries:
                entry = self._entries[name] = _Entry(package, package.version)
                entry.task = asyncio.create_task(self._bring(entry), name=f"package {name}")
        self.on_change()

    def locate(self, name: str, kind: str) -> PackageLocation | None:
        entry = self._entries.get(name)
        if entry is None or kind not in ("", entry.config.type):
            return None
        if entry.folder is not None and not entry.rejected:
            return PackageLocation(name, entry.version, entry.folder)
        current = self._store.current(name)
        if current is not None:
            folder, version = current
            problem = f"package {name} {entry.version}: {entry.error}; version {version} stays in use"
            return PackageLocation(name, version, folder, problem if entry.state is PackageState.FAILED else "")
        return PackageLocation(name, entry.version, None, entry.error or entry.state.name.lower())

    def loaded(self, name: str, version: str) -> None:
        entry = self._entries.get(name)
        if entry is None or entry.folder is None or entry.version != version or entry.state is PackageState.READY:
            return
        self._store.make_current(name, entry.folder)
        entry.become(PackageState.READY)
        _LOG.info("package %s %s is in use", name, version)
        self.on_change()
        self._start(self._clean(), "remove old packages")

    def rejected(self, name: str, version: str, error: str) -> None:
        entry = self._entries.get(name)
        if entry is None or entry.folder is None or entry.version != version or entry.state is PackageState.READY:
            return
        current = self._store.current(name)
        entry.rejected = current is not None and current[0].resolve() != entry.folder.resolve()
        entry.become(PackageState.FAILED, f"it could not be loaded: {error}")
        self.on_change()
        if entry.rejected:
            self._start(self._look_again(), f"package {name} falls back")

    def reports(self) -> list[PackageReport]:
        return [
            PackageReport(
                name=name,
                kind=entry.config.type,
                version=entry.version,
                state=entry.state,
                error=entry.error + self._stays(name, entry),
                bytes_downloaded=entry.bytes_downloaded,
                total_bytes=entry.total_bytes,
                last_updated=entry.last_updated,
            )
            for name, entry in self._entries.items()
        ]

    def _stays(self, name: str, entry: _Entry) -> str:
        current = self._store.current(name) if entry.state is PackageState.FAILED else None
        return f"; version {current[1]} stays in use" if current is not None and current[1] != entry.version else ""

    async def close(self) -> None:
        self._is_closed = True
        for entry in self._entries.values():
            self._retire(entry)
        self._entries = {}
        if self._background:
            await asyncio.wait(self._background)

    # -- bringing one package -----------------------------------------------------------------------------------

    async def _bring(self, entry: _Entry) -> None:
        attempt = 0
        await self._use_what_is_here(entry)
        while entry.folder is None:
            try:
                await self._download(entry)
            except (AppUnreachable, DownloadInterrupted) as error:
                if entry.error != str(error):
                    _LOG.warning("package %s: %s; trying again", entry.config.name, error)
                entry.become(PackageState.DOWNLOADING, str(error))
            except (AppRefused, PackageDamaged, OSError) as error:
                # The same version would fail again: it waits for another one, or for a restart.
                _LOG.error("package %s %s cannot be used: %s", entry.config.name, entry.version, error)
                entry.become(PackageState.FAILED, str(error))
                self.on_change()
                await self._reapply()
                return
            self.on_change()
            if entry.folder is None:
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1
        await self._reapply()
        if not self._is_used(entry.config.name):
            self.loaded(entry.config.name, entry.version)

    async def _use_what_is_here(self, entry: _Entry) -> None:
        """A version that was downloaded earlier needs no app."""
        async with self._disk:
            folder = self._store.folder(entry.config, entry.version)
            if entry.version != "latest" and self._store.is_complete(folder):
                entry.folder = folder
                entry.become(PackageState.LOADING)

    async def _download(self, entry: _Entry) -> None:
        package = entry.config
        request = GetPackageRequest(
            id=package.package, version=package.version, include_url=True, type=_TYPES[package.type]
        )
        response: GetPackageResponse = await self._connection.call(PackageServiceStub, "GetPackage", request)
        version, url = response.package.info.version or package.version, response.package.url
        said = response.package.info.metadata.fields
        seal = Seal(said[KEY_FIELD].string_value, said[SIGNATURE_FIELD].string_value)
        folder = self._store.folder(package, version)
        archive = None
        if not self._store.is_complete(folder):
            archive = await asyncio.to_thread(self._fetch, entry, url)
        async with self._disk:
            if archive is not None:
                await asyncio.to_thread(self._unpack, entry, archive, folder, version, seal)
            entry.version, entry.folder = version, folder
            entry.become(PackageState.LOADING)

    def _fetch(self, entry: _Entry, url: str) -> Path:
        """In a worker thread."""

        def progress(done: int, total: int) -> None:
            entry.bytes_downloaded, entry.total_bytes = done, total

        headers = http_credentials(self._cloud) if self._is_app(url) else {}
        return download(url, headers, self._store.parts, tls=self._tls(url), progress=progress, stop=entry.stop)

    def _unpack(self, entry: _Entry, archive: Path, folder: Path, version: str, seal: Seal) -> None:
        """In a worker thread. Raises PackageDamaged."""
        trusted = self._store.trusted_key(self._cloud.id)
        check_seal(trusted, self._pinned_key, seal, archive, entry.config.package, version)
        unpack(archive, folder)
        self._store.mark_complete(folder, entry.config, version)

    def follow(self, cloud: CloudConfig) -> None:
        """What the app has said of its addresses."""
        self._cloud = cloud

    def _is_app(self, url: str) -> bool:
        """The part's secret goes to the app's own host and to nobody else."""
        hosts = {urlsplit(address).hostname for address in (self._cloud.web_address, self._cloud.app_address)}
        return urlsplit(url).hostname in hosts - {None}

    def _tls(self, url: str) -> ssl.SSLContext | None:
        return client_tls(self._cloud) if self._is_app(url) else None

    # -- helpers ------------------------------------------------------------------------------------------------

    async def _look_again(self) -> None:
        await self._reapply()

    def _retire(self, entry: _Entry) -> None:
        entry.stop.set()
        if entry.task is not None and not entry.task.done():
            entry.task.cancel()
            self._background.add(entry.task)
            entry.task.add_done_callback(self._background.discard)

    async def _clean(self) -> None:
        """Disk space comes back once everything configured runs."""
        async with self._disk:
            if self._is_closed or not all(entry.state is PackageState.READY for entry in self._entries.values()):
                return
            folders = [entry.folder for entry in self._entries.values() if entry.folder is not None]
            await asyncio.to_thread(self._store.remove_unused, list(self._entries), folders)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
