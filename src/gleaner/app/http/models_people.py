"""People, organizations and API keys as they cross HTTP; the web pages' types are generated from these."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gleaner.app.http.answers import Answer
from gleaner.app.http.item_models import Body
from gleaner.app.services.auth_keys import ApiKey, KeyGrant
from gleaner.app.services.fleet_values import Organization, iso


class Login(Body):
    email: str
    password: str


class NewPassword(Body):
    password: str
    current: str = Field(default="", description="The password that is replaced, if there is one.")


class UserModel(Answer):
    id: str
    email: str
    name: str
    has_password: bool


class OrganizationModel(Answer):
    id: str
    name: str
    role: str

    @classmethod
    def of(cls, one: Organization) -> OrganizationModel:
        return cls(id=one.id, name=one.name, role=one.role)


class AppModel(Answer):
    version: str
    web_address: str
    grpc_address: str
    tls: bool
    fingerprint: str = Field(description="SHA-256 of the certificate; empty without TLS.")
    backbones: list[str] = Field(
        description="Libraries whose networks a classifier can start from here: hf, timm. Empty without the extra `pretrained`."
    )


class MeModel(Answer):
    user: UserModel
    organizations: list[OrganizationModel]
    app: AppModel


class NewKey(Body):
    name: str = ""
    resource_type: Literal["organization", "location", "robot"] = "organization"
    resource_id: str = Field(default="", description="Of the organization itself if empty.")
    role: Literal["owner", "operator"] = "owner"


class ApiKeyModel(Answer):
    id: str
    name: str
    created_at: str
    role: str
    resource_type: str
    resource_id: str

    @classmethod
    def of(cls, key: ApiKey) -> ApiKeyModel:
        return cls(**_key_fields(key))


class NewApiKeyModel(ApiKeyModel):
    key: str = Field(description="Shown here and never again.")

    @classmethod
    def of(cls, key: ApiKey) -> NewApiKeyModel:
        return cls(**_key_fields(key), key=key.key)


def _key_fields(key: ApiKey) -> dict[str, str]:
    grant = key.grants[0] if key.grants else KeyGrant("", "", "")
    return {
        "id": key.id,
        "name": key.name,
        "created_at": iso(key.created_ns) or "",
        "role": grant.role,
        "resource_type": grant.resource_type,
        "resource_id": grant.resource_id,
    }
