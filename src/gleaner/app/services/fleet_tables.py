"""Tables of people, keys and the fleet. Deleting a location or machine takes what is below; captured data stays."""

from __future__ import annotations

import sqlalchemy as sa

from gleaner.app.database import metadata


def _below(column: str, parent: str) -> sa.Column[str]:
    return sa.Column(column, sa.Text, sa.ForeignKey(f"{parent}.id", ondelete="CASCADE"), nullable=False, index=True)


organization = sa.Table(
    "organization",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
)

location = sa.Table(
    "location",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _below("organization_id", "organization"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
)

machine = sa.Table(
    "machine",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _below("organization_id", "organization"),
    _below("location_id", "location"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("location_id", "name"),
)

part = sa.Table(
    "part",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _below("machine_id", "machine"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("is_main", sa.Boolean, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    #: Null until the part's machine has been heard of once.
    sa.Column("last_seen_ns", sa.BigInteger),
    sa.Column("info", sa.JSON, nullable=False),
    sa.Column("restart_requested", sa.Boolean, nullable=False, default=False),
)

part_secret = sa.Table(
    "part_secret",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _below("part_id", "part"),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
)

#: Every configuration a part ever had; the one with the highest number is current.
part_config = sa.Table(
    "part_config",
    metadata,
    sa.Column("part_id", sa.Text, sa.ForeignKey("part.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("saved_ns", sa.BigInteger, nullable=False),
    sa.Column("edited_by", sa.Text, nullable=False),
)

user = sa.Table(
    "user_account",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("email", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    #: argon2id; empty until the user has chosen a password.
    sa.Column("password_hash", sa.Text, nullable=False),
    #: Raised to end every session of the user at once.
    sa.Column("session_epoch", sa.Integer, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
)

#: One role of one identity (a user or an API key) on one resource.
role_grant = sa.Table(
    "role_grant",
    metadata,
    sa.Column("identity_type", sa.Text, primary_key=True),
    sa.Column("identity_id", sa.Text, primary_key=True),
    sa.Column("resource_type", sa.Text, primary_key=True),
    sa.Column("resource_id", sa.Text, primary_key=True),
    sa.Column("role", sa.Text, nullable=False),
    _below("organization_id", "organization"),
    sa.Column("location_id", sa.Text, nullable=False, default=""),
)

api_key = sa.Table(
    "api_key",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _below("organization_id", "organization"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
)

login_link = sa.Table(
    "login_link",
    metadata,
    sa.Column("hash", sa.LargeBinary, primary_key=True),
    _below("user_id", "user_account"),
    sa.Column("expires_ns", sa.BigInteger, nullable=False),
)

#: Sessions ended by logging out, kept until they would have expired anyway.
ended_session = sa.Table(
    "ended_session",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("expires_ns", sa.BigInteger, nullable=False),
)
