"""Viam's machine configuration (JSON) as typed values. The only place that knows its keys.

Source of names, defaults and limits: Viam's public configuration documentation. Unknown top-level keys are kept, because
the app and newer machines may know more than this version does; unknown keys of a *model's attributes* fail in the model.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from gleaner.wire.durations import parse_duration_ns
from gleaner.wire.validation_words import in_words

NAME_PATTERN = re.compile(r"^[a-zA-Z0-9][-\w]*$")
TRIPLET_PATTERN = re.compile(r"^[\w-]+:[\w-]+:[\w-]+$")


class _Section(BaseModel):
    model_config = ConfigDict(extra="allow", populate_by_name=True)


class ApiKey(_Section):
    id: str
    key: str


class CloudConfig(_Section):
    """How a machine reaches its app. `app_address` is the gRPC door, `web_address` the HTTP door (sync, link, packages)."""

    # A header drops the spaces of a value that was copied with them, and ids of files are computed over the part's.
    id: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(description="Part id.")
    secret: Annotated[str, StringConstraints(strip_whitespace=True)] = ""
    api_key: ApiKey | None = None
    app_address: str = Field(default="", description="gRPC address of the app, e.g. http://127.0.0.1:8091.")
    web_address: str = Field(default="", description="HTTP address of the app, e.g. http://127.0.0.1:8090.")
    ca_certificate: str = Field(
        default="", description="PEM of the app's own certificate authority, pinned by the machine."
    )
    package_key: str = Field(
        default="", description="The app's key for packages, base64: nothing that another one signed is unpacked."
    )
    refresh_interval_s: float = Field(default=10.0, gt=0, le=3600, description="How often the configuration is polled.")
    organization_id: str = Field(default="", alias="primary_org_id")
    location_id: str = ""
    machine_id: str = ""


class CaptureMethodConfig(_Section):
    """One entry of `capture_methods`."""

    method: str
    capture_frequency_hz: float = Field(default=0.0, description="Captures per second; 0 captures nothing.")
    additional_params: dict[str, Any] = Field(default_factory=dict)
    disabled: bool = False
    tags: list[str] = Field(default_factory=list)
    capture_directory: str = ""
    capture_queue_size: int = Field(default=250, ge=0)
    capture_buffer_size: int = Field(default=4096, ge=0)
    name: str = ""


class RetentionPolicy(_Section):
    """`retention_policy` beside `capture_methods`, for one component's data in the app. Machines take no notice of it."""

    days: int | None = Field(default=None, ge=1, le=36_500, description="Whole UTC days that data is kept.")
    binary_limit_gb: float | None = Field(default=None, gt=0, description="Of pictures and files, the newest are kept.")
    tabular_limit_gb: float | None = Field(default=None, gt=0, description="The same of readings.")

    @model_validator(mode="after")
    def _says_something(self) -> RetentionPolicy:
        if self.days is None and self.binary_limit_gb is None and self.tabular_limit_gb is None:
            raise ValueError("a retention policy needs days, binary_limit_gb or tabular_limit_gb")
        return self


class PartRetentionPolicy(_Section):
    """`data_retention_policy` of a whole part; a component's own `retention_policy` goes before it."""

    days: int = Field(ge=1, le=36_500)


class ServiceConfigEntry(_Section):
    type: str
    attributes: dict[str, Any] = Field(default_factory=dict)


def capture_methods_of(entries: list[ServiceConfigEntry]) -> list[CaptureMethodConfig]:
    """Raises ValidationError for an entry that cannot be read, TypeError for a list that is none."""
    found: list[CaptureMethodConfig] = []
    for entry in entries:
        if entry.type.rsplit(":", 1)[-1] == "data_manager":
            found += [CaptureMethodConfig.model_validate(m) for m in entry.attributes.get("capture_methods", [])]
    return found


class ResourceConfig(_Section):
    """A component or a service."""

    name: str = Field(max_length=60)
    api: str = Field(description="Triplet, e.g. rdk:component:camera.")
    model: str = Field(default="rdk:builtin:builtin", description="Triplet, or one word for rdk:builtin:<word>.")
    attributes: dict[str, Any] = Field(default_factory=dict)
    depends_on: list[str] = Field(default_factory=list)
    service_configs: list[ServiceConfigEntry] = Field(default_factory=list)
    frame: dict[str, Any] | None = None
    log_configuration: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _old_style(cls, value: Any) -> Any:
        """`namespace` + `type` and one-word models are what older configurations and tutorials use."""
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if not value.get("api") and value.get("type"):
            kind = value.pop("_kind", "component")
            value["api"] = f"{value.get('namespace') or 'rdk'}:{kind}:{value['type']}"
        value.pop("_kind", None)
        if value.get("api"):
            value.pop("type", None)
            value.pop("namespace", None)
        model = value.get("model")
        if model and ":" not in model:
            value["model"] = f"rdk:builtin:{model}"
        if not value.get("name") and ":service:" in str(value.get("api")):
            value["name"] = "builtin"
        return value

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not NAME_PATTERN.match(value):
            raise ValueError("a name starts with a letter or digit and holds letters, digits, - and _ only")
        return value

    @field_validator("api", "model")
    @classmethod
    def _triplet(cls, value: str) -> str:
        if not TRIPLET_PATTERN.match(value):
            raise ValueError("expected three words joined by colons, like rdk:component:camera")
        return value

    @property
    def subtype(self) -> str:
        return self.api.rsplit(":", 1)[1]

    def capture_methods(self) -> list[CaptureMethodConfig]:
        """What the data manager should capture from this resource."""
        return capture_methods_of(self.service_configs)


class PackageConfig(_Section):
    name: str = Field(max_length=200)
    package: str = Field(description="<organization id>/<name>")
    version: str = "latest"
    type: Literal["ml_model", "module", "slam_map", "archive"] = "ml_model"


class ModuleConfig(_Section):
    """A program with models of its own, run beside the machine and spoken to over Viam's module protocol."""

    name: str = Field(max_length=200, description="Of your choice; its log and its data folder carry it.")
    type: Literal["local", "registry"] = Field(
        default="local", description="A program of this machine, or one from a package."
    )
    executable_path: str = Field(
        default="", description="Program of a local module; started with the path of a socket."
    )
    module_id: str = Field(default="", description="`<namespace>:<name>` of a registry module.")
    env: dict[str, str] = Field(default_factory=dict, description="Added to the program's environment.")
    log_level: str = Field(default="", description="Passed to the program: debug, info, warning or error.")
    tcp_mode: bool = Field(default=False, description="Speak over a loopback TCP port instead of a unix socket.")
    first_run_timeout: str = Field(default="", description="How long first_run of meta.json may take; empty is 1h.")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not NAME_PATTERN.match(value):
            raise ValueError("a name starts with a letter or digit and holds letters, digits, - and _ only")
        return value

    @field_validator("first_run_timeout")
    @classmethod
    def _duration(cls, value: str) -> str:
        return _checked_duration(value)

    @field_validator("type", mode="before")
    @classmethod
    def _default_type(cls, value: Any) -> Any:
        return value or "local"


class RemoteConfig(_Section):
    """Another machine whose resources this one uses as `<name>:<resource>`."""

    name: str = Field(max_length=60, description="What its resources are called by: name:resource.")
    address: str = Field(description="host:port of the other machine's robot API.")
    prefix: str = Field(default="", description="Put before the names of its resources.")
    frame: dict[str, Any] | None = Field(
        default=None, description="Where the remote's world stands in this machine's, for its components' places."
    )
    auth: dict[str, Any] = Field(default_factory=dict, description="entity and credentials {type, payload}.")
    secret: str = Field(default="", description="Of its location, in place of auth.")
    insecure: bool = Field(default=False, description="Without TLS.")
    ca_certificate: str = Field(default="", description="PEM of the authority that signed its certificate.")
    connection_check_interval: str = Field(default="", description="Go duration; empty is 10s.")
    reconnect_interval: str = Field(default="", description="Go duration; empty is 1s.")
    service_configs: list[ServiceConfigEntry] = Field(
        default_factory=list, description="What to capture from it; each method has the full name of its resource."
    )

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not NAME_PATTERN.match(value):
            raise ValueError("a name starts with a letter or digit and holds letters, digits, - and _ only")
        return value

    @field_validator("connection_check_interval", "reconnect_interval")
    @classmethod
    def _duration(cls, value: str) -> str:
        return _checked_duration(value)

    def capture_methods(self) -> list[CaptureMethodConfig]:
        """What to capture from it; each entry's `name` is a full resource name."""
        return capture_methods_of(self.service_configs)


def _checked_duration(text: str) -> str:
    """Empty is the default. Raises ValueError."""
    if text:
        parse_duration_ns(text)
    return text


class NetworkConfig(_Section):
    bind_address: str = "localhost:8080"
    no_tls: bool = False
    tls_cert_file: str = ""
    tls_key_file: str = ""
    sessions: dict[str, Any] = Field(default_factory=dict)


class MachineConfig(_Section):
    """A whole machine configuration."""

    cloud: CloudConfig | None = None
    components: list[ResourceConfig] = Field(default_factory=list)
    services: list[ResourceConfig] = Field(default_factory=list)
    packages: list[PackageConfig] = Field(default_factory=list)
    modules: list[ModuleConfig] = Field(default_factory=list)
    remotes: list[RemoteConfig] = Field(default_factory=list)
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    auth: dict[str, Any] = Field(default_factory=dict)
    revision: str = ""

    @model_validator(mode="before")
    @classmethod
    def _mark_services(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("services"), list):
            services = [{**s, "_kind": "service"} if isinstance(s, dict) else s for s in value["services"]]
            return {**value, "services": services}
        return value

    @model_validator(mode="after")
    def _unique_names(self) -> MachineConfig:
        seen: set[tuple[str, str]] = set()
        for resource in self.resources():
            if (resource.api, resource.name) in seen:
                raise ValueError(f"two resources of {resource.api} are named {resource.name!r}: rename one")
            seen.add((resource.api, resource.name))
        for kind, names in (("modules", [m.name for m in self.modules]), ("remotes", [r.name for r in self.remotes])):
            if twice := next((name for name in names if names.count(name) > 1), ""):
                raise ValueError(f"two {kind} are named {twice!r}: rename one")
        return self

    def resources(self) -> list[ResourceConfig]:
        return [*self.components, *self.services]


class ConfigProblem(ValueError):
    """A configuration that cannot be used: `problems` holds (path, message) pairs, path like `components[0].name`."""

    def __init__(self, problems: list[tuple[str, str]], source: str = "machine configuration") -> None:
        self.problems = problems
        lines = "; ".join(f"{path}: {message}" if path else message for path, message in problems)
        super().__init__(f"{source} cannot be used: {lines}")


def parse_config(value: Any, source: str = "machine configuration") -> MachineConfig:
    """Raises ConfigProblem that names every path and what is wrong there."""
    if not isinstance(value, dict):
        raise ConfigProblem([("", 'it must be a JSON object: {"components": […], …}')], source)
    try:
        return MachineConfig.model_validate(value)
    except ValidationError as error:
        raise ConfigProblem([(format_path(e["loc"]), in_words(e)) for e in error.errors()], source) from error


def format_path(parts: tuple[int | str, ...]) -> str:
    """`("components", 0, "name")` becomes `components[0].name`."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def expand_environment(text: str, environment: dict[str, str] | None = None) -> str:
    """`${VAR}` in a local configuration file, before JSON is parsed; `${packages.…}` and unknown names are left alone."""
    values = os.environ if environment is None else environment
    return re.sub(r"\$\{(\w+)\}", lambda m: values.get(m.group(1), m.group(0)), text)
