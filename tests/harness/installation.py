"""An installation: topics, tables and a settings file in a directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.settings import KafkaSettings, PostgresSettings
from vacancy.jobs import ports
from vacancy.jobs.local import settings_file
from vacancy.jobs.settings import LocalSettings, Settings
from vacancy.topology.settings import JobSettings


def install(directory: Path, kafka: KafkaSettings, owner_dsn: str, job: Mapping[str, Any]) -> Settings:
    """Makes topics and tables, and writes ``vacancy.toml``; all of the job's files lie in the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    ensure_topics(kafka)
    dsn = SecretStr(owner_dsn)
    migrate(dsn)
    settings = Settings().model_copy(
        update={
            "kafka": kafka,
            "postgres": PostgresSettings(owner_dsn=dsn, job_dsn=dsn, scheduler_dsn=dsn, reader_dsn=dsn),
            "job": JobSettings(checkpoint_dir=(directory / "checkpoints").as_uri(), **job),
            "local": LocalSettings(flink_port=ports.free_port()),
        }
    )
    config_file(directory).write_text(settings_file.dumps(settings), encoding="utf-8")
    return settings


def config_file(directory: Path) -> Path:
    """The settings file of an installation."""
    return directory / "vacancy.toml"
