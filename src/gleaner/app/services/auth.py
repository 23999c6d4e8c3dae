"""Who is calling: people with sessions, programs with API keys, machines with part secrets.

Every door hands its headers here and gets a `Caller` or `Unauthenticated`; nothing is open without one of
- the cookie `gleaner_session` (people; made by a login link or a password),
- headers `key_id` and `key` (programs), or `part_id` and `secret` (machines),
- `authorization: Bearer …` from `AuthService.Authenticate` (Viam SDK clients and viam-server).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import argon2
import sqlalchemy as sa

from gleaner.app.caller import Caller, CallerKind, Grant, Role
from gleaner.app.database import Database
from gleaner.app.errors import InvalidInput, PermissionDenied, Unauthenticated
from gleaner.app.services import fleet_tables as t
from gleaner.app.services.auth_throttle import Throttle
from gleaner.app.services.tokens import TokenSigner, hash_secret, new_secret, secret_matches
from gleaner.app.store.tables import insert_ignoring

COOKIE = "gleaner_session"
CREDENTIALS = ("part_id", "secret", "key_id", "key", "authorization")
"""Names of the headers that say who a program or a machine is."""
SESSION_S = 30 * 86400
LOGIN_LINK_S = 24 * 3600
SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 1024
_SECOND_NS = 1_000_000_000
# The hash of a random text that nobody kept: checked when the e-mail is unknown, so that the answer takes as long.
_DECOY = "$argon2id$v=19$m=65536,t=3,p=4$TRl2iceDhlrhhcfEHlcMRA$/1aTn5OFrAR1w/G8TXDPsKnRcdMNrWRFZzujTLCdpIU"
_UNKNOWN = "the key or secret is not known, or was removed"
_UNKNOWN_HINT = (
    "Check the id and the key; make another in the app under the organization's keys or the machine's CONNECT tab."
)

# Every request asks these. Making a statement takes longer than running it, so they are made once.
_SESSION = sa.select(
    t.user.c.session_epoch,
    t.user.c.name,
    sa.exists().where(t.ended_session.c.id == sa.bindparam("session")).label("is_ended"),
).where(t.user.c.id == sa.bindparam("user"))
_GRANTS = sa.select(t.role_grant).where(
    t.role_grant.c.identity_type == sa.bindparam("kind"), t.role_grant.c.identity_id == sa.bindparam("identity")
)


@dataclass(frozen=True)
class User:
    id: str
    email: str
    name: str
    has_password: bool


@dataclass(frozen=True)
class Session:
    """A fresh session: `token` goes into the cookie and is never stored."""

    token: str
    user: User


class AuthService:
    def __init__(self, database: Database, app_key: bytes, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._signer = TokenSigner(app_key)
        self._clock_ns = clock_ns
        self._passwords = argon2.PasswordHasher()
        self._throttle = Throttle(clock_ns)

    # First start

    def bootstrap(self, owner_email: str, organization_name: str = "My organization") -> bool:
        """Makes an organization, a location and an owner if there is no user yet; tells whether it did."""
        now = self._clock_ns()
        with self._database.write() as db:
            if db.scalar(sa.select(sa.func.count()).select_from(t.user)):
                return False
            organization_id, user_id = str(uuid.uuid4()), str(uuid.uuid4())
            db.execute(t.organization.insert().values(id=organization_id, name=organization_name, created_ns=now))
            db.execute(
                t.location.insert().values(
                    id=str(uuid.uuid4()), organization_id=organization_id, name="First location", created_ns=now
                )
            )
            db.execute(
                t.user.insert().values(
                    id=user_id, email=owner_email, name="Owner", password_hash="", session_epoch=0, created_ns=now
                )
            )
            db.execute(
                t.role_grant.insert().values(
                    identity_type=CallerKind.USER.value,
                    identity_id=user_id,
                    resource_type="organization",
                    resource_id=organization_id,
                    role=Role.OWNER.value,
                    organization_id=organization_id,
                )
            )
        return True

    def create_login_link(self, email: str = "") -> str:
        """A token for `/login?token=`: works once, for 24 hours. Without an e-mail it is the first user's."""
        now = self._clock_ns()
        with self._database.write() as db:
            wanted = sa.select(t.user.c.id).order_by(t.user.c.created_ns).limit(1)
            user_id = db.scalar(wanted.where(t.user.c.email == email) if email else wanted)
            if user_id is None:
                raise InvalidInput(
                    f"there is no user with the e-mail {email!r}", "Leave the e-mail out to get the owner's link."
                )
            token = new_secret()
            db.execute(t.login_link.delete().where(t.login_link.c.expires_ns < now))
            db.execute(
                t.login_link.insert().values(
                    hash=hash_secret(token), user_id=user_id, expires_ns=now + LOGIN_LINK_S * _SECOND_NS
                )
            )
        return token

    def first_owner(self) -> Caller:
        """The owner as a caller, for commands run on the app's own machine (`gleaner demo`)."""
        with self._database.read() as db:
            user_id = db.scalar(sa.select(t.user.c.id).order_by(t.user.c.created_ns).limit(1))
            if user_id is None:
                raise InvalidInput("there is no user yet", "Start `gleaner app` once: it makes the owner.")
            return self._user_caller(db, user_id)

    # People

    def redeem_login_link(self, token: str) -> Session:
        """Raises Unauthenticated if the link was used, is older than 24 hours or was never made."""
        now = self._clock_ns()
        gone = t.login_link.delete().where(t.login_link.c.hash == hash_secret(token), t.login_link.c.expires_ns >= now)
        with self._database.write() as db:
            user_id = db.scalar(gone.returning(t.login_link.c.user_id))
            if user_id is None:
                raise Unauthenticated(
                    "this login link was used already or is too old", "Make another: gleaner app login-link"
                )
            return self._new_session(db, user_id)

    def login(self, email: str, password: str, address: str = "") -> Session:
        """Raises Unauthenticated for a wrong pair, TooManyAttempts after several of them."""
        with self._throttle.attempt(f"mail {email.lower()}", f"from {address}"):
            with self._database.read() as db:
                row = db.execute(sa.select(t.user).where(t.user.c.email == email)).mappings().first()
            stored = row["password_hash"] if row and row["password_hash"] else _DECOY
            matches = len(password) <= LONGEST_PASSWORD and self._matches(stored, password)
            if row is None or not row["password_hash"] or not matches:
                raise Unauthenticated(
                    "the e-mail or the password is wrong", "Forgotten? On the app's machine: gleaner app login-link"
                )
        with self._database.read() as db:
            return self._new_session(db, row["id"])

    def logout(self, token: str) -> None:
        """Ends this session here and anywhere its token was copied to; a token that is no session is fine."""
        try:
            claims = self._signer.verify(token)
        except Unauthenticated:
            return
        if claims.get("t") == "session":
            now = self._clock_ns()
            with self._database.write() as db:
                db.execute(t.ended_session.delete().where(t.ended_session.c.expires_ns < now))
                ended = {"id": claims["s"], "expires_ns": claims["x"] * _SECOND_NS}
                db.execute(insert_ignoring(t.ended_session, db.dialect.name), ended)

    def set_password(self, caller: Caller, password: str, current: str = "") -> Session:
        """Ends every session of the user and returns a new one for the caller."""
        if caller.kind is not CallerKind.USER:
            raise PermissionDenied("only people have passwords", "Log in as a user.")
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise InvalidInput(
                f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters",
                "Four random words are easy to keep.",
            )
        with self._throttle.attempt(f"change {caller.id}"), self._database.read() as db:
            stored = db.scalar(sa.select(t.user.c.password_hash).where(t.user.c.id == caller.id))
            if stored and not self._matches(stored, current):
                raise Unauthenticated(
                    "the current password is wrong", "Forgotten? On the app's machine: gleaner app login-link"
                )
        hashed = self._passwords.hash(password)
        with self._database.write() as db:
            epoch = t.user.c.session_epoch + 1
            db.execute(
                t.user.update().where(t.user.c.id == caller.id).values(password_hash=hashed, session_epoch=epoch)
            )
            return self._new_session(db, caller.id)

    def user(self, caller: Caller) -> User:
        with self._database.read() as db:
            row = db.execute(sa.select(t.user).where(t.user.c.id == caller.id)).mappings().first()
        if row is None:
            return User(caller.id, "", caller.name or caller.kind.value, False)
        return _as_user(row)

    # Programs and machines

    def authenticate(self, credential_type: str, entity: str, payload: str) -> str:
        """A bearer token for Viam clients. Valid until the key or secret behind it is removed."""
        if credential_type == "api-key":
            self.key_caller(entity, payload)
            return self._signer.sign({"t": "key", "i": entity, "h": hash_secret(payload).hex()[:16]})
        if credential_type == "robot-secret":
            _, secret_id = self._part(entity, payload)
            return self._signer.sign({"t": "part", "i": entity, "s": secret_id})
        raise Unauthenticated(
            f"credentials of type {credential_type!r} are not supported",
            "Use an API key (api-key) or a part secret (robot-secret).",
        )

    def key_caller(self, key_id: str, key: str) -> Caller:
        with self._database.read() as db:
            row = db.execute(sa.select(t.api_key).where(t.api_key.c.id == key_id)).mappings().first()
            if row is None or not secret_matches(key, row["hash"]):
                raise Unauthenticated(_UNKNOWN, _UNKNOWN_HINT)
            return _key_caller(db, row)

    def part_caller(self, part_id: str, secret: str) -> Caller:
        return self._part(part_id, secret)[0]

    def part_caller_by_key(self, part_id: str, key_id: str, key: str) -> Caller:
        """A machine that has an owner's API key in place of a secret. Raises PermissionDenied for another's key."""
        caller = self.key_caller(key_id, key)
        with self._database.read() as db:
            known = db.scalar(sa.select(t.part.c.id).where(t.part.c.id == part_id))
            if known is None:
                raise Unauthenticated(_UNKNOWN, _UNKNOWN_HINT)
            part = _part_caller(db, part_id)
        place = part.organization_id, part.location_id, part.machine_id
        caller.require(*place, owner=True, what=f"the machine part {part_id}")
        return part

    def bearer_caller(self, token: str) -> Caller:
        claims = self._signer.verify(token)
        with self._database.read() as db:
            if claims.get("t") == "key":
                row = db.execute(sa.select(t.api_key).where(t.api_key.c.id == claims["i"])).mappings().first()
                if row is not None and row["hash"].hex()[:16] == claims["h"]:
                    return _key_caller(db, row)
            elif claims.get("t") == "part":
                known = sa.select(t.part_secret.c.part_id).where(t.part_secret.c.id == claims["s"])
                if db.scalar(known) == claims["i"]:
                    return _part_caller(db, claims["i"])
        raise Unauthenticated(_UNKNOWN, _UNKNOWN_HINT)

    def session_caller(self, token: str) -> Caller:
        claims = self._signer.verify(token)
        if claims.get("t") == "session" and claims["x"] * _SECOND_NS > self._clock_ns():
            with self._database.read() as db:
                found = db.execute(_SESSION, {"user": claims["i"], "session": claims["s"]}).one_or_none()
                if found is not None and found.session_epoch == claims["e"] and not found.is_ended:
                    return Caller(
                        CallerKind.USER, claims["i"], found.name or "", _grants(db, CallerKind.USER, claims["i"])
                    )
        raise Unauthenticated("the session has ended", "Log in again.")

    def caller_from_headers(self, headers: Mapping[str, str], cookies: Mapping[str, str] | None = None) -> Caller:
        """Who sent these headers (names in lower case). The door checks that a cookie came from our own pages."""
        if "part_id" in headers and "key_id" in headers and not headers.get("secret"):
            return self.part_caller_by_key(headers["part_id"], headers["key_id"], headers.get("key", ""))
        if "part_id" in headers:
            return self.part_caller(headers["part_id"], headers.get("secret", ""))
        if "key_id" in headers:
            return self.key_caller(headers["key_id"], headers.get("key", ""))
        authorization = headers.get("authorization", "")
        if authorization.lower().startswith("bearer "):
            return self.bearer_caller(authorization[7:].strip())
        session = (cookies or {}).get(COOKIE, "")
        if not session:
            raise Unauthenticated("nobody is logged in", "Open the login link that `gleaner app` printed, or log in.")
        return self.session_caller(session)

    # Parts of the above

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._passwords.verify(stored, password)
        except argon2.exceptions.VerifyMismatchError:
            return False

    def _new_session(self, db: sa.Connection, user_id: str) -> Session:
        row = db.execute(sa.select(t.user).where(t.user.c.id == user_id)).mappings().one()
        claims: dict[str, Any] = {"t": "session", "i": user_id, "e": row["session_epoch"], "s": str(uuid.uuid4())}
        claims["x"] = self._clock_ns() // _SECOND_NS + SESSION_S
        return Session(self._signer.sign(claims), _as_user(row))

    def _user_caller(self, db: sa.Connection, user_id: str) -> Caller:
        name = db.scalar(sa.select(t.user.c.name).where(t.user.c.id == user_id)) or ""
        return Caller(CallerKind.USER, user_id, name, _grants(db, CallerKind.USER, user_id))

    def _part(self, part_id: str, secret: str) -> tuple[Caller, str]:
        with self._database.read() as db:
            for row in db.execute(sa.select(t.part_secret).where(t.part_secret.c.part_id == part_id)).mappings():
                if secret_matches(secret, row["hash"]):
                    return _part_caller(db, part_id), row["id"]
        raise Unauthenticated(_UNKNOWN, _UNKNOWN_HINT)


def _as_user(row: sa.RowMapping) -> User:
    return User(row["id"], row["email"], row["name"], bool(row["password_hash"]))


def _grants(db: sa.Connection, kind: CallerKind, identity_id: str) -> tuple[Grant, ...]:
    rows = db.execute(_GRANTS, {"kind": kind.value, "identity": identity_id})
    return tuple(
        Grant(one.resource_type, one.resource_id, Role(one.role), one.organization_id, one.location_id) for one in rows
    )


def _key_caller(db: sa.Connection, row: sa.RowMapping) -> Caller:
    return Caller(CallerKind.API_KEY, row["id"], row["name"], _grants(db, CallerKind.API_KEY, row["id"]))


def _part_caller(db: sa.Connection, part_id: str) -> Caller:
    place = sa.select(t.part.c.name, t.machine.c.id, t.machine.c.location_id, t.machine.c.organization_id)
    row = db.execute(place.join(t.machine, t.machine.c.id == t.part.c.machine_id).where(t.part.c.id == part_id)).one()
    return Caller(
        CallerKind.PART, part_id, row[0], organization_id=row[3], location_id=row[2], machine_id=row[1], part_id=part_id
    )
