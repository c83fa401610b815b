"""The settings of the dataflow."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vacancy.schemas.units import Duration


def _flat(options: Any, prefix: str = "") -> Any:
    """Flattens nested tables to options with full names: TOML reads ``a.b = 1`` as a table, like Flink's YAML."""
    if not isinstance(options, Mapping):
        return options
    flat: dict[str, str] = {}
    for key, value in options.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value).lower() if isinstance(value, bool) else str(value)
    return flat


MAX_PARALLELISM = 1024
"""Number of key groups of the keyed state. It is part of every savepoint: no savepoint restores with another number."""


class JobSettings(BaseModel):
    """The Flink job, which keeps the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: Duration = Field(
        default=timedelta(seconds=60), description="Time span of a row's rates and of its least free figures."
    )
    emit: Duration = Field(
        default=timedelta(seconds=1),
        ge=timedelta(milliseconds=100),
        description="Least time between two writes of a host's row: 100 ms or more.",
    )
    idle_timeout: Duration = Field(
        default=timedelta(seconds=1),
        description="After this time without events a partition no longer holds back the watermark that Flink's metrics"
        " show; no row waits for the watermark.",
    )
    parallelism: int = Field(
        default=2,
        ge=1,
        le=MAX_PARALLELISM,
        description="Parallel instances of each operator. A savepoint restores with any number of them.",
    )
    state_backend: Literal["hashmap", "rocksdb"] = Field(
        default="hashmap",
        description="Where the windows are kept: on the heap (`hashmap`), or on disk with incremental checkpoints"
        " (`rocksdb`).",
    )
    checkpoint_interval: Duration = Field(default=timedelta(seconds=10), description="Time between two checkpoints.")
    checkpoint_timeout: Duration = Field(
        default=timedelta(minutes=10), description="A checkpoint that takes longer than this is aborted."
    )
    checkpoint_dir: str = Field(
        default_factory=lambda: (Path.cwd() / "checkpoints").as_uri(),
        description="URI of the directory for checkpoints.",
    )
    savepoint_dir: str | None = Field(
        default=None,
        description="URI of the directory for savepoints. Unset: `savepoints` beside `job.checkpoint_dir`.",
    )
    name: str = Field(
        default="vacancy", min_length=1, description="The job's name on the cluster; commands find the job by it."
    )
    flink_url: str = Field(
        default="http://127.0.0.1:8081",
        pattern=r"^https?://[^/]+/?$",
        description="REST address of the Flink cluster that `vacancy job submit`, `stop` and `status` talk to.",
    )
    ship: bool = Field(
        default=True, description="Whether to upload the job's jars with it. If not, the image must contain them."
    )
    flink: Annotated[dict[str, str], BeforeValidator(_flat)] = Field(
        default={}, description="More Flink options for the job, by Flink's names; they override those set by Vacancy."
    )
