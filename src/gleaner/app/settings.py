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
    owner_email: str = Field(default="owner@localhost", description="E-mail of the owner made on first start.")
    max_bytes_in_flight: int = Field(
        default=64 << 20,
        ge=1 << 20,
        description="Upload bytes held in memory, in bytes, before senders are told to slow down.",
    )

    @property
    def is_loopback(self) -> bool:
        return self.host in ("127.0.0.1", "localhost", "::1")
