"""API keys that only the app knows: asked there, and remembered for a while."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from viam.proto.app import AppServiceStub, GetRobotPartRequest

from gleaner.machine.cloud.connection import AppConnection, AppRefused, AppUnreachable

#: Asked again after this long; a key removed in the app stops working here by then.
_FRESH_S = 300.0
#: While the app cannot be reached, a key that worked this recently still works: local control must not depend on it.
_STALE_S = 24 * 3600.0


class AppKeyVerifier:
    def __init__(self, connection: AppConnection, part_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._part_id = part_id
        self._clock = clock
        self._verified_at: dict[str, float] = {}

    async def __call__(self, key_id: str, key: str) -> bool:
        """Whether the app knows the key and lets it see this machine. Unreachable app and never seen: False."""
        digest = hashlib.sha256(f"{key_id}\0{key}".encode()).hexdigest()
        age_s = self._clock() - self._verified_at.get(digest, float("-inf"))
        if age_s < _FRESH_S:
            return True
        try:
            token = await self._connection.authenticate(key_id, "api-key", key)
            await self._connection.call_as(token, AppServiceStub, "GetRobotPart", GetRobotPartRequest(id=self._part_id))
        except AppUnreachable:
            return age_s < _STALE_S
        except AppRefused:
            self._verified_at.pop(digest, None)
            return False
        self._verified_at[digest] = self._clock()
        return True
