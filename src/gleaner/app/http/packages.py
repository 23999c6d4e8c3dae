"""Package downloads for machines: ranges, HEAD and the checksum header that viam-server insists on."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.services.packages import Package, PackageService

router = APIRouter()
_PATH = "/api/packages/{organization_id}/{name}/{version}.tar.gz"
ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-gzip": {}}, "description": "The archive, tar.gz"},
    206: {"content": {"application/x-gzip": {}}, "description": "The range that was asked for"},
}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


@router.head(_PATH, response_class=Response, include_in_schema=False)
@router.get(_PATH, response_class=Response, responses=ARCHIVE)
def download(
    organization_id: str, name: str, version: str, request: Request, context: ContextDep, caller: CallerDep
) -> Response:
    package = context.packages.get(caller, organization_id, name, version)
    return package_response(context.packages, package, request)


def package_response(packages: PackageService, package: Package, request: Request) -> Response:
    """The whole archive, or the one range that was asked for; what cannot be satisfied is a 416."""
    size, tag = package.size_bytes, f'"{package.id}"'
    headers = {
        "x-goog-hash": f"crc32c={package.checksum}",
        "accept-ranges": "bytes",
        "etag": tag,
        "cache-control": "private, no-transform",
    }
    wanted = _wanted_range(request, size) if request.headers.get("if-range", tag) == tag else None
    if wanted == (0, 0):
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{size}"})
    start, end = wanted or (0, size)
    headers["content-length"] = str(end - start)
    if wanted:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if wanted else 200
    if request.method == "HEAD":
        return Response(None, status, headers, media_type="application/x-gzip")
    content = packages.content(package, start, end)
    return StreamingResponse(content, status, headers, media_type="application/x-gzip")


def _wanted_range(request: Request, size: int) -> tuple[int, int] | None:
    """(start, end exclusive); None for the whole, (0, 0) for a range outside of it. Several ranges: the whole."""
    found = _RANGE.match(request.headers.get("range", ""))
    if found is None or found.group(0) == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1 if last else size, size)
    return (start, end) if start < end else (0, 0)
