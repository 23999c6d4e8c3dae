"""How commands reach an app: its address and an API key, from options or the environment."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from gleaner.cli.rest_client import RestClient

APP_ENV, KEY_ID_ENV, KEY_ENV = "GLEANER_APP", "GLEANER_API_KEY_ID", "GLEANER_API_KEY"

AppAddress = Annotated[
    str, typer.Option("--app", envvar=APP_ENV, help="Address of the app's page, like http://localhost:8090.")
]
KeyId = Annotated[str, typer.Option("--key-id", envvar=KEY_ID_ENV, help="Id of an API key (Settings → API keys).")]
Key = Annotated[str, typer.Option("--key", envvar=KEY_ENV, help="The API key; better in the environment.")]
Authority = Annotated[
    Path | None, typer.Option("--ca", help="Certificate of the app's own authority, for https with one it made.")
]

FAILED, NOT_USABLE = 1, 2
_TRIES = 6
_FIRST_WAIT_S = 0.2
T = TypeVar("T")


@dataclass(frozen=True)
class App:
    client: RestClient
    address: str
    organization_id: str


@dataclass(frozen=True)
class AppAccess:
    """For `option_groups.spread`."""

    address: AppAddress = ""
    key_id: KeyId = ""
    key: Key = ""
    authority: Authority = None

    def connect(self) -> App:
        """Ends the program with what is missing. The organization is the key's."""
        from gleaner.cli.rest_client import RestClient

        for given, option, variable in (
            (self.address, "--app", APP_ENV),
            (self.key_id, "--key-id", KEY_ID_ENV),
            (self.key, "--key", KEY_ENV),
        ):
            if not given:
                stop(f"{option} is missing: give it, or set {variable}", NOT_USABLE)
        address = self.address.rstrip("/")
        tls = ssl.create_default_context(cafile=str(self.authority)) if self.authority else None
        client = RestClient(address, 60.0, tls, {"key_id": self.key_id, "key": self.key})
        organizations = client.get("/auth/me")["organizations"]
        if not organizations:
            stop("this API key belongs to no organization: make another in Settings → API keys", NOT_USABLE)
        return App(client, address, str(organizations[0]["id"]))


@contextmanager
def explained() -> Iterator[None]:
    """A refusal, an app that is not there, or bad input is one line."""
    from gleaner.cli.rest_client import RestError
    from gleaner.formats.values import FormatProblem

    try:
        yield
    except (RestError, FormatProblem) as problem:
        stop(str(problem), FAILED)
    except OSError as problem:
        stop(f"{problem.filename or 'a file'}: {problem.strerror or problem}", FAILED)
    except KeyboardInterrupt:
        stop("interrupted: the same command goes on where it stopped", 130)


def stop(message: str, code: int) -> NoReturn:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(code)


def tried(act: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """Again, for half a minute at most in all, while the app cannot be reached. For requests that may be repeated."""
    from gleaner.cli.rest_client import Unreachable

    wait_s = _FIRST_WAIT_S
    for _ in range(_TRIES):
        try:
            return act()
        except Unreachable:
            sleep(wait_s)
            wait_s *= 2
    return act()


def dataset_named(app: App, name: str, *, make: bool = False) -> dict[str, Any]:
    """By id or name. Ends the program if there is none, unless it is to be made."""
    known: list[dict[str, Any]] = app.client.get(f"/datasets?organization_id={quote(app.organization_id)}")
    for one in known:
        if name in (one["id"], one["name"]):
            return one
    if not make:
        listed = ", ".join(repr(one["name"]) for one in known[:10]) or "none"
        stop(f"there is no dataset {name!r}; there are: {listed}", NOT_USABLE)
    made: dict[str, Any] = app.client.post("/datasets", {"name": name, "organization_id": app.organization_id})
    return made
