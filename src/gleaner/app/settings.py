"""What an owner can choose when starting the app: flags of `gleaner app`, or GLEANER_… in the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(description="Where everything the app keeps lives: metadata, packs, keys, models.")
    host: str = Field(
        default="127.0.0.1", description="Address to listen on. Anything but loopback is served over TLS."
    )
    port: int = Field(default=8090, ge=0, le=65535, description="Web pages, REST, machine link and sync.")
    grpc_port: int = Field(default=8091, ge=0, le=65535, description="Viam's app API for SDK clients and machines.")
    public_host: str = Field(
        default="", description="Name or address machines and browsers use; default: `host`, or this machine's address."
    )
    tls_cert_file: Path | None = Field(
        default=None, description="Own certificate (PEM); default: a private CA made on first start."
    )
    tls_key_file: Path | None = Field(default=None, description="Private key (PEM) of `tls_cert_file`.")
    key_command: str = Field(
        default="",
        description="Command that prints the key-encryption key; default: GLEANER_KEY, or data_dir/keys/kek.",
    )
    database_url: str = Field(default="", description="SQLAlchemy URL; default: encrypted SQLite in data_dir.")
    store: str = Field(
        default="", description="Where packs lie: `s3://bucket/prefix`, or empty for data_dir/packs. See docs/scale.md."
    )
    store_cache_bytes: int = Field(
        default=128 << 20, ge=0, description="Memory for what was read from a store in S3 lately, in bytes."
    )
    background: bool = Field(
        default=True,
        description="Whether this process also tidies packs, compacts readings and trains; of several, some should.",
    )
    owner_email: str = Field(default="owner@localhost", description="E-mail of the owner made on first start.")
    max_bytes_in_flight: int = Field(
        default=64 << 20,
        ge=1 << 20,
        description="Upload bytes held in memory, in bytes, before senders are told to slow down.",
    )
    query_seconds: float = Field(
        default=60.0, gt=0, le=3600, description="How long one SQL or MQL query may take, in seconds."
    )
    query_memory_mb: int = Field(
        default=512, ge=64, le=1 << 20, description="Memory of one query, in MB; about 1 GB more for its process."
    )
    queries_at_once: int = Field(default=2, ge=1, le=64, description="More wait for their turn, 20 seconds at most.")
    training_memory_mb: int = Field(
        default=0,
        ge=0,
        le=1 << 24,
        description="Memory of one training with all that it starts, in MB; 0: three quarters of the computer's.",
    )
    ray_address: str = Field(
        default="",
        description="Where training runs: a Ray cluster, like ray://head:10001 or head:6379; empty: on this computer.",
    )
    ray_cpus: int = Field(default=2, ge=1, le=256, description="Processors that a training asks of the Ray cluster.")

    @property
    def is_loopback(self) -> bool:
        return self.host in ("127.0.0.1", "localhost", "::1")
