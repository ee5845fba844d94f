"""Every setting, typed once: flag > `MODELYARD_*` > `DIR/settings.toml` > default."""

import re
import tomllib
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from platformdirs import user_data_path
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from modelyard.bus.settings import KafkaSettings
from modelyard.domain.errors import Invalid
from modelyard.domain.plan import GIB, MIB
from modelyard.run.otlp import OtelSettings
from modelyard.runtime.settings import DockerSettings, RegistrySettings
from modelyard.weights.settings import ModelsSettings

# At most 200 characters: a label and a dot come before it. The last part has a letter, else it would read as an address.
_DOMAIN = re.compile(r"(?=.{1,200}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?=[^.]*[a-z])[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class _HostTools(BaseSettings):
    """What this machine's package tools were told; the defaults of the build's settings."""

    model_config = SettingsConfigDict(extra="ignore")

    index_url: str | None = Field(default=None, validation_alias=AliasChoices("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"))
    ca_bundle: Path | None = Field(default=None, validation_alias=AliasChoices("SSL_CERT_FILE", "PIP_CERT"))


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _address(host: str) -> str:
    if host != "localhost":
        ip_address(host)  # raises ValueError in words that can be shown
    return host


def _domain(name: str) -> str:
    if not _DOMAIN.fullmatch(name):
        raise ValueError("not a host name in lower case with at least two parts, such as apps.example.com")
    return name


class UploadSettings(_Part):
    """What is taken in."""

    max_bytes: int = Field(default=500_000_000, ge=1024)
    """The largest zip."""
    reserve_bytes: int = Field(default=512 * MIB, ge=0)
    """Bytes that stay free on the data folder's disk; below it uploads get 507."""
    claim_lease_s: float = Field(default=30.0, gt=0)
    """Seconds that an upload holds its Idempotency-Key after its process has died."""
    stall_s: float = Field(default=60.0, gt=0)
    """Seconds without a byte after which an upload is given up."""
    delete_wait_s: float = Field(default=10.0, ge=0)
    """Seconds that a deletion waits for its end before it answers 202."""
    staging_grace_s: float = Field(default=900.0, gt=0)
    """Seconds after which a staging file that nobody writes to is removed."""


class BuildSettings(_Part):
    """How versions are built."""

    index_url: str | None = Field(default_factory=lambda: _HostTools().index_url)
    """The one package index; the public one where it is not set."""
    ca_bundle: Path | None = Field(default_factory=lambda: _HostTools().ca_bundle)
    torch_index_url: str | None = None
    """Where torch comes from, if not from the index."""
    base_image: str = Field(default="python:3.11-slim-bookworm", min_length=1)
    """Docker: what every model's image begins with; it needs `python3`, 3.11 or newer. A name, or a name with `@sha256:`."""
    network: str = ""
    """Docker: the network by which packages are fetched; one made for each fetch where it is not set."""
    concurrency: int = Field(default=2, ge=1)
    lease_s: float = Field(default=15.0, gt=0)
    step_timeout_s: float = Field(default=900.0, gt=0)


class RunSettings(_Part):
    """How instances are started and ended."""

    hold_s: float = Field(default=30.0, gt=0)
    """Seconds that a call waits for a start before it gets 503."""
    starts_at_once: int = Field(default=4, ge=1)
    grace_s: float = Field(default=5.0, ge=0)
    """Seconds between SIGTERM and SIGKILL."""
    look_every_s: float = Field(default=1.0, gt=0)
    """Seconds between two looks whether anything was committed that nobody rang for, and between two looks at an instance that is to end."""


class AuthSettings(_Part):
    """Accounts and what they are given."""

    signup: Literal["open", "invited", "closed"] = "closed"
    """Who may make an account: anybody, whoever got a link from an administrator, or nobody."""
    access_s: float = Field(default=600.0, gt=0, le=3600)
    """Seconds that an access token is good for."""
    refresh_s: float = Field(default=30 * 86400.0, gt=0)
    """Seconds after which a refresh token that nobody used is dead."""
    session_s: float = Field(default=12 * 3600.0, gt=0)
    """Seconds that a browser stays signed in."""
    invite_s: float = Field(default=7 * 86400.0, gt=0)
    """Seconds that an invitation is good for."""
    hashes_at_once: int = Field(default=4, ge=1)
    """Passwords that are checked at the same time; each takes 64 MiB."""
    secret: SecretStr | None = None
    """What refresh tokens are derived from, at least 32 characters; a file of the data folder where it is not set."""


class LimitSettings(_Part):
    """Calls within a minute that are answered by one process; what comes after gets 429."""

    api_per_minute: int = Field(default=1200, ge=1)
    """Of one credential, pages and API; all credentials of an account together have twice as many."""
    calls_per_minute: int = Field(default=60_000, ge=1)
    """Of one credential, calls of models; all credentials of an account together have twice as many."""
    anonymous_per_minute: int = Field(default=600, ge=1)
    """From one address without a credential that is good."""


class QuotaSettings(_Part):
    """What one account may have; uploads of an administrator are not counted."""

    models: int = Field(default=100, ge=1)
    builds_at_once: int = Field(default=8, ge=1)
    disk_bytes: int = Field(default=20 * GIB, ge=1024)
    """Of all zips that are kept."""


class CeilingSettings(_Part):
    """The most that an app's own settings may ask for."""

    memory_bytes: int = 4 * GIB
    cpus: float = 2.0
    timeout_s: float = 600.0
    max_body_bytes: int = GIB
    stop_s: float = 86400.0


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="MODELYARD_", env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True
    )

    data: Path = Field(default_factory=lambda: user_data_path("modelyard"))
    """The folder that holds everything."""
    host: Annotated[str, AfterValidator(_address)] = "127.0.0.1"
    expose: bool = False
    """Allow `host` to be an address that other machines reach; the traffic is not encrypted by this server."""
    port: int = Field(default=8080, ge=0, le=65535)
    hosts: tuple[str, ...] = ()
    """Further host names that this server answers for."""
    apps_domain: Annotated[str, AfterValidator(_domain)] = "apps.localhost"
    """Models' own pages live on hosts below this name, where nothing else may live."""
    database_url: str | None = None
    """SQLAlchemy URL; a SQLite file in the data folder where it is not set."""
    database_wait_s: float = Field(default=60.0, ge=0)
    """Seconds that a start waits for a database that does not answer yet."""
    bus: Literal["local", "kafka"] = "local"
    """How events travel: in the database of the one process, or over Kafka between several."""
    runtime: Literal["process", "docker"] = "process"
    """How apps run: as sandboxed processes of this machine, or as containers of an engine."""
    trust_uploads: bool = False
    """Run uploads without a sandbox; only for code that is your own."""
    log_level: str = "info"
    upload: UploadSettings = UploadSettings()
    build: BuildSettings = Field(default_factory=BuildSettings)
    run: RunSettings = RunSettings()
    kafka: KafkaSettings = KafkaSettings()
    docker: DockerSettings = DockerSettings()
    registry: RegistrySettings = RegistrySettings()
    ceilings: CeilingSettings = CeilingSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    quotas: QuotaSettings = QuotaSettings()
    models: ModelsSettings = ModelsSettings()
    otel: OtelSettings = OtelSettings()

    @model_validator(mode="after")
    def _keeps_apps_apart(self) -> Self:
        for host in (*self.hosts, self.host):
            if host == self.apps_domain or host.endswith(f".{self.apps_domain}"):
                raise ValueError(
                    f"hosts: {host} is where uploaded apps answer (apps_domain); the console needs a name outside {self.apps_domain}"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the data folder's file."""
        return init_settings, env_settings, _file_source(settings_cls, _data_folder(init_settings(), env_settings()))


@dataclass(frozen=True, slots=True)
class SettingSource:
    """One setting as it is in force, and where it came from: `flag`, `environment`, the file's path, or `default`."""

    name: str
    value: str
    source: str


def load_settings(data: Path | None = None, **overrides: object) -> Settings:
    """The settings in force.

    Args:
        data: The data folder, where a flag named it.
        overrides: What other flags said, by dotted name (`upload.max_bytes`); None means not said.

    Raises:
        Invalid: `setting_invalid`, naming each setting that is wrong.
    """
    try:
        return Settings(**_nested(data, overrides))
    except (SettingsError, tomllib.TOMLDecodeError) as error:
        where = "settings.toml" if isinstance(error, tomllib.TOMLDecodeError) else "The environment"
        mend = "Write TOML into the file, and JSON into a variable that holds a list or a table."
        raise Invalid("setting_invalid", f"{where} cannot be read: {error}.", mend) from error
    except ValidationError as error:
        wrong = [{"field": ".".join(str(part) for part in each["loc"]), "message": each["msg"]} for each in error.errors(include_url=False)]
        words = "; ".join(f"{each['field']}: {each['message']}" for each in wrong)
        raise Invalid(
            "setting_invalid", f"A setting is wrong: {words}.", "See `modelyard config show` for names and sources.", errors=wrong
        ) from error


def explain(settings: Settings, flags: tuple[str, ...] = ()) -> list[SettingSource]:
    """Every setting with its value and where it came from, by name."""
    environment = _flat(EnvSettingsSource(Settings)())
    file = settings.data / "settings.toml"
    in_file = _flat(_file_source(Settings, settings.data)())
    said = set(flags)

    def source(name: str) -> str:
        if name in said:
            return "flag"
        if name in environment:
            return "environment"
        return str(file) if name in in_file else "default"

    return [SettingSource(name, _shown(value), source(name)) for name, value in sorted(_flat(settings.model_dump()).items())]


def _shown(value: object) -> str:
    text = "" if value is None else str(value)
    # A URL may carry a password; nothing between `//` and `@` is for other people's eyes.
    scheme, mark, rest = text.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if mark and "@" in rest else text


def _nested(data: Path | None, overrides: dict[str, object]) -> dict[str, Any]:
    tree: dict[str, Any] = {} if data is None else {"data": data}
    for dotted, value in overrides.items():
        if value is None:
            continue
        *path, last = dotted.split(".")
        here = tree
        for part in path:
            here = here.setdefault(part, {})
        here[last] = value
    return tree


def _data_folder(flags: dict[str, Any], environment: dict[str, Any]) -> Path:
    return Path(flags.get("data") or environment.get("data") or user_data_path("modelyard"))


def _file_source(settings_cls: type[BaseSettings], data: Path) -> TomlConfigSettingsSource:
    return TomlConfigSettingsSource(settings_cls, toml_file=data / "settings.toml")


def _flat(tree: dict[str, Any], before: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[before + name] = value
    return flat
