"""Who gets in, with what, for how long."""

from __future__ import annotations

import pytest
from fleet_world import Fleet

from gleaner.app.caller import CallerKind
from gleaner.app.context import AppContext
from gleaner.app.errors import InvalidInput, NotFound, PermissionDenied, Unauthenticated
from gleaner.app.services.auth import COOKIE, SESSION_S, AuthService
from gleaner.app.services.auth_keys import KeyGrant
from gleaner.app.services.auth_throttle import FREE_FAILURES, LONGEST_WAIT_S, Throttle, TooManyAttempts
from gleaner.app.services.tokens import TokenSigner

PASSWORD = "four random words here"
SECOND_NS = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND_NS

    def __call__(self) -> int:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += int(seconds * SECOND_NS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auth(context: AppContext, clock: Clock) -> AuthService:
    return AuthService(context.database, context.keys.tokens, clock)


def test_the_first_start_makes_one_owner_and_the_second_none(context: AppContext) -> None:
    assert context.auth.bootstrap("someone@else") is False
    owner = context.auth.first_owner()
    assert context.auth.user(owner).email == "owner@localhost"
    assert len(context.fleet.organizations(owner)) == 1


def test_nobody_gets_in_without_credentials(auth: AuthService) -> None:
    with pytest.raises(Unauthenticated, match="nobody is logged in"):
        auth.caller_from_headers({}, {})


def test_a_login_link_works_once(auth: AuthService) -> None:
    token = auth.create_login_link()
    session = auth.redeem_login_link(token)
    assert auth.caller_from_headers({}, {COOKIE: session.token}).kind is CallerKind.USER
    with pytest.raises(Unauthenticated, match="used already"):
        auth.redeem_login_link(token)


def test_a_login_link_is_too_old_after_a_day(auth: AuthService, clock: Clock) -> None:
    token = auth.create_login_link()
    clock.forward(24 * 3600 + 1)
    with pytest.raises(Unauthenticated, match="too old"):
        auth.redeem_login_link(token)


def test_a_login_link_needs_a_known_user(auth: AuthService) -> None:
    with pytest.raises(InvalidInput, match="no user"):
        auth.create_login_link("nobody@localhost")


def test_a_session_ends_by_time_by_logout_and_by_a_new_password(auth: AuthService, clock: Clock) -> None:
    first = auth.redeem_login_link(auth.create_login_link()).token
    second = auth.redeem_login_link(auth.create_login_link()).token
    auth.logout(first)
    with pytest.raises(Unauthenticated, match="session has ended"):
        auth.session_caller(first)
    caller = auth.session_caller(second)
    third = auth.set_password(caller, PASSWORD).token
    with pytest.raises(Unauthenticated, match="session has ended"):
        auth.session_caller(second)
    auth.session_caller(third)
    clock.forward(SESSION_S + 1)
    with pytest.raises(Unauthenticated, match="session has ended"):
        auth.session_caller(third)


def test_logging_out_without_a_session_is_fine(auth: AuthService) -> None:
    auth.logout("")
    auth.logout("not.a-token")


def test_passwords_open_and_wrong_ones_do_not(auth: AuthService) -> None:
    caller = auth.first_owner()
    auth.set_password(caller, PASSWORD)
    assert auth.login("owner@localhost", PASSWORD).user.has_password
    for email, password in (("owner@localhost", "wrong"), ("nobody@localhost", PASSWORD), ("owner@localhost", "")):
        with pytest.raises(Unauthenticated, match="e-mail or the password"):
            auth.login(email, password)


def test_a_user_without_a_password_cannot_log_in_with_an_empty_one(auth: AuthService) -> None:
    with pytest.raises(Unauthenticated):
        auth.login("owner@localhost", "")


def test_a_password_change_needs_the_current_one(auth: AuthService) -> None:
    caller = auth.first_owner()
    auth.set_password(caller, PASSWORD)
    with pytest.raises(Unauthenticated, match="current password"):
        auth.set_password(caller, "another long password", "guess")
    with pytest.raises(InvalidInput, match="characters"):
        auth.set_password(caller, "short", PASSWORD)
    auth.set_password(caller, "another long password", PASSWORD)


def test_guessing_is_slowed_down_and_forgiven_after_success(clock: Clock) -> None:
    throttle = Throttle(clock)

    def fail() -> None:
        with pytest.raises(Unauthenticated), throttle.attempt("mail x"):
            raise Unauthenticated("no")

    for _ in range(FREE_FAILURES):
        fail()
    with pytest.raises(TooManyAttempts, match="too many") as told, throttle.attempt("mail x"):
        pass
    assert "Wait 1 s" in told.value.hint
    with throttle.attempt("mail y"):
        pass
    clock.forward(1)
    fail()
    with pytest.raises(TooManyAttempts) as told, throttle.attempt("mail x"):
        pass
    assert "Wait 2 s" in told.value.hint
    clock.forward(LONGEST_WAIT_S)
    with throttle.attempt("mail x"):
        pass
    fail()
    with throttle.attempt("mail x"):
        pass


def test_keys_have_the_role_they_were_given(fleet: Fleet, context: AppContext) -> None:

    grant = KeyGrant("operator", "robot", fleet.machine.id)
    made = context.api_keys.create(fleet.owner, fleet.organization_id, "reader", [grant])
    caller = context.auth.caller_from_headers({"key_id": made.id, "key": made.key})
    assert [machine.id for machine in context.fleet.machines(caller)] == [fleet.machine.id]
    with pytest.raises(PermissionDenied, match="owner role"):
        context.fleet.update_machine(caller, fleet.machine.id, "mine")
    with pytest.raises(PermissionDenied):
        context.api_keys.listed(caller, fleet.organization_id)
    other = context.fleet.create_machine(fleet.owner, "other", fleet.location_id)
    with pytest.raises(NotFound):
        context.fleet.machine(caller, other.id)


def test_a_key_cannot_reach_into_another_organization(fleet: Fleet, context: AppContext) -> None:
    with pytest.raises(NotFound, match="has no robot"):
        context.api_keys.create(fleet.owner, fleet.organization_id, "k", [KeyGrant("owner", "robot", "elsewhere")])


def test_rotating_a_key_ends_the_old_one_and_its_tokens(fleet: Fleet, context: AppContext) -> None:
    organization_id, owner = fleet.organization_id, fleet.owner
    made = context.api_keys.create(owner, organization_id, "k", [KeyGrant("owner", "organization", organization_id)])
    token = context.auth.authenticate("api-key", made.id, made.key)
    assert context.auth.bearer_caller(token).id == made.id
    key = context.api_keys.rotate(owner, made.id)
    with pytest.raises(Unauthenticated):
        context.auth.bearer_caller(token)
    with pytest.raises(Unauthenticated):
        context.auth.key_caller(made.id, made.key)
    assert context.auth.key_caller(made.id, key).id == made.id


def test_a_part_has_at_most_two_secrets(fleet: Fleet, context: AppContext) -> None:
    part_id, owner = fleet.part_id, fleet.owner
    first, second, third = (context.fleet.new_secret(owner, part_id) for _ in range(3))
    token = context.auth.authenticate("robot-secret", part_id, second)
    with pytest.raises(Unauthenticated):
        context.auth.part_caller(part_id, first)
    assert context.auth.part_caller(part_id, third).part_id == part_id
    assert context.auth.bearer_caller(token).machine_id == fleet.machine.id
    context.fleet.new_secret(owner, part_id)
    with pytest.raises(Unauthenticated):
        context.auth.bearer_caller(token)


def test_secrets_and_keys_are_not_in_the_database(fleet: Fleet, context: AppContext) -> None:
    secret = context.fleet.new_secret(fleet.owner, fleet.part_id)
    with context.database.read() as db:
        rows = db.exec_driver_sql("select hash from part_secret").all()
    assert secret.encode() not in b"".join(row[0] for row in rows)


@pytest.mark.parametrize(
    "change", [lambda t: t[:-2] + "AA", lambda t: "x" + t, lambda t: t.split(".")[0], lambda t: ""]
)
def test_a_token_that_was_touched_is_refused(change: object) -> None:
    signer = TokenSigner(b"k" * 32)
    token = signer.sign({"t": "key", "i": "1"})
    assert signer.verify(token) == {"t": "key", "i": "1"}
    with pytest.raises(Unauthenticated):
        signer.verify(change(token))  # type: ignore[operator]
    with pytest.raises(Unauthenticated):
        TokenSigner(b"o" * 32).verify(token)


def test_unknown_kinds_of_credentials_are_named(auth: AuthService) -> None:
    with pytest.raises(Unauthenticated, match="'oauth-web'"):
        auth.authenticate("oauth-web", "me", "secret")
