"""Every failure over HTTP has one JSON shape: {"error": {code, message, hint, problems?}}."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gleaner.app.errors import AppError, ConfigRejected
from gleaner.wire.validation_words import in_words

log = logging.getLogger("gleaner.app.http")

_CODES = {
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
}


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def error_body(code: str, message: str, hint: str = "", problems: list[dict[str, str]] | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message, "hint": hint}
    if problems:
        error["problems"] = problems
    return {"error": error}


def app_error_body(err: AppError) -> dict[str, Any]:
    problems = None
    if isinstance(err, ConfigRejected):
        problems = [{"path": p.path, "message": p.message, "hint": p.hint} for p in err.problems]
    return error_body(err.code, err.message, err.hint, problems)


async def _app_error(request: Request, err: Exception) -> Response:
    assert isinstance(err, AppError)
    headers = {"retry-after": "1"} if err.http_status == 503 else None
    return JSONResponse(app_error_body(err), err.http_status, headers)


async def _validation_error(request: Request, err: Exception) -> Response:
    assert isinstance(err, RequestValidationError)
    problems = [_problem(problem) for problem in err.errors()]
    first = problems[0] if problems else {"path": "request", "message": "not valid", "hint": ""}
    hint = first["hint"] or "Correct the request and send it again."
    body = error_body("invalid_input", f"{first['path']}: {first['message']}", hint, problems)
    return JSONResponse(body, 400)


def _problem(problem: dict[str, Any]) -> dict[str, str]:
    path = ".".join(str(part) for part in problem["loc"])
    return {"path": path, "message": in_words(problem), "hint": ""}


async def _http_error(request: Request, err: Exception) -> Response:
    assert isinstance(err, HTTPException)
    code = _CODES.get(err.status_code, "error")
    message = str(err.detail) if err.status_code != 404 else f"There is nothing at {request.url.path}"
    return JSONResponse(error_body(code, message), err.status_code, err.headers)


async def _unexpected(request: Request, err: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=err)
    body = error_body(
        "internal", "The app failed while answering this request", "Try again; the app's log has the details."
    )
    return JSONResponse(body, 500)
