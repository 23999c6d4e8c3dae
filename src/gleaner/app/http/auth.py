"""Logging in and out, who am I, and API keys."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from gleaner import __version__
from gleaner.app.context import AppContext
from gleaner.app.errors import Unauthenticated
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.services.auth import COOKIE, SESSION_S, Session
from gleaner.app.services.auth_keys import ApiKey, KeyGrant
from gleaner.app.services.fleet_values import iso

router = APIRouter()

_LINK_FAILED = """<!doctype html><meta charset="utf-8"><title>Gleaner</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<main style="max-width:36rem;margin:15vh auto;padding:0 1rem;font:16px/1.5 system-ui">
<h1>This login link does not work any more</h1>
<p>A link works once, for 24 hours. Make another where Gleaner runs, and open it:</p>
<pre>gleaner app login-link</pre><p>If you have a password, <a href="/">log in with it</a>.</p></main>"""


class Login(BaseModel):
    email: str
    password: str


class NewPassword(BaseModel):
    password: str
    current: str = ""


class NewKey(BaseModel):
    name: str = ""
    resource_type: str = "organization"
    resource_id: str = ""
    role: str = "owner"


@router.get("/login", response_class=RedirectResponse, include_in_schema=False)
def login_link(request: Request, context: ContextDep, token: str = "") -> Response:
    """A one-time link. Without a token this is the page's own address for logging in."""
    if not token:
        return RedirectResponse("/", 303)
    try:
        session = context.auth.redeem_login_link(token)
    except Unauthenticated:
        return RedirectResponse("/", 303) if _is_logged_in(context, request) else HTMLResponse(_LINK_FAILED, 401)
    answer = RedirectResponse("/", 303)
    _set_cookie(answer, session, context)
    return answer


@router.post("/api/auth/login")
def login(body: Login, request: Request, context: ContextDep) -> Response:
    address = request.client.host if request.client else ""
    return _logged_in(context.auth.login(body.email, body.password, address), context)


@router.post("/api/auth/logout")
def logout(request: Request, context: ContextDep) -> Response:
    context.auth.logout(request.cookies.get(COOKIE, ""))
    answer = JSONResponse({})
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


@router.put("/api/auth/password")
def set_password(body: NewPassword, context: ContextDep, caller: CallerDep) -> Response:
    return _logged_in(context.auth.set_password(caller, body.password, body.current), context)


@router.get("/api/auth/me")
def me(context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    user = context.auth.user(caller)
    organizations = context.fleet.organizations(caller)
    where = context.addresses
    return {
        "user": {"id": user.id, "email": user.email, "name": user.name, "has_password": user.has_password},
        "organizations": [{"id": o.id, "name": o.name, "role": o.role} for o in organizations],
        "app": {
            "version": __version__,
            "web_address": where.web,
            "grpc_address": where.grpc,
            "tls": where.tls,
            "fingerprint": where.fingerprint,
        },
    }


@router.get("/api/organizations/{organization_id}/keys")
def list_keys(organization_id: str, context: ContextDep, caller: CallerDep) -> list[dict[str, Any]]:
    return [_key(key) for key in context.api_keys.listed(caller, organization_id)]


@router.post("/api/organizations/{organization_id}/keys")
def create_key(organization_id: str, body: NewKey, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    grant = KeyGrant(body.role, body.resource_type, body.resource_id or organization_id)
    made = context.api_keys.create(caller, organization_id, body.name, [grant])
    return {**_key(made), "key": made.key}


@router.delete("/api/keys/{key_id}")
def delete_key(key_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    context.api_keys.delete(caller, key_id)
    return {}


def _key(key: ApiKey) -> dict[str, Any]:
    grant = key.grants[0] if key.grants else KeyGrant("", "", "")
    return {
        "id": key.id,
        "name": key.name,
        "created_at": iso(key.created_ns),
        "role": grant.role,
        "resource_type": grant.resource_type,
        "resource_id": grant.resource_id,
    }


def _logged_in(session: Session, context: AppContext) -> Response:
    caller = context.auth.session_caller(session.token)
    answer = JSONResponse(me(context, caller))
    _set_cookie(answer, session, context)
    return answer


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
