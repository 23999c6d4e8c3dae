"""Packs in a bucket: what is put is there whole, what is read is what was asked for, and what fails says so in words."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_fixtures import open_store, picture, readings

from bucket_server import BucketServer, bucket_server
from gleaner.app.errors import Unavailable
from gleaner.app.store import tables as t
from gleaner.app.store.index import Outcome
from gleaner.app.store.object_store import StoreProblem, open_objects
from gleaner.app.store.range_cache import BLOCK_BYTES, RangeCache
from gleaner.app.store.recovery import adopt_orphans, rebuild
from gleaner.app.store.s3_objects import S3Objects

MIB = 1 << 20


@pytest.fixture
def objects(buckets: BucketServer) -> S3Objects:
    return S3Objects(buckets.address(), buckets.environment(), cache_bytes=2 * MIB)


def test_an_object_is_read_back_in_ranges_listed_and_deleted(objects: S3Objects) -> None:
    content = bytes(range(256)) * 4096
    objects.put("2026-01-01/a.pack", iter([content[:1000], content[1000:]]), durable=True)
    assert objects.size("2026-01-01/a.pack") == len(content)
    # Within a block, over the edge of one, past the cache, to the very end.
    for start, length in ((0, 1), (BLOCK_BYTES - 3, 7), (5, 900_000), (len(content) - 2, 2), (0, len(content))):
        assert objects.read("2026-01-01/a.pack", start, length) == content[start : start + length]
    assert list(objects.sizes()) == [("2026-01-01/a.pack", len(content))]
    objects.delete("2026-01-01/a.pack")
    objects.delete("2026-01-01/a.pack")
    assert not objects.exists("2026-01-01/a.pack")


def test_a_range_past_the_end_is_an_error_and_not_fewer_bytes(objects: S3Objects) -> None:
    objects.put("d/a.pack", b"x" * 100, durable=True)
    with pytest.raises(OSError, match="ends before byte 110"):
        objects.read("d/a.pack", 90, 20)
    with pytest.raises(OSError, match="failed"):
        objects.read("d/a.pack", 90 * MIB, MIB)
    with pytest.raises(FileNotFoundError):
        objects.read("d/none.pack", 0, 1)


def test_a_big_object_goes_in_parts_and_a_failing_one_leaves_nothing(objects: S3Objects, buckets: BucketServer) -> None:
    pieces = [bytes([number]) * (3 * MIB) for number in range(7)]

    def broken() -> Iterator[bytes]:
        yield from pieces
        raise ValueError("the spool is damaged")

    with pytest.raises(ValueError, match="spool is damaged"):
        objects.put("d/broken.pack", broken(), durable=True)
    objects.put("d/big.pack", iter(pieces), durable=True)
    assert objects.read("d/big.pack", 3 * MIB - 1, 2) == b"\x00\x01"
    assert dict(objects.sizes()) == {"d/big.pack": 21 * MIB}
    client = buckets.client()
    bucket = objects.address.split("/")[2]
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    client.close()


def test_an_object_is_never_overwritten_but_may_be_sent_again(objects: S3Objects) -> None:
    objects.put("d/a.pack", b"first", durable=True)
    objects.put("d/a.pack", b"first", durable=True)  # as after an answer that was lost
    with pytest.raises(OSError, match="already exists"):
        objects.put("d/a.pack", b"second", durable=True)
    assert objects.read("d/a.pack", 0, 5) == b"first"


def test_a_bucket_that_does_not_exist_is_said_at_start(buckets: BucketServer) -> None:
    with pytest.raises(StoreProblem, match=r"has no bucket no-such-bucket\. Make the bucket, or correct --store"):
        open_objects("s3://no-such-bucket/x", buckets.environment()).start()


@pytest.mark.parametrize("address", ["s3://", "s3:///prefix", "gs://bucket"])
def test_an_address_that_names_no_store_is_refused(address: str) -> None:
    with pytest.raises(StoreProblem, match="s3://bucket/prefix"):
        open_objects(address, {})


def test_a_server_that_is_not_there_is_said_at_start() -> None:
    environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with pytest.raises(StoreProblem, match=r"127\.0\.0\.1:1 cannot be reached\. Start it, or correct AWS"):
        S3Objects("s3://bucket/x", environment, retry_s=0.1).start()


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "AccessDenied", "InvalidAccessKeyId"])
def test_credentials_that_are_refused_are_said_at_start(code: str) -> None:
    told = rf"refuses the credentials \({code}\)\. Check AWS_ACCESS_KEY_ID"
    with _answering(403, f"<Error><Code>{code}</Code></Error>") as environment, pytest.raises(StoreProblem, match=told):
        S3Objects("s3://bucket/x", environment, retry_s=0.1).start()


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_said() -> None:
    with _answering(0, "") as environment, pytest.raises(StoreProblem, match="did not answer in time"):
        S3Objects("s3://bucket/x", environment, request_s=0.2, retry_s=0.1).start()


def test_uploads_wait_while_the_store_is_away_and_none_is_lost(tmp_path: Path) -> None:
    with bucket_server() as server:
        address = server.address()
        objects = S3Objects(address, server.environment(), retry_s=0.1)
        store = open_store(tmp_path, objects=objects)
        store.ingest.start()
        try:
            assert store.add(picture(1))[0].outcome is Outcome.STORED
            client = server.client()
            bucket = address.split("/")[2]
            for name, _ in list(objects.sizes()):
                kept = client.get_object(Bucket=bucket, Key=f"gleaner/{name}")["Body"].read()
                client.delete_object(Bucket=bucket, Key=f"gleaner/{name}")
            client.delete_bucket(Bucket=bucket)
            with pytest.raises(Unavailable, match="has no bucket") as refused:
                store.add(picture(2))
            assert "Nothing was lost" in refused.value.hint
            client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key=f"gleaner/{name}", Body=kept)
            client.close()
            assert store.add(picture(2), picture(1))[0].outcome is Outcome.STORED
            assert adopt_orphans(store.packs, store.database).packs == 0
        finally:
            store.ingest.stop()
            store.database.close()


def test_a_pack_another_app_may_be_about_to_commit_is_no_orphan_yet(tmp_path: Path, buckets: BucketServer) -> None:
    store = open_store(tmp_path, objects=S3Objects(buckets.address(), buckets.environment()))
    store.ingest.start()
    store.add(picture(1))
    store.ingest.stop()
    (name,) = store.pack_names()
    with store.database.write() as db:
        db.execute(t.item.delete())
        db.execute(t.pack.delete())
    written_ns = int(name.split("/")[1].split("-")[0], 16)
    assert adopt_orphans(store.packs, store.database, before_ns=written_ns).packs == 0
    assert adopt_orphans(store.packs, store.database, before_ns=written_ns + 1).records == 1
    store.database.close()


def test_an_index_is_made_again_from_a_bucket(tmp_path: Path, buckets: BucketServer) -> None:
    address, environment = buckets.address(), buckets.environment()
    (tmp_path / "first").mkdir()
    store = open_store(tmp_path / "first", objects=S3Objects(address, environment))
    store.ingest.start()
    store.add(*(picture(number) for number in range(5)), readings(1, 10))
    store.ingest.stop()
    store.database.close()
    (tmp_path / "second").mkdir()
    (tmp_path / "first" / "keys").rename(tmp_path / "second" / "keys")
    again = open_store(tmp_path / "second", objects=S3Objects(address, environment))
    assert rebuild(again.packs, again.database, lambda done: None).records == 6
    again.database.close()


def test_a_cache_asks_once_and_stays_within_its_bound() -> None:
    content = bytes(range(256)) * 8192
    asked: list[tuple[int, int]] = []

    def fetch(name: str, start: int, length: int) -> bytes:
        asked.append((start, length))
        return content[start : start + length]

    cache = RangeCache(fetch, 2 * BLOCK_BYTES)
    for _ in range(3):
        assert cache.read("a", BLOCK_BYTES - 10, 20) == content[BLOCK_BYTES - 10 : BLOCK_BYTES + 10]
    assert asked == [(0, 2 * BLOCK_BYTES)]
    for block in range(8):
        assert cache.read("a", block * BLOCK_BYTES, 5) == content[block * BLOCK_BYTES :][:5]
    assert cache.size <= 2 * BLOCK_BYTES
    assert RangeCache(fetch, 0).read("a", 3, 4) == content[3:7]


class _answering:
    """A server that answers every request with the same status, or never (0)."""

    def __init__(self, status: int, body: str) -> None:
        self._answer = (
            f"HTTP/1.1 {status} No\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
        )
        self._silent = status == 0
        self._open: list[socket.socket] = []

    def __enter__(self) -> dict[str, str]:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        port = self._socket.getsockname()[1]
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
        }

    def __exit__(self, *exc: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for one in self._open:
            one.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self._silent:
                self._open.append(connection)
                continue
            with connection:
                connection.recv(65536)
                connection.sendall(self._answer)
