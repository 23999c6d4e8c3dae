"""The built-in data manager: builds collectors from the configuration, keeps sync going, answers for both."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gleaner.machine.capture.collector import Collector, CollectorSettings, stop_all
from gleaner.machine.capture.control import CaptureControl, Orders, overridden
from gleaner.machine.capture.directory import write_private
from gleaner.machine.capture.errors import CaptureError
from gleaner.machine.capture.manager_settings import ManagerSettings
from gleaner.machine.capture.methods import find_method
from gleaner.machine.capture.plan import Plan, make_plan
from gleaner.machine.capture.scheduler import Scheduler
from gleaner.machine.capture.sequences import SequenceFiles
from gleaner.machine.capture.service import DataManagerService, NothingToUpload, NotSynced
from gleaner.machine.capture.storage import CaptureStorage, CollectorView
from gleaner.machine.capture.thinner import ThinningOptions
from gleaner.machine.capture.writer import WriterOptions
from gleaner.machine.sync.settings import SyncSettings
from gleaner.machine.sync.supervisor import SyncFailed, SyncSupervisor
from gleaner.wire.capture_file import extension_for
from gleaner.wire.machine_config import CloudConfig, MachineConfig

# Until the first capture has reached the app, somebody is probably looking at an empty page.
FIRST_SYNC_INTERVAL_S = 1.0
DIRECTORY_CHECK_S = 1.0


class CaptureHost(Protocol):
    """The part of `machine.models.base.Host` that is used here."""

    config: MachineConfig
    cloud: CloudConfig | None

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
        self._supervisor: SyncSupervisor | None = None
        self._sync_settings: SyncSettings | None = None
        self._host: CaptureHost | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._orders = Orders()
        self._sequences = SequenceFiles(settings.capture_dir, log)
        self._changing = asyncio.Lock()
        self._anything_sent = False
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
            asyncio.create_task(self._schedule_sync(), name="schedule sync"),
            asyncio.create_task(self._watch_directory(), name="watch the capture folder"),
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
            await self._stop_sync()
            await asyncio.to_thread(self._storage.close)

    # --- capture -----------------------------------------------------------------------------------------------------

    async def resources_changed(self, host: CaptureHost) -> None:
        """Rebuilds the collectors whose configuration or resource changed; the others are not disturbed."""
        async with self._changing:
            if self._closed:
                return
            self._host = host
            await self._capture(host)
            await self._apply_cloud(host.cloud)

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

    def _control_sensor(self) -> Any | None:
        return self._host.resource(self._settings.control_sensor, "sensor") if self._host else None

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

    def _frames(self) -> dict[str, Any]:
        return {one.name: one.frame for one in self._host.config.components} if self._host else {}

    def _note_problems(self, problems: dict[str, str]) -> None:
        for directory, problem in problems.items():
            if self._problems.get(directory) != problem:
                self._log.warning("not captured: %s: %s", directory, problem)
        self._problems = problems

    # --- sync --------------------------------------------------------------------------------------------------------

    async def sync(self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None) -> None:
        supervisor = self._require_supervisor()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(self._storage.writer.finish())
                await supervisor.sync()
        except SyncFailed as error:
            raise NotSynced(str(error)) from error
        except TimeoutError as error:
            raise NotSynced(f"not everything was sent within {timeout:.0f} s; sync goes on by itself") from error

    def sync_now(self) -> None:
        """The app is known to be there (the link says so): sync at once, whatever the back-off says."""
        if self._supervisor is not None and not self._settings.sync_disabled:
            self._supervisor.poke()

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
        if not binary_data:
            raise NothingToUpload
        supervisor = self._require_supervisor()
        path = self._settings.capture_dir / "datasetUpload" / f"{uuid.uuid4()}{extension_for(mime_type)}"
        await asyncio.to_thread(write_private, path, binary_data)
        try:
            async with asyncio.timeout(timeout):
                await supervisor.upload(str(path), tags, dataset_ids)
        except SyncFailed as error:
            raise NotSynced(f"nothing was uploaded: {error}") from error
        except TimeoutError as error:
            raise NotSynced("the upload took too long and was given up; try again") from error
        finally:
            path.unlink(missing_ok=True)

    def _require_supervisor(self) -> SyncSupervisor:
        if self._supervisor is None:
            raise NotSynced(self._why_no_app())
        return self._supervisor

    async def _apply_cloud(self, cloud: CloudConfig | None) -> None:
        settings = self._settings_for(cloud)
        if settings == self._sync_settings:
            return
        await self._stop_sync()
        self._sync_settings = settings
        if settings is None:
            self._log.info("%s", self._why_no_app())
            return
        self._supervisor = SyncSupervisor(settings, self._log, self._note_pass, self._storage.note_rate)
        self._supervisor.start()

    def _settings_for(self, cloud: CloudConfig | None) -> SyncSettings | None:
        if cloud is None or not cloud.web_address:
            return None
        return SyncSettings(
            capture_dir=str(self._settings.capture_dir),
            part_id=cloud.id,
            secret=cloud.secret,
            web_address=cloud.web_address,
            ca_certificate=cloud.ca_certificate,
            additional_sync_paths=self._settings.additional_sync_paths,
            tags=self._settings.tags,
            settle_ms=self._settings.settle_ms,
            bandwidth_limit=self._settings.sync_bandwidth_limit,
            capture_keys=tuple(key.hex() for key in self._settings.keyring.keys),
        )

    async def _stop_sync(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            await supervisor.stop()

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

    async def _begin_anew(self) -> None:
        async with self._changing:
            await stop_all(list(self._collectors.values()))
            self._collectors.clear()
            await self._stop_sync()
            self._sync_settings = None
            await asyncio.to_thread(self._storage.reopen)

    async def _schedule_sync(self) -> None:
        while True:
            interval_s = self._settings.sync_interval_s
            await asyncio.sleep(interval_s if self._anything_sent else min(interval_s, FIRST_SYNC_INTERVAL_S))
            try:
                await self._scheduled_pass()
            except Exception:  # noqa: BLE001 (the top of this task: without it captures would pile up in silence)
                self._log.exception("a scheduled sync failed; the next one comes in %.0f s", interval_s)

    async def _scheduled_pass(self) -> None:
        supervisor = self._supervisor
        if supervisor is None or self._settings.sync_disabled or not await self._may_sync():
            return
        if supervisor.connected:  # while offline, readings go on filling files of full size
            await asyncio.wrap_future(self._storage.writer.finish())
        supervisor.request_pass()

    async def _may_sync(self) -> bool:
        """The selective-sync sensor's word: only a true `should_sync` lets this round through."""
        name = self._settings.selective_syncer
        if not name:
            return True
        sensor = self._host.resource(name, "sensor") if self._host else None
        if sensor is None:
            return False
        try:
            readings = await sensor.get_readings()
        except Exception as error:  # noqa: BLE001 (a driver may raise anything; no answer means no sync this time)
            self._log.debug("selective sync: %s does not answer: %s", name, error)
            return False
        return readings.get("should_sync") is True

    def _note_pass(self, started_ns: int, sent: int) -> None:
        self._anything_sent = self._anything_sent or sent > 0
        self._storage.note_pass(started_ns)

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
        return self._storage.ledger(views, self._sync_error())

    def hours(self, hours: int) -> list[dict[str, Any]]:
        return self._storage.hours(hours)

    def _sync_error(self) -> str:
        if self._supervisor is None:
            return self._why_no_app()
        if self._settings.sync_disabled:
            return "sync is disabled in the data manager's configuration"
        return "" if self._supervisor.connected else self._supervisor.error

    def _why_no_app(self) -> str:
        missing = (
            "`cloud` section"
            if self._host is None or self._host.cloud is None
            else "`web_address` in the `cloud` section"
        )
        return (
            f"no app is configured (no {missing}), captures stay in {self._settings.capture_dir}: "
            "copy the configuration that the app shows for this machine"
        )

    async def get_status(self, *, timeout: float | None = None, **kwargs: Any) -> Mapping[str, Any]:
        return self.ledger()
