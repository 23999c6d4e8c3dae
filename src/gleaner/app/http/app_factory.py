"""Builds the HTTP door: every router, the error shape, the security headers and the web pages."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gleaner import __version__
from gleaner.app.context import AppContext
from gleaner.app.http import (
    auth,
    dataset_files,
    datasets,
    events,
    fleet,
    install,
    items,
    jobs,
    link,
    live,
    ml_models,
    queries,
    query_files,
    readings,
    sequences,
    signed,
    sync,
    upload,
    views,
)
from gleaner.app.http.answers import ErrorAnswer
from gleaner.app.http.errors import error_body, install_error_handlers
from gleaner.app.http.static import SecurityHeaders, install_pages
from gleaner.app.http.thumbs import ThumbRoute

# One module per group of addresses; each has `router` whose paths start with /api (only /login and /install do not).
_ROUTERS = (
    auth,
    fleet,
    install,
    items,
    upload,
    readings,
    sequences,
    datasets,
    dataset_files,
    queries,
    query_files,
    views,
    signed,
    jobs,
    ml_models,
    events,
    sync,
    link,
    live,
)


def create_app(context: AppContext) -> FastAPI:
    app = FastAPI(
        title="Gleaner",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": ErrorAnswer, "description": "What failed, and what to do next"}},
    )
    app.state.context = context
    install_error_handlers(app)
    for module in _ROUTERS:
        app.include_router(module.router)
    install_pages(app)
    app.router.routes.insert(0, ThumbRoute())
    app.add_middleware(SameOrigin)
    app.add_middleware(SecurityHeaders, strict_transport=not context.settings.is_loopback)
    return app


class SameOrigin:
    """Refuses cookie-authenticated changes and WebSockets started by another site's page (request forgery)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and _crosses_origin(scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 4403, "reason": "another site's page may not connect"})
                return
            body = error_body(
                "permission_denied", "This request came from another site's page", "Open Gleaner itself and try there."
            )
            await JSONResponse(body, 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _crosses_origin(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    origin = headers.get(b"origin", b"").decode("latin-1")
    if not origin or b"cookie" not in headers:
        return False
    if scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return False
    return bool(urlsplit(origin).netloc != headers.get(b"host", b"").decode("latin-1"))
