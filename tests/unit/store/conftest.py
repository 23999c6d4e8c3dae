from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_fixtures import Store, open_store

from bucket_server import BucketServer
from gleaner.app.store.object_store import Objects
from gleaner.app.store.s3_objects import S3Objects


@pytest.fixture(params=["sqlite", "postgresql"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """The same tests on both databases; those marked `also_in_a_bucket` with packs in S3 as well."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    objects: Objects | None = None
    if request.param == "s3":
        server: BucketServer = request.getfixturevalue("buckets")
        patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        for name, value in server.environment().items():  # for the processes of queries
            patch.setenv(name, value)
        objects = S3Objects(server.address(), server.environment(), cache_bytes=8 << 20)
    opened = open_store(tmp_path, url, objects)
    opened.ingest.start()
    yield opened
    opened.ingest.stop()
    opened.database.close()
