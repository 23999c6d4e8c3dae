"""Addresses that stand for a login: whoever has one reads that one thing until it ends. Nothing of them is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gleaner.app.caller import Caller, CallerKind, Grant, Role
from gleaner.app.errors import InvalidInput, PermissionDenied, Unauthenticated
from gleaner.app.services.datasets import require_maker
from gleaner.app.services.items import ItemService
from gleaner.app.services.items_values import Content
from gleaner.app.services.sequences_export import Download, SequenceExports
from gleaner.app.services.tokens import TokenSigner

DEFAULT_MINUTES = 15
MOST_MINUTES = 7 * 24 * 60
"""As Viam has it."""
_MINUTE_NS = 60_000_000_000


@dataclass(frozen=True)
class SignedLink:
    path: str
    """Behind the app's address."""
    expires_ns: int


class SignedLinks:
    def __init__(
        self,
        app_key: bytes,
        items: ItemService,
        sequences: SequenceExports,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._signer = TokenSigner(app_key)
        self._items = items
        self._sequences = sequences
        self._clock_ns = clock_ns

    def to_item(self, caller: Caller, row: int, minutes: int = DEFAULT_MINUTES) -> SignedLink:
        """It stays good when the caller's role ends, not when the item is deleted. Raises InvalidInput, NotFound."""
        if not 1 <= minutes <= MOST_MINUTES:
            raise InvalidInput(f"A link for {minutes} minutes cannot be made", f"Ask for 1 to {MOST_MINUTES}.")
        item = self._items.get(caller, row)
        return self._signed({"t": "item", "o": item.origin.organization_id, "i": row}, minutes)

    def sequence_job(self, caller: Caller, dataset_id: str) -> str:
        """The id of an export of a dataset of sequences. Raises NotFound, InvalidInput, PermissionDenied."""
        self._sequences.check(caller, dataset_id)
        organization_id = self._sequences.organization_of(caller, dataset_id)
        require_maker(caller, organization_id)
        claims = {"t": "sequence job", "o": organization_id, "d": dataset_id, "c": self._clock_ns()}
        return self._signed(claims, MOST_MINUTES).path.rpartition("/")[2]

    def of_sequence_job(self, caller: Caller, job_id: str) -> tuple[int, SignedLink]:
        """(when it was asked for in ns, where it is downloaded for an hour). Raises PermissionDenied, NotFound."""
        claims = self._claims(job_id, "sequence job")
        self._sequences.check(caller, str(claims["d"]))
        return int(claims["c"]), self._signed({"t": "sequences", "o": claims["o"], "d": claims["d"]}, 60)

    def opened(self, token: str) -> Content | Download:
        """Raises PermissionDenied for a link that is too old or not ours, NotFound when what it names was deleted."""
        claims = self._claims(token, "item", "sequences")
        reader = _reader(str(claims["o"]))
        if claims["t"] == "sequences":
            self._sequences.check(reader, str(claims["d"]))
            return self._sequences.prepare(reader, str(claims["d"]))
        return self._items.content(reader, int(claims["i"]))

    def _signed(self, claims: Mapping[str, Any], minutes: int) -> SignedLink:
        expires_ns = self._clock_ns() + minutes * _MINUTE_NS
        token = self._signer.sign({**claims, "x": expires_ns})
        return SignedLink(f"/api/signed/{token}", expires_ns)

    def _claims(self, token: str, *kinds: str) -> Mapping[str, Any]:
        try:
            claims = self._signer.verify(token)
        except Unauthenticated:
            claims = {}
        if claims.get("t") not in kinds or claims["x"] <= self._clock_ns():
            raise PermissionDenied("This link has ended, or was not made by this app", "Make a new one.")
        return claims


def _reader(organization_id: str) -> Caller:
    """Who may read what the organization has; asked for the one thing that the link names."""
    grant = Grant("organization", organization_id, Role.OPERATOR, organization_id)
    return Caller(CallerKind.API_KEY, "signed link", grants=(grant,))
