"""Fetching and unpacking one package file. Blocking: call it in a worker thread."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.client
import os
import shutil
import ssl
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import google_crc32c

from gleaner.machine.dial import is_loopback

_CHUNK_BYTES = 256 * 1024
#: Of silence, not of the whole download.
_TIMEOUT_S = 10.0


class DownloadInterrupted(Exception):
    """The network or the app failed on the way: what arrived is kept and continued later."""


class PackageDamaged(Exception):
    """What arrived is not the package: trying the same version again would not help."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the part's secret to another server."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str) -> None:
        return None


def download(
    url: str,
    headers: Mapping[str, str],
    folder: Path,
    *,
    tls: ssl.SSLContext | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    stop: threading.Event | None = None,
) -> Path:
    """The complete, checked file in `folder`; continues an earlier part of it.

    `progress` gets (bytes so far, total or 0). Raises DownloadInterrupted or PackageDamaged.
    """
    part = folder / hashlib.sha256(url.encode()).hexdigest()[:7] / "package.tar.gz.part"
    part.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    expected = ""
    for _ in range(2):  # the second time from the start, when the server does not accept the old part
        have = part.stat().st_size if part.exists() else 0
        try:
            expected = _fetch(url, headers, part, have, tls, progress, stop or threading.Event())
            break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416 or not have:
                raise DownloadInterrupted(f"{url} answers HTTP {error.code}") from error
            part.unlink()
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise DownloadInterrupted(f"{url}: {getattr(error, 'reason', None) or error}") from error
    _verify(part, expected, url)
    return part


def _fetch(
    url: str,
    headers: Mapping[str, str],
    part: Path,
    have: int,
    tls: ssl.SSLContext | None,
    progress: Callable[[int, int], None],
    stop: threading.Event,
) -> str:
    """Appends to the part what is missing; returns the checksum that the server promises."""
    request = urllib.request.Request(url, headers={**headers, **({"Range": f"bytes={have}-"} if have else {})})
    handlers = [_NoRedirects(), urllib.request.HTTPSHandler(context=tls)]
    if is_loopback(urlsplit(url).hostname):
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    with opener.open(request, timeout=_TIMEOUT_S) as response:
        start = have if response.status == 206 else 0
        left = int(response.headers.get("Content-Length") or 0)
        total, done = start + left if left else 0, start
        with part.open("ab" if start else "wb") as file:
            while chunk := response.read(_CHUNK_BYTES):
                if stop.is_set():
                    raise DownloadInterrupted(f"{url}: stopped")
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
            file.flush()
            os.fsync(file.fileno())
        if total and done < total:
            raise DownloadInterrupted(f"{url}: ended after {done} of {total} bytes")
        return _promised_crc32c(response.headers.get_all("x-goog-hash") or [])


def _promised_crc32c(values: list[str]) -> str:
    for item in ",".join(values).split(","):
        name, _, value = item.strip().partition("=")
        if name == "crc32c":
            return value
    return ""


def _verify(part: Path, expected: str, url: str) -> None:
    if not expected:
        part.unlink()
        raise PackageDamaged(f"{url} has no x-goog-hash: crc32c=… header, so the package cannot be checked")
    checksum: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    with part.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            checksum.update(chunk)
    got = base64.b64encode(checksum.digest()).decode()
    if got != expected:
        part.unlink()
        raise PackageDamaged(f"{url}: its checksum is {got}, the app promised {expected}")


def unpack(archive: Path, target: Path) -> None:
    """Replace `target` by the archive's content, whole or not at all. Raises PackageDamaged, or DownloadInterrupted when
    the disk is the trouble."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(temporary, filter="data")  # refuses paths and links that leave the folder, and devices
        temporary.chmod(0o700)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PackageDamaged(f"the package cannot be unpacked: {error}") from error
    except OSError as error:
        raise DownloadInterrupted(
            f"the package cannot be unpacked into {target.parent}: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    with contextlib.suppress(OSError):
        archive.unlink()
        archive.parent.rmdir()
