"""Logging in and out, who am I, and API keys."""

from __future__ import annotations

import html
import shlex

from fastapi import APIRouter, Request, Response
from starlette.responses import HTMLResponse, RedirectResponse

from gleaner import __version__
from gleaner.app import DEFAULT_DATA_DIR
from gleaner.app.context import AppContext
from gleaner.app.errors import Unauthenticated
from gleaner.app.http.answers import Done
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.models_people import (
    ApiKeyModel,
    AppModel,
    Login,
    MeModel,
    NewApiKeyModel,
    NewKey,
    NewPassword,
    OrganizationModel,
    UserModel,
)
from gleaner.app.services.auth import COOKIE, SESSION_S, Session
from gleaner.app.services.auth_keys import KeyGrant
from gleaner.app.settings import Settings
from gleaner.learn.backbone_name import Library, missing_libraries

router = APIRouter()

_LINK_FAILED = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Gleaner</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<body style="margin:0;background:light-dark(#f4f5f2,#0f1211);color:light-dark(#171c19,#ecefea)">
<main style="max-width:30rem;margin:18vh auto;padding:0 1.5rem;font:14px/1.6 system-ui">
<h1 style="font-size:1.6rem;line-height:1.25;margin:0 0 .75rem">This login link does not work any more</h1>
<p>A link works once, for 24 hours. Make another where Gleaner runs, and open it:</p>
<pre style="padding:.8rem 1rem;border-radius:8px;background:light-dark(#eceee9,#1e2321);overflow-x:auto">COMMAND</pre>
<p>If you have a password, <a style="color:light-dark(#7d5600,#f0bd4f)" href="/">log in with it</a>.</p></main>"""


def _link_command(settings: Settings) -> str:
    """Where the data are is nobody's business on other computers."""
    is_elsewhere = settings.is_loopback and settings.data_dir != DEFAULT_DATA_DIR.expanduser()
    return "gleaner app login-link" + (f" --data-dir {shlex.quote(str(settings.data_dir))}" if is_elsewhere else "")


@router.get("/login", response_class=RedirectResponse, include_in_schema=False)
def login_link(request: Request, context: ContextDep, token: str = "") -> Response:
    """A one-time link. Without a token this is the page's own address for logging in."""
    if not token:
        return RedirectResponse("/", 303)
    try:
        session = context.auth.redeem_login_link(token)
    except Unauthenticated:
        if _is_logged_in(context, request):
            return RedirectResponse("/", 303)
        return HTMLResponse(_LINK_FAILED.replace("COMMAND", html.escape(_link_command(context.settings))), 401)
    answer = RedirectResponse("/", 303)
    _set_cookie(answer, session, context)
    return answer


@router.post("/api/auth/login")
def login(body: Login, request: Request, response: Response, context: ContextDep) -> MeModel:
    address = request.client.host if request.client else ""
    return _logged_in(context.auth.login(body.email, body.password, address), response, context)


@router.post("/api/auth/logout")
def logout(request: Request, response: Response, context: ContextDep) -> Done:
    context.auth.logout(request.cookies.get(COOKIE, ""))
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return Done()


@router.put("/api/auth/password")
def set_password(body: NewPassword, response: Response, context: ContextDep, caller: CallerDep) -> MeModel:
    return _logged_in(context.auth.set_password(caller, body.password, body.current), response, context)


@router.get("/api/auth/me")
def me(context: ContextDep, caller: CallerDep) -> MeModel:
    user = context.auth.user(caller)
    where = context.addresses
    return MeModel(
        user=UserModel(id=user.id, email=user.email, name=user.name, has_password=user.has_password),
        organizations=[OrganizationModel.of(one) for one in context.fleet.organizations(caller)],
        app=AppModel(
            version=__version__,
            web_address=where.web,
            grpc_address=where.grpc,
            tls=where.tls,
            fingerprint=where.fingerprint,
            backbones=[library.value for library in Library if not missing_libraries(library)],
        ),
    )


@router.get("/api/organizations/{organization_id}/keys")
def list_keys(organization_id: str, context: ContextDep, caller: CallerDep) -> list[ApiKeyModel]:
    return [ApiKeyModel.of(key) for key in context.api_keys.listed(caller, organization_id)]


@router.post("/api/organizations/{organization_id}/keys")
def create_key(organization_id: str, body: NewKey, context: ContextDep, caller: CallerDep) -> NewApiKeyModel:
    grant = KeyGrant(body.role, body.resource_type, body.resource_id or organization_id)
    return NewApiKeyModel.of(context.api_keys.create(caller, organization_id, body.name, [grant]))


@router.delete("/api/keys/{key_id}")
def delete_key(key_id: str, context: ContextDep, caller: CallerDep) -> Done:
    context.api_keys.delete(caller, key_id)
    return Done()


def _logged_in(session: Session, response: Response, context: AppContext) -> MeModel:
    _set_cookie(response, session, context)
    return me(context, context.auth.session_caller(session.token))


def _set_cookie(answer: Response, session: Session, context: AppContext) -> None:
    is_secure = context.addresses.tls
    answer.set_cookie(
        COOKIE, session.token, max_age=SESSION_S, httponly=True, samesite="strict", secure=is_secure, path="/"
    )


def _is_logged_in(context: AppContext, request: Request) -> bool:
    try:
        context.auth.session_caller(request.cookies.get(COOKIE, ""))
    except Unauthenticated:
        return False
    return True
