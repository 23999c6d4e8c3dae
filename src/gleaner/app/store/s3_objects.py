"""Packs in a bucket of S3, or of what speaks its protocol (MinIO, Ceph, Garage, R2).

Layout: `s3://bucket/prefix/<day>/<name>.pack`, models below `packages/`; the same bytes under the same names as in a folder, so that `aws s3 sync` moves
a store there. Who may write and delete is what `packs.py` says; here, several app processes at a time.
A put is durable and whole once it is answered, or not there at all. Up to `_SINGLE_PUT_BYTES` it is one request that refuses
an existing name (If-None-Match); above, a multipart upload, whose name is random enough. A process that is killed in the
middle of one leaves invisible parts that cost money: let a lifecycle rule of the bucket abort them after a day.

Credentials and endpoint are AWS's environment variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
AWS_ENDPOINT_URL; without keys those of the instance or container (IMDS, ECS, EKS web identity).
"""

from __future__ import annotations

import datetime as dt
import errno
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from gleaner.app.store.object_store import PACKAGES, S3_SCHEME, StoreProblem
from gleaner.app.store.range_cache import RangeCache

_SINGLE_PUT_BYTES = 8 << 20
_PARTS_AT_ONCE = 4
_CHECKS = "check/"
_LIST_PAGE = 1000
_CREDENTIALS = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_BUSY = {"SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "TooManyRequests"}


class S3Objects:
    is_shared = True

    def __init__(
        self,
        address: str,
        environment: Mapping[str, str],
        *,
        cache_bytes: int = 0,
        request_s: float = 30.0,
        retry_s: float = 20.0,
    ) -> None:
        """`request_s`: how long one request may take; `retry_s`: how long it is tried again before the caller is told.

        Raises StoreProblem when the address names no bucket.
        """
        bucket, _, prefix = address.removeprefix(S3_SCHEME).partition("/")
        if not bucket:
            raise StoreProblem(f"{address} names no bucket. Write --store s3://bucket/prefix.")
        self._address, self._bucket = address, bucket
        self._endpoint = environment.get("AWS_ENDPOINT_URL") or environment.get("AWS_ENDPOINT", "")
        options = {name.lower(): value for name, value in environment.items() if name.startswith("AWS_") and value}
        known = {name: options[name] for name in _OPTIONS if name in options}
        if self._endpoint:
            known["aws_endpoint"] = self._endpoint
        self._store = S3Store(
            bucket,
            prefix=prefix.strip("/") or None,
            config=cast(Any, {"aws_region": "us-east-1"} | known),
            client_options={
                "allow_http": self._endpoint.startswith("http://"),
                "timeout": dt.timedelta(seconds=request_s),
                "connect_timeout": dt.timedelta(seconds=min(5.0, request_s)),
            },
            retry_config={"max_retries": 5, "retry_timeout": dt.timedelta(seconds=retry_s)},
        )
        self._cache = RangeCache(self._fetch, cache_bytes)

    @property
    def address(self) -> str:
        return self._address

    def start(self) -> None:
        """Writes, reads, lists and deletes an object of its own. Raises StoreProblem."""
        name = f"{_CHECKS}{uuid.uuid4().hex}"
        try:
            self.put(name, b"gleaner", durable=True)
            self._fetch(name, 0, 7)
            next(iter(self.sizes()), None)
            self.delete(name)
        except OSError as err:
            raise StoreProblem(str(err.strerror or err)) from err

    def put(self, name: str, content: bytes | Iterator[bytes], *, durable: bool) -> None:
        pieces = iter((content,) if isinstance(content, bytes) else content)
        begin, size = [], 0
        while size <= _SINGLE_PUT_BYTES and (piece := next(pieces, None)) is not None:
            begin.append(piece)
            size += len(piece)
        with self._explained(f"writing {name}"):
            if size > _SINGLE_PUT_BYTES:
                obstore.put(self._store, name, chain(begin, pieces), use_multipart=True, max_concurrency=_PARTS_AT_ONCE)
                return
            whole = b"".join(begin)
            try:
                obstore.put(self._store, name, whole, mode="create", use_multipart=False)
            except AlreadyExistsError:
                # An answer that was lost, and the request sent again: what is there is this very object.
                if bytes(obstore.get(self._store, name).bytes()) != whole:
                    raise

    def read(self, name: str, start: int, length: int) -> bytes:
        found = self._cache.read(name, start, length)
        if len(found) != length:
            raise OSError(errno.EIO, f"{name} in {self._address} ends before byte {start + length}")
        return found

    def _fetch(self, name: str, start: int, length: int) -> bytes:
        with self._explained(f"reading {name}"):
            return bytes(obstore.get_range(self._store, name, start=start, length=length))

    def size(self, name: str) -> int:
        with self._explained(f"looking for {name}"):
            return int(obstore.head(self._store, name)["size"])

    def exists(self, name: str) -> bool:
        try:
            return self.size(name) >= 0
        except FileNotFoundError:
            return False

    def delete(self, name: str) -> None:
        with self._explained(f"deleting {name}"):
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError as err:
                if _code(err) == "NoSuchBucket":
                    raise

    def names(self) -> Iterator[str]:
        return (name for name, _ in self.sizes())

    def sizes(self) -> Iterator[tuple[str, int]]:
        with self._explained("listing"):
            for page in obstore.list(self._store, chunk_size=_LIST_PAGE):
                for entry in page:
                    path = str(entry["path"])
                    if not path.startswith((_CHECKS, PACKAGES)):
                        yield path, int(entry["size"])

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Raises OSError, whose words say what failed, where, why and what to do; FileNotFoundError for an object."""
        try:
            yield
        except FileNotFoundError as err:
            if _code(err) != "NoSuchBucket":
                raise FileNotFoundError(errno.ENOENT, f"There is no such object: {doing} in {self._address}") from err
            raise OSError(errno.EIO, self._words(doing, err)) from err
        except BaseError as err:
            raise OSError(errno.EIO, self._words(doing, err)) from err

    def _words(self, doing: str, err: Exception) -> str:
        where = self._endpoint or "Amazon S3"
        failed = f"{doing[0].upper()}{doing[1:]} in {self._address} failed"
        code = _code(err)
        if code == "NoSuchBucket":
            return f"{failed}: {where} has no bucket {self._bucket}. Make the bucket, or correct --store."
        if code in _CREDENTIALS or isinstance(err, (PermissionDeniedError, UnauthenticatedError)):
            return (
                f"{failed}: {where} refuses the credentials ({code or 'access denied'}). Check AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, and that they may get, put, delete and list there."
            )
        if code in _BUSY:
            return f"{failed}: {where} is overloaded ({code}). It is tried again; ask its operator if it lasts."
        first = str(err).partition("\n")[0]
        if "timed out" in str(err) or "TimedOut" in str(err):
            return f"{failed}: {where} did not answer in time. Look at the network and at the store's load."
        if "HTTP error" in first:
            return f"{failed}: {where} cannot be reached. Start it, or correct AWS_ENDPOINT_URL or the network."
        return f"{failed}: {first}"


_OPTIONS = (
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_region",
    "aws_default_region",
    "aws_virtual_hosted_style_request",
)


def _code(err: Exception) -> str:
    """S3's own word for what is wrong, from the answer that obstore quotes."""
    found = re.search(r"<Code>(\w+)</Code>", str(err))
    return found[1] if found else ""
