"""Thumbnails over REST, the one address a page asks a hundred times at once, without the framework's way to it.

FastAPI looks through all routes, resolves dependencies and checks parameters: more processor time than reading the picture.
`ThumbRoute` stands before all routes and answers only what it knows for sure (GET with a plain number); everything else takes the
documented route in `items`, which means the same. Who may see what is asked in one place: `thumb_answer`.
"""

from __future__ import annotations

from fastapi.responses import Response
from starlette.datastructures import URLPath
from starlette.requests import HTTPConnection, Request
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from gleaner.app.context import AppContext
from gleaner.app.errors import InvalidInput
from gleaner.app.http.deps import context_of

# A row's bytes never change and its number is never used again.
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}
# More digits than a row can have in the database are for the documented route to refuse.
_MOST_DIGITS = 18
_BEFORE, _BEHIND = "/api/items/", "/thumb"
_CREDENTIALS = ("cookie", "authorization", "key_id", "key", "part_id", "secret")
_NO_PICTURE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 240" width="320" height="240">'
    b'<rect width="320" height="240" fill="#8884"/><path d="M110 80h100v80H110zM110 150l30-35 22 24 14-14 34 35" '
    b'fill="none" stroke="#888" stroke-width="5" stroke-linejoin="round"/>'
    b'<path d="M98 190 222 50" stroke="#888" stroke-width="5"/></svg>'
)


async def thumb_answer(context: AppContext, request: HTTPConnection, row: int) -> Response:
    """The picture, or the drawing that stands for it. Raises Unauthenticated, NotFound."""
    # A page asks for a hundred at once: who asks is found out once, and each takes one way to a thread and back.
    asks = tuple(request.headers.get(name) for name in _CREDENTIALS)
    caller = context.callers.get(asks)
    if caller is None:
        caller = await context.call(context.auth.caller_from_headers, request.headers, request.cookies)
        context.callers.put(asks, caller)
    try:
        jpeg = await context.call(context.thumbnails.get, caller, row)
        return Response(jpeg, media_type="image/jpeg", headers=FOREVER)
    except InvalidInput:
        return Response(_NO_PICTURE, media_type="image/svg+xml", headers={"cache-control": "no-cache"})


class ThumbRoute(BaseRoute):
    """Goes first in the list of routes; matches by two comparisons of strings."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["method"] == "GET" and _row(scope["path"]) is not None:
            return Match.FULL, {}
        return Match.NONE, {}

    def url_path_for(self, name: str, /, **path_params: object) -> URLPath:
        raise NoMatchFound(name, path_params)  # the documented route has the name

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        row = _row(scope["path"])
        assert row is not None
        request = Request(scope)
        await (await thumb_answer(context_of(request), request, row))(scope, receive, send)


def _row(path: str) -> int | None:
    if not (path.startswith(_BEFORE) and path.endswith(_BEHIND)):
        return None
    digits = path[len(_BEFORE) : -len(_BEHIND)]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS else None
