"""An S3 server of the tests' own (moto), on loopback: started when the first test wants it, gone with the run."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
from moto.server import ThreadedMotoServer

REGION = "us-east-1"
# Of all servers: those of one process share what they hold, so a second bucket-1 would be the first one's.
_NUMBERS = itertools.count(1)


@dataclass
class BucketServer:
    endpoint: str

    def environment(self) -> dict[str, str]:
        """What a process is told about it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests-secret",
            "AWS_REGION": REGION,
        }

    def address(self) -> str:
        """In a bucket of its own."""
        bucket = f"bucket-{next(_NUMBERS)}"
        client = self.client()
        client.create_bucket(Bucket=bucket)
        client.close()
        return f"s3://{bucket}/gleaner"

    def client(self):  # type: ignore[no-untyped-def]
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="tests",
            aws_secret_access_key="tests-secret",
        )


@contextlib.contextmanager
def bucket_server() -> Iterator[BucketServer]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield BucketServer(f"http://{host}:{port}")
    finally:
        server.stop()
