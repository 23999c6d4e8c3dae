"""The data manager's sync: when captures go to the app, what keeps them here, and what somebody asks for."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gleaner.machine.capture.directory import write_private
from gleaner.machine.capture.hold import SyncHold
from gleaner.machine.capture.manager_settings import ManagerSettings
from gleaner.machine.capture.service import NothingToUpload, NotSynced
from gleaner.machine.capture.storage import CaptureStorage
from gleaner.machine.sync.settings import SyncSettings
from gleaner.machine.sync.supervisor import SyncFailed, SyncSupervisor
from gleaner.wire.capture_file import extension_for
from gleaner.wire.machine_config import CloudConfig

# Until the first capture has reached the app, somebody is probably looking at an empty page.
FIRST_SYNC_INTERVAL_S = 1.0


class Delivery:
    """`apply(settings, cloud) → running → close()`, on the machine's event loop. `find` gives a sensor by its name."""

    def __init__(
        self,
        settings: ManagerSettings,
        storage: CaptureStorage,
        find: Callable[[str], Any | None],
        log: logging.Logger,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._find = find
        self._log = log
        self._hold = self._new_hold(settings)
        self._supervisor: SyncSupervisor | None = None
        self._running: SyncSettings | None = None
        """What the supervisor was started with; whether it is held and the limit apart."""
        self._cloud: CloudConfig | None = None
        self._is_told = False
        self._schedule: asyncio.Task[None] | None = None
        self._asked: set[asyncio.Task[None]] = set()
        self._anything_sent = False

    async def apply(self, settings: ManagerSettings, cloud: CloudConfig | None) -> None:
        """Follows a configuration; what did not change goes on undisturbed."""
        before, self._settings, self._cloud = self._settings, settings, cloud
        if (before.sync_disabled, before.selective_syncer) != (settings.sync_disabled, settings.selective_syncer):
            self._hold = self._new_hold(settings)
            if self._supervisor is not None:
                self._supervisor.hold(bool(self._hold.why))
                self._supervisor.request_pass()  # which is nothing while it is held
        await self._follow(self._wanted())
        if self._supervisor is not None and before.sync_bandwidth_limit != settings.sync_bandwidth_limit:
            self._supervisor.limit(settings.sync_bandwidth_limit)
        if self._schedule is None or before.sync_interval_s != settings.sync_interval_s:
            await self._end_schedule()
            self._schedule = asyncio.create_task(self._schedule_sync(), name="schedule sync")

    async def stop(self) -> None:
        """Ends the sync process; the next `apply` begins anew."""
        supervisor, self._supervisor, self._running = self._supervisor, None, None
        if supervisor is not None:
            await supervisor.stop()

    async def close(self) -> None:
        await self._end_schedule()
        asked = list(self._asked)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await self.stop()

    async def _end_schedule(self) -> None:
        task, self._schedule = self._schedule, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _new_hold(self, settings: ManagerSettings) -> SyncHold:
        name = settings.selective_syncer
        return SyncHold(settings.sync_disabled, name, lambda: self._find(name), self._log)

    async def _follow(self, wanted: SyncSettings | None) -> None:
        if wanted == self._running and (wanted is not None or self._is_told):
            return
        await self.stop()
        self._running, self._is_told = wanted, wanted is None
        if wanted is None:
            self._log.info("%s", self._why_no_app())
            return
        limit = self._settings.sync_bandwidth_limit
        settings = replace(wanted, held=bool(self._hold.why), bandwidth_limit=limit)
        self._supervisor = SyncSupervisor(settings, self._log, self._note_pass, self._storage.note_rate)
        self._supervisor.start()

    def _wanted(self) -> SyncSettings | None:
        cloud = self._cloud
        if cloud is None or not cloud.web_address:
            return None
        return SyncSettings(
            capture_dir=str(self._settings.capture_dir),
            part_id=cloud.id,
            secret=cloud.secret,
            key_id=cloud.api_key.id if cloud.api_key else "",
            key=cloud.api_key.key if cloud.api_key else "",
            web_address=cloud.web_address,
            ca_certificate=cloud.ca_certificate,
            additional_sync_paths=self._settings.additional_sync_paths,
            tags=self._settings.tags,
            settle_ms=self._settings.settle_ms,
            capture_keys=tuple(key.hex() for key in self._settings.keyring.keys),
        )

    # --- what somebody asks for --------------------------------------------------------------------------------------

    async def sync(self, timeout: float | None = None) -> None:
        """Returns when the app has all that was ready. Raises NotSynced."""
        supervisor = self._require_supervisor()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(self._storage.writer.finish())
                await supervisor.sync()
        except SyncFailed as error:
            raise NotSynced(str(error)) from error
        except TimeoutError as error:
            raise NotSynced(f"not everything was sent within {timeout:.0f} s; sync goes on by itself") from error

    def sync_now(self, *, asked: bool = False) -> None:
        """The app is known to be there (the link says so): sync at once, whatever the back-off says.

        `asked`: somebody in the app wants it, also when sync is disabled or held back.
        """
        if self._supervisor is None:
            return
        if asked and self._hold.why:
            task = asyncio.create_task(self._sync_for_the_app(), name="sync that the app asks for")
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)
        else:
            self._supervisor.poke()

    async def _sync_for_the_app(self) -> None:
        try:
            await self.sync()
        except NotSynced as error:
            self._log.warning("the sync that the app asked for: %s", error.message)

    async def upload(
        self, content: bytes, tags: Sequence[str], dataset_ids: Sequence[str], mime_type: str, timeout: float | None
    ) -> None:
        """Returns when the app has it. Raises NotSynced, NothingToUpload."""
        if not content:
            raise NothingToUpload
        supervisor = self._require_supervisor()
        path = self._settings.capture_dir / "datasetUpload" / f"{uuid.uuid4()}{extension_for(mime_type)}"
        await asyncio.to_thread(write_private, path, content)
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

    # --- by itself ----------------------------------------------------------------------------------------------------

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
        if supervisor is None:
            return
        await self._hold.look()
        is_held = bool(self._hold.why)  # of the configuration that holds now: it may have changed meanwhile
        supervisor.hold(is_held)
        if is_held:
            return
        if supervisor.connected:  # while offline, readings go on filling files of full size
            await asyncio.wrap_future(self._storage.writer.finish())
        supervisor.request_pass()

    def _note_pass(self, started_ns: int, sent: int) -> None:
        self._anything_sent = self._anything_sent or sent > 0
        self._storage.note_pass(started_ns)

    # --- what others see ---------------------------------------------------------------------------------------------

    @property
    def error(self) -> str:
        """`sync_error` of the Ledger: why not everything is sent."""
        if self._supervisor is None:
            return self._why_no_app()
        return self._hold.why or self._supervisor.error

    @property
    def state(self) -> str:
        """`sync_state` of the Ledger."""
        if self._supervisor is None:
            return "no_app"
        return self._hold.state or ("on" if self._supervisor.connected else "offline")

    def _why_no_app(self) -> str:
        missing = "`cloud` section" if self._cloud is None else "`web_address` in the `cloud` section"
        return (
            f"no app is configured (no {missing}), captures stay in {self._settings.capture_dir}: "
            "copy the configuration that the app shows for this machine"
        )
