"""Which Flink cluster a command talks to.

Highest first: ``--flink-url`` and job.flink_url; where `vacancy job submit` last sent the job; the local stack's own.
"""

from __future__ import annotations

from pathlib import Path

from vacancy.jobs import ports
from vacancy.jobs.settings import Settings, default_data_dir
from vacancy.schemas.errors import VacancyError

_REMEMBERED = "flink_url"


def named_url(settings: Settings) -> str | None:
    """The cluster that the settings or a flag name; None: neither does."""
    return settings.job.flink_url if "flink_url" in settings.job.model_fields_set else None


def local_url(settings: Settings) -> str | None:
    """Where the Flink of `vacancy up` and `vacancy job run` listens; None: these are not a local stack's settings."""
    return f"http://{ports.HOST}:{settings.local.flink_port}" if settings.local.flink_port else None


def memory_file(settings: Settings, config: Path | None) -> Path:
    """The file that remembers where the job was submitted: in the local stack's directory, or the default one."""
    directory = config.parent if config is not None and local_url(settings) else default_data_dir()
    return directory / _REMEMBERED


def with_cluster(settings: Settings, url: str) -> Settings:
    """The settings, with that job.flink_url."""
    return settings.model_copy(update={"job": settings.job.model_copy(update={"flink_url": url})})


def with_remembered(settings: Settings, config: Path | None) -> Settings:
    """The settings, with the cluster that the job was submitted to last, unless they name one."""
    url = None if named_url(settings) else _remembered(memory_file(settings, config))
    return with_cluster(settings, url) if url else settings


def _remembered(file: Path) -> str | None:
    try:
        url = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return url if url.startswith(("http://", "https://")) else None


def remember(file: Path, url: str) -> None:
    """Keeps the address for the commands that follow.

    Raises:
        VacancyError: the file cannot be written.
    """
    try:
        file.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        file.write_text(url + "\n", encoding="utf-8")
    except OSError as error:
        raise VacancyError(
            f"the job runs, but {file} cannot be written: {error.strerror}; name {url} in job.flink_url"
        ) from None


def forget(file: Path) -> None:
    """The local stack's own Flink is meant from now on."""
    file.unlink(missing_ok=True)
