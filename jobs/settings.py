"""All settings in one frozen object.

Precedence, highest first: command-line flags, ``VACANCY_*`` variables (``VACANCY_KAFKA__BOOTSTRAP_SERVERS`` for
``kafka.bootstrap_servers``), files named like these variables in the directory that ``VACANCY_SECRETS_DIR`` names (how
Docker, Kubernetes and systemd hand over secrets), the TOML file, the defaults.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import platformdirs
from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from pydantic_settings.sources import InitSettingsSource

from vacancy.connectors.settings import (
    AgentSettings,
    BridgeSettings,
    ExtenderSettings,
    KafkaSettings,
    PostgresSettings,
    SchedulerSettings,
    Section,
    StorageSettings,
)
from vacancy.jobs.wording import mistake
from vacancy.schemas.errors import ConfigError
from vacancy.schemas.units import format_duration
from vacancy.topology.settings import JobSettings

CONFIG_NAME = "vacancy.toml"
_OF_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_\d+_|$)")
"""What Kubernetes adds to the environment of a pod for a Service with a name such as vacancy-agent."""


_DIRECTORIES = ("VACANCY_DATA_DIR", "VACANCY_SECRETS_DIR")
"""The other variables that commands read."""
_JSON = {"list": """'["one", "two"]'""", "table": """'{"key": "value"}'"""}


class LocalSettings(Section):
    """The local stack of `vacancy up` and the Flink of `vacancy job run`; port 0 picks a free one."""

    kafka_port: int = Field(default=0, ge=0, le=65_535, description="Port of the broker.")
    postgres_port: int = Field(default=0, ge=0, le=65_535, description="Port of the database server.")
    flink_port: int = Field(default=0, ge=0, le=65_535, description="Port of Flink's web UI.")
    web_port: int = Field(default=0, ge=0, le=65_535, description="Port of the fleet page.")
    flink_metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="Port of Flink's Prometheus metrics, which listens on every address of this machine. Unset: no"
        " metrics.",
    )
    min_free_disk_mb: int = Field(
        default=1024, ge=0, description="`vacancy up` does not start with less free space than this in its data dir."
    )


class WebSettings(Section):
    """The fleet page, `vacancy web`. It only reads, as `postgres.reader_dsn`."""

    listen: str = Field(
        default="127.0.0.1:9770",
        description="Address and port to listen on. If other machines reach it, `token` and `allow_hosts` must be set.",
    )
    allow_hosts: tuple[str, ...] = Field(
        default=(),
        description="Names by which browsers may call the server, without ports. Names of loopback are always allowed.",
    )
    token: SecretStr | None = Field(
        default=None, min_length=16, description="Token that a browser or a proxy must send; better in the environment."
    )
    certificate_file: Path | None = Field(
        default=None, description="PEM file with the server's certificate and its intermediates, for TLS."
    )
    key_file: Path | None = Field(default=None, description="PEM file with that certificate's private key.")


class LogSettings(Section):
    """The log of the agent, the simulator and the job, on stderr."""

    format: Literal["plain", "json"] = Field(
        default="plain", description="Plain lines for people, or one JSON object per line for log collectors."
    )


class Settings(BaseSettings):
    """All settings; the sections describe each one."""

    model_config = SettingsConfigDict(
        env_prefix="VACANCY_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
    )

    kafka: KafkaSettings = KafkaSettings()
    agent: AgentSettings = AgentSettings()
    bridge: BridgeSettings = BridgeSettings()
    storage: StorageSettings = StorageSettings()
    job: JobSettings = JobSettings()
    postgres: PostgresSettings = PostgresSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    extender: ExtenderSettings = ExtenderSettings()
    web: WebSettings = WebSettings()
    local: LocalSettings = LocalSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _has_rates_between_reports(self) -> Self:
        """Refuses silences after which a window has no steps: what a row shows could not be kept within a tolerance."""
        if self.agent.tolerance and self.job.window < 2 * self.agent.reporting_interval:
            raise ValueError(
                "agent.max_silence and agent.interval must be at most half of job.window, with agent.tolerance;"
                f" it is {format_duration(self.job.window)}"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Precedence: flags, environment, secret files, settings file; .env files are not read."""
        del dotenv_settings
        assert isinstance(init_settings, InitSettingsSource)  # noqa: S101  # pydantic's own contract, for mypy
        flags = init_settings.init_kwargs.pop("flags", {})
        file = init_settings.init_kwargs.pop("file", {})
        return (
            InitSettingsSource(settings_cls, init_kwargs=flags),
            env_settings,
            NestedSecretsSettingsSource(
                file_secret_settings,
                secrets_dir=os.environ.get("VACANCY_SECRETS_DIR") or None,
                secrets_dir_missing="error",
            ),
            InitSettingsSource(settings_cls, init_kwargs=file),
        )


def default_data_dir() -> Path:
    """The local stack's default directory: that of VACANCY_DATA_DIR, else the platform's state directory."""
    named = os.environ.get("VACANCY_DATA_DIR")
    return Path(named) if named else platformdirs.user_state_path("vacancy")


def find_config(config: Path | None, data_dir: Path | None) -> Path | None:
    """The TOML file to read: the given one, else ./vacancy.toml, else the local stack's; None if none exists.

    Raises:
        ConfigError: a named file does not exist.
    """
    if config is not None:
        if not config.is_file():
            raise ConfigError(f"{config}: no such settings file")
        return config
    if data_dir is not None:
        file = data_dir / CONFIG_NAME
        if not file.is_file():
            raise ConfigError(f"{file}: no such settings file; has `vacancy up --data-dir {data_dir}` run?")
        return file
    candidates = (Path(CONFIG_NAME), default_data_dir() / CONFIG_NAME)
    return next((file for file in candidates if file.is_file()), None)


def load_settings(file: Path | None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from a TOML file (None: no file), the environment and flags (nested, as in the file).

    Raises:
        ConfigError: lists every mistake in one line, without values, since these may be secret.
    """
    _check_variables(os.environ)
    document: dict[str, Any] = {}
    if file is not None:
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: not TOML: {error}") from None
    try:
        return Settings(flags=dict(flags or {}), file=document)  # type: ignore[call-arg]  # for the sources, no fields
    except SettingsError as error:
        raise ConfigError(f"settings: {error}; see VACANCY_SECRETS_DIR and the VACANCY_* variables") from None
    except ValidationError as error:
        mistakes = "; ".join(_mistake(detail) for detail in error.errors())
        raise ConfigError(f"{file or 'settings'}: {mistakes}") from None


def _check_variables(variables: Mapping[str, str]) -> None:
    """Raises ConfigError for what pydantic passes over or cannot explain.

    That is a variable that looks like a setting and is none, and a list or a table that is not JSON.
    """
    settings = {
        f"VACANCY_{section}__{key}".upper(): default
        for section, field in Settings.model_fields.items()
        for key, default in field.default
    }
    sections = "|".join(Settings.model_fields).upper()
    unknown = re.compile(rf"VACANCY_(?!({sections})__).*__|VACANCY_({sections})(_(?!_)|$)")
    mistakes = []
    for name in sorted(variables):
        near = difflib.get_close_matches(name.upper(), settings, 1, cutoff=0.75)
        near_directory = difflib.get_close_matches(name.upper(), _DIRECTORIES, 1, cutoff=0.8)
        default = settings.get(name.upper())
        if unknown.match(name.upper()) and not _OF_KUBERNETES.search(name.upper()):
            mistakes.append(f"{name}: no such setting ({f'is it {near[0]}?' if near else 'see docs/settings.md'})")
        elif name.startswith("VACANCY_") and near_directory and name not in _DIRECTORIES:
            mistakes.append(f"{name}: no such variable (is it {near_directory[0]}?)")
        elif isinstance(default, tuple | dict | BaseModel) and not _is_json(variables[name]):
            kind = "list" if isinstance(default, tuple) else "table"
            mistakes.append(f"{name}: write the {kind} as JSON, such as {_JSON[kind]}")
    if mistakes:
        raise ConfigError(f"environment: {'; '.join(mistakes)}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _mistake(detail: Any) -> str:
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"{key}: no such setting (see docs/settings.md)"
    return f"{key}: {mistake(detail)}" if key else mistake(detail)
