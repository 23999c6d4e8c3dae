"""What every router needs: the running app and who is asking.

Endpoints are plain `def` functions (FastAPI runs them in worker threads) unless they stream or wait; async ones reach
services only through `await context.call(method, …)`.
"""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request, WebSocket
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection

from gleaner.app.caller import Caller
from gleaner.app.context import AppContext
from gleaner.app.errors import AppError
from gleaner.app.http.errors import app_error_body


async def get_context(request: Request) -> AppContext:
    # Async, though it waits for nothing: FastAPI would take any other function to a thread and back.
    return context_of(request)


def get_caller(request: Request) -> Caller:
    """Raises Unauthenticated when the request carries no valid cookie, key or part secret."""
    return context_of(request).auth.caller_from_headers(request.headers, request.cookies)


def context_of(connection: HTTPConnection) -> AppContext:
    """The running app, from a request or a WebSocket."""
    return cast(AppContext, connection.app.state.context)


async def websocket_caller(socket: WebSocket) -> Caller:
    """Who opened the WebSocket. Raises Unauthenticated; call before accepting."""
    context = context_of(socket)
    return await context.call(context.auth.caller_from_headers, socket.headers, socket.cookies)


async def deny(socket: WebSocket, err: AppError) -> None:
    """Answers a WebSocket that is not accepted with the HTTP status and body any request would get."""
    await socket.send_denial_response(JSONResponse(app_error_body(err), err.http_status))


ContextDep = Annotated[AppContext, Depends(get_context)]
CallerDep = Annotated[Caller, Depends(get_caller)]
