"""The built-in data manager: builds collectors from the configuration, keeps sync going, answers for both."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gleaner.machine.capture.collector import Collector, CollectorSettings, stop_all
from gleaner.machine.capture.control import CaptureControl, Orders, overridden
from gleaner.machine.capture.delivery import Delivery
from gleaner.machine.capture.errors import CaptureError
from gleaner.machine.capture.manager_settings import ManagerSettings
from gleaner.machine.capture.methods import find_method
from gleaner.machine.capture.plan import Plan, make_plan
from gleaner.machine.capture.scheduler import Scheduler
from gleaner.machine.capture.sequences import SequenceFiles
from gleaner.machine.capture.service import DataManagerService
from gleaner.machine.capture.storage import CaptureStorage, CollectorView
from gleaner.machine.capture.thinner import ThinningOptions
from gleaner.machine.capture.writer import WriterOptions
from gleaner.machine.models.base import NeedsRebuild
from gleaner.wire.machine_config import CloudConfig, MachineConfig
from gleaner.wire.world_pose import Frames

DIRECTORY_CHECK_S = 1.0
# A folder of a million files is looked at for a twentieth of the time.
FILES_LOOK_S = 2.0
FILES_LOOK_SHARE = 20


class CaptureHost(Protocol):
    """The part of `machine.models.base.Host` that is used here."""

    config: MachineConfig
    cloud: CloudConfig | None

    def frames(self) -> Frames: ...

    def resource(self, name: str, subtype: str = "") -> Any | None: ...


class DataManager(DataManagerService):
    """Lives on the machine's event loop: `start()`, `resources_changed()` after every change, `close()`."""

    def __init__(self, name: str, settings: ManagerSettings, log: logging.Logger) -> None:
        super().__init__(name, logger=log)
        self._settings = settings
        self._log = log
        options = WriterOptions(settings.durability_s, settings.keyring)
        self._storage = CaptureStorage(settings.capture_dir, log, options, ThinningOptions(settings.marks))
        self._scheduler = Scheduler()
        self._collectors: dict[str, Collector] = {}
        self._problems: dict[str, str] = {}
        self._frequencies: dict[str, float] = {}
        self._delivery = Delivery(settings, self._storage, self._sensor, log)
        self._host: CaptureHost | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._orders = Orders()
        self._sequences = SequenceFiles(settings.capture_dir, log)
        self._changing = asyncio.Lock()
        self._closed = False

    async def start(self) -> None:
        """Takes the capture directory. Raises CaptureDirectoryBusy, OSError."""
        try:
            await asyncio.to_thread(self._storage.open)
        except asyncio.CancelledError:
            # Its thread goes on without us, and must not hold the directory for ever.
            asyncio.get_running_loop().run_in_executor(None, self._storage.abandon)
            raise
        self._scheduler.start()
        self._tasks = [
            asyncio.create_task(self._count_backlog(), name="count captures"),
            asyncio.create_task(self._watch_directory(), name="watch the capture folder"),
            asyncio.create_task(self._watch_files(), name="watch additional_sync_paths"),
        ]
        if self._settings.control_sensor:
            await asyncio.to_thread(self._sequences.recover)
            names = self._settings.control_sensor, self._settings.control_key
            control = CaptureControl(*names, self._control_sensor, self._follow_orders, self._log)
            self._tasks.append(asyncio.create_task(control.run(), name="capture control"))

    async def close(self) -> None:
        """Completes all files and ends sync; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        async with self._changing:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await stop_all(list(self._collectors.values()))
            self._collectors.clear()
            await asyncio.to_thread(self._scheduler.stop)
            await asyncio.to_thread(self._sequences.close)
            await self._delivery.close()
            await asyncio.to_thread(self._storage.close)

    # --- capture -----------------------------------------------------------------------------------------------------

    async def resources_changed(self, host: CaptureHost) -> None:
        """Rebuilds the collectors whose configuration or resource changed; the others are not disturbed."""
        async with self._changing:
            if self._closed:
                return
            self._host = host
            await self._capture(host)
            await self._delivery.apply(self._settings, host.cloud)

    async def reconfigure(self, settings: ManagerSettings) -> None:
        """Takes other attributes; what they do not concern goes on undisturbed. Raises NeedsRebuild."""
        if settings.foundation != self._settings.foundation:
            raise NeedsRebuild
        async with self._changing:
            self._settings = settings
        if self._host is not None:
            await self.resources_changed(self._host)

    async def _capture(self, host: CaptureHost) -> None:
        plan, wanted = self._plan(host), dict[str, tuple[CollectorSettings, Any]]()
        problems = dict(plan.problems)
        for settings in plan.collectors:
            resource = host.resource(settings.lookup or settings.resource, settings.api.rsplit(":", 1)[1])
            if resource is None:
                problems[settings.directory] = f"{settings.lookup or settings.resource} is not ready, see its own error"
            else:
                wanted[settings.directory] = (settings, resource)
        await self._apply(wanted)
        self._note_problems(problems)
        self._frequencies = {settings.directory: settings.frequency_hz for settings in plan.collectors}

    def _sensor(self, name: str) -> Any | None:
        return self._host.resource(name, "sensor") if self._host else None

    def _control_sensor(self) -> Any | None:
        return self._sensor(self._settings.control_sensor)

    async def _follow_orders(self, orders: Orders) -> None:
        """The capture control sensor says something else than before."""
        async with self._changing:
            self._orders = orders
            await asyncio.to_thread(self._sequences.follow, orders.sequences)
            if self._host is not None and not self._closed:
                await self._capture(self._host)

    @property
    def collectors(self) -> Mapping[str, Collector]:
        """Running collectors by directory."""
        return self._collectors

    def _plan(self, host: CaptureHost) -> Plan:
        if self._settings.capture_disabled:
            return Plan((), {})
        plan = make_plan(host.config, self._settings.tags, self._settings.rotate_bytes)
        if self._orders.overrides:
            tags, rotate_bytes = self._settings.tags, self._settings.rotate_bytes
            plan, warnings = overridden(plan, self._orders.overrides, host.config, tags, rotate_bytes)
            if warnings:
                self._log.warning(
                    "the capture control sensor asks for what cannot be captured: %s", "; ".join(warnings)
                )
        return plan

    async def _apply(self, wanted: Mapping[str, tuple[CollectorSettings, Any]]) -> None:
        ended = [
            collector
            for directory, collector in self._collectors.items()
            if directory not in wanted
            or wanted[directory][0] != collector.settings
            or wanted[directory][1] is not collector.resource
        ]
        for collector in ended:
            del self._collectors[collector.settings.directory]
        await stop_all(ended)
        for directory, (settings, resource) in wanted.items():
            if directory not in self._collectors:
                method = find_method(settings.api, settings.method)
                collector = Collector(
                    settings, resource, method, self._storage.writer, self._scheduler, self._log, self._frames
                )
                collector.start()
                self._collectors[directory] = collector

    def _frames(self) -> Frames:
        return self._host.frames() if self._host else {}

    def _note_problems(self, problems: dict[str, str]) -> None:
        for directory, problem in problems.items():
            if self._problems.get(directory) != problem:
                self._log.warning("not captured: %s: %s", directory, problem)
        self._problems = problems

    # --- sync --------------------------------------------------------------------------------------------------------

    async def sync(self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None) -> None:
        await self._delivery.sync(timeout)

    def sync_now(self, *, asked: bool = False) -> None:
        """The app is known to be there; `asked`: somebody in the app wants a sync."""
        self._delivery.sync_now(asked=asked)

    async def upload_binary_data_to_datasets(
        self,
        binary_data: bytes,
        tags: Sequence[str],
        dataset_ids: Sequence[str],
        mime_type: str,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        await self._delivery.upload(binary_data, tags, dataset_ids, mime_type, timeout)

    # --- the folder --------------------------------------------------------------------------------------------------

    async def _count_backlog(self) -> None:
        try:
            await asyncio.to_thread(self._storage.count_backlog)
        except Exception:  # noqa: BLE001 (the top of this task)
            self._log.exception("the captures of earlier runs could not be counted: the ledger shows too few")

    async def _watch_directory(self) -> None:
        """Capture goes on in what is at the folder's path, whoever removes, moves or unmounts it."""
        problem = ""
        while True:
            await asyncio.sleep(DIRECTORY_CHECK_S)
            if not await asyncio.to_thread(self._storage.is_moved):
                continue
            if not problem:
                self._log.error("%s was removed, moved or unmounted: begins anew there", self._settings.capture_dir)
            try:
                await self._begin_anew()
            except (CaptureError, OSError, sqlite3.Error) as error:
                if str(error) != problem:
                    self._log.error("nothing can be captured, it is tried again: %s", error)
                problem = str(error)
                continue
            problem = ""
            if self._host is not None:
                await self.resources_changed(self._host)

    async def _watch_files(self) -> None:
        while True:
            began_s, paths = time.monotonic(), self._settings.additional_sync_paths
            try:
                if paths or self._storage.has_looked_at_files:
                    await asyncio.to_thread(self._storage.look_at_files, paths)
            except sqlite3.Error as error:  # closed or exchanged at this moment, or busy: the next look comes
                self._log.debug("the folders of additional_sync_paths could not be counted: %s", error)
            await asyncio.sleep(max(FILES_LOOK_S, (time.monotonic() - began_s) * FILES_LOOK_SHARE))

    async def _begin_anew(self) -> None:
        async with self._changing:
            await stop_all(list(self._collectors.values()))
            self._collectors.clear()
            await self._delivery.stop()
            await asyncio.to_thread(self._storage.reopen)

    # --- what others see ---------------------------------------------------------------------------------------------

    def ledger(self) -> dict[str, Any]:
        """The Ledger of docs/architecture.md. Cheap: to be called every second or two."""
        views = {d: CollectorView(hz) for d, hz in self._frequencies.items()}
        for directory, collector in self._collectors.items():
            views[directory] = CollectorView(
                collector.settings.frequency_hz,
                collector.last_error,
                collector.skipped_ticks,
                collector.vetoed,
                collector.lateness.percentiles_ms(),
            )
        for directory, problem in self._problems.items():
            views[directory] = CollectorView(self._frequencies.get(directory, 0.0), problem)
        said = {"sync_state": self._delivery.state, "notes": list(self._settings.notes)}
        return {**self._storage.ledger(views, self._delivery.error), **said}

    def hours(self, hours: int) -> list[dict[str, Any]]:
        return self._storage.hours(hours)

    async def get_status(self, *, timeout: float | None = None, **kwargs: Any) -> Mapping[str, Any]:
        return self.ledger()
