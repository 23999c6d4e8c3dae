from __future__ import annotations

from typing import Any

import pytest
from grpclib import GRPCError, Status

from gleaner.machine.rpc import auth as auth_module
from gleaner.machine.rpc.auth import Authenticator
from gleaner.wire.machine_config import MachineConfig, parse_config

SIGNING_KEY = b"k" * 32


def authenticator(value: dict[str, Any], **kwargs: Any) -> Authenticator:
    made = Authenticator(SIGNING_KEY, **kwargs)
    made.configure(parse_config(value))
    return made


def handlers(**config: Any) -> dict[str, Any]:
    return {"auth": {"handlers": [{"type": "api-key", "config": {**config, "keys": list(config)}}]}}


async def refused(made: Authenticator, *credentials: str) -> str:
    with pytest.raises(GRPCError) as failure:
        await made.authenticate(*credentials)
    assert failure.value.status is Status.UNAUTHENTICATED
    return str(failure.value.message)


async def test_without_credentials_everyone_is_let_in() -> None:
    made = authenticator({})
    assert not made.is_required
    assert made.authorize("") == ""
    # A client that always authenticates still gets a token, but it is worthless once credentials are asked.
    token = await made.authenticate("me", "api-key", "anything")
    made.configure(parse_config(handlers(id1="k1")))
    with pytest.raises(GRPCError, match="no longer valid"):
        made.authorize(f"Bearer {token}")


async def test_an_api_key_is_known_by_its_id() -> None:
    made = authenticator(handlers(id1="k1", id2="k2"))
    token = await made.authenticate("id1", "api-key", "k1")
    assert made.authorize(f"Bearer {token}") == "id1"
    assert "does not know api-key 'id1'" in await refused(made, "id1", "api-key", "k2")
    await refused(made, "id1", "robot-secret", "k1")
    await refused(made, "keys", "api-key", "id1")


async def test_tokens_survive_a_restart_but_not_the_removal_of_their_key() -> None:
    token = await authenticator(handlers(id1="k1")).authenticate("id1", "api-key", "k1")
    again = authenticator(handlers(id1="k1"))
    assert again.authorize(f"bearer {token}") == "id1"
    again.configure(parse_config(handlers(id2="k2")))
    with pytest.raises(GRPCError, match="no longer valid"):
        again.authorize(f"Bearer {token}")


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Basic abc", "Bearer abc", "Bearer e30=.00"])
async def test_forged_and_missing_tokens_are_refused(authorization: str) -> None:
    with pytest.raises(GRPCError) as failure:
        authenticator(handlers(id1="k1")).authorize(authorization)
    assert failure.value.status is Status.UNAUTHENTICATED


async def test_a_token_of_another_machine_is_refused() -> None:
    other = Authenticator(b"o" * 32)
    other.configure(parse_config(handlers(id1="k1")))
    token = await other.authenticate("id1", "api-key", "k1")
    with pytest.raises(GRPCError, match="not issued by this machine"):
        authenticator(handlers(id1="k1")).authorize(f"Bearer {token}")


async def test_part_and_location_secrets_open_a_cloud_machine() -> None:
    cloud = {
        "id": "part",
        "secret": "s1",
        "location_secrets": [{"id": "1", "secret": "l1"}],
        "api_key": {"id": "a", "key": "b"},
    }
    made = authenticator({"cloud": cloud})
    for credentials in (
        ("part", "robot-secret", "s1"),
        ("any.name", "robot-location-secret", "l1"),
        ("a", "api-key", "b"),
    ):
        assert made.authorize(f"Bearer {await made.authenticate(*credentials)}") == credentials[0]
    await refused(made, "part", "robot-secret", "")


async def test_the_app_is_asked_about_keys_that_are_not_known_here(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def verify(key_id: str, key: str) -> bool:
        asked.append(key_id)
        return key == "good"

    made = Authenticator(SIGNING_KEY, verify)
    made.configure(MachineConfig())
    assert made.is_required
    token = await made.authenticate("k", "api-key", "good")
    assert made.authorize(f"Bearer {token}") == "k"
    await refused(made, "k", "api-key", "bad")
    await refused(made, "k", "robot-secret", "good")
    assert asked == ["k", "k"]
    now = auth_module.time.time()
    monkeypatch.setattr(auth_module.time, "time", lambda: now + auth_module.APP_TOKEN_LIFE_S + 1)
    with pytest.raises(GRPCError, match="no longer valid"):
        made.authorize(f"Bearer {token}")
