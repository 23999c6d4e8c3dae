"""The web pages: built files from `app/static`, one page for every address, and headers that keep the browser strict."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STATIC_DIR = Path(__file__).parent.parent / "static"

# Style attributes are the one thing frameworks write inline; scripts, frames and other origins stay shut.
_CSP = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_NOT_BUILT = """<!doctype html><meta charset="utf-8"><title>Gleaner</title><meta name="viewport" content="width=device-width">
<main style="max-width:40rem;margin:15vh auto;font:16px/1.5 system-ui">
<h1>Gleaner is running, its web pages are not built</h1>
<p>The API works. To build the pages, run <code>make web</code> in the repository and reload this page.</p>
<p>The API is described at <a href="/api/openapi.json">/api/openapi.json</a>.</p></main>"""


class SecurityHeaders:
    """Adds the headers above to every HTTP answer. Pure ASGI, so that streams stay streams."""

    def __init__(self, app: ASGIApp, *, strict_transport: bool = False) -> None:
        self._app = app
        headers = _HEADERS | ({"strict-transport-security": "max-age=31536000"} if strict_transport else {})
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message["headers"] = given + [pair for pair in self._headers if pair[0] not in names]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def install_pages(app: FastAPI, static_dir: Path = STATIC_DIR) -> None:
    """Must be installed last: it answers every address that nothing else did."""
    root = static_dir.resolve()

    @app.get("/{path:path}", include_in_schema=False)
    def page(path: str, request: Request) -> Response:
        if path.startswith("api/"):
            raise HTTPException(404)
        file = (root / path).resolve()
        if path and file.is_relative_to(root) and file.is_file():
            hashed = path.startswith("assets/")
            return FileResponse(
                file, headers={"cache-control": "public, max-age=31536000, immutable" if hashed else "no-cache"}
            )
        if path.startswith("assets/"):
            raise HTTPException(404)
        index = root / "index.html"
        if not index.is_file():
            return HTMLResponse(_NOT_BUILT, 503)
        return FileResponse(index, headers={"cache-control": "no-cache"})
