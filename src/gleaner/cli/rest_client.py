"""A small client of the app's REST API for Gleaner's own commands."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.cookiejar import CookieJar
from typing import Any


class RestError(Exception):
    """The app refused, or could not be reached; the text says what and why."""


class Unreachable(RestError):
    """No answer, or a cut one: trying again may help."""


class RestClient:
    def __init__(
        self,
        address: str,
        timeout_s: float = 20.0,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`tls` says whom to trust where the app is https; default: what the system trusts. `headers` go with each request."""
        self._address = address
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self.cookies = CookieJar()
        # No proxy: the app is addressed directly, also where the environment names a proxy for the internet.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(self.cookies),
            urllib.request.HTTPSHandler(context=tls),
        )

    def log_in(self, link: str) -> None:
        """Follows a one-time login link; the cookie stays with this client."""
        self._send(urllib.request.Request(link))

    def get(self, path: str) -> Any:
        return self._json("GET", path)

    def get_bytes(self, path: str) -> bytes:
        return self._send(urllib.request.Request(f"{self._address}/api{path}"))

    def post(self, path: str, body: Any) -> Any:
        return self._json("POST", path, body)

    def post_bytes(self, path: str, body: bytes, media: str, timeout_s: float = 600.0) -> Any:
        request = urllib.request.Request(f"{self._address}/api{path}", body, {"Content-Type": media}, method="POST")
        return json.loads(self._send(request, timeout_s) or b"null")

    def open(self, path: str, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
        """An answer to read piece by piece; the caller closes it. Raises RestError, Unreachable."""
        return self._open(urllib.request.Request(f"{self._address}/api{path}", headers=dict(headers or {})))

    def put(self, path: str, body: Any) -> Any:
        return self._json("PUT", path, body)

    def _json(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(f"{self._address}/api{path}", method=method)
        request.add_header("Origin", self._address)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        return json.loads(self._send(request) or b"null")

    def _send(self, request: urllib.request.Request, timeout_s: float | None = None) -> bytes:
        try:
            with self._open(request, timeout_s) as answer:
                return bytes(answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{request.full_url} cannot be reached: {error}") from error

    def _open(self, request: urllib.request.Request, timeout_s: float | None = None) -> http.client.HTTPResponse:
        for name, value in self._headers.items():
            request.add_header(name, value)
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=timeout_s or self._timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode("utf-8", "replace")
            try:
                problem = json.loads(text)["error"]
                text = " ".join(part for part in (problem["message"], problem.get("hint", "")) if part)
            except (ValueError, KeyError, TypeError):
                text = text[:300]
            raise RestError(f"{request.get_method()} {request.full_url} answered {error.code}: {text}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{request.full_url} cannot be reached: {error}") from error
        return answer
