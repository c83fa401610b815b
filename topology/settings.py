"""What the dataflow can be told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vacancy.schemas.units import Duration


def _flat(options: Any, prefix: str = "") -> Any:
    """Options by their full names: in TOML ``a.b = 1`` is a table, as it is in Flink's own YAML."""
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
"""Into how many groups the keyed state is cut. Part of every savepoint: another number restores none of them."""


class JobSettings(BaseModel):
    """The job's knobs. Those that change what state means say so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: Duration = Field(
        default=timedelta(seconds=60), description="What the least-free figures and the rates of a row reach back over."
    )
    emit: Duration = Field(
        default=timedelta(seconds=1),
        ge=timedelta(milliseconds=100),
        description="How often a host's row may be rewritten; 100 ms or more.",
    )
    idle_timeout: Duration = Field(
        default=timedelta(seconds=1),
        description="After this time a silent partition no longer holds back the watermark that Flink's metrics show; "
        "no row waits for it.",
    )
    parallelism: int = Field(
        default=2, ge=1, le=MAX_PARALLELISM, description="Parallel instances of each operator; a savepoint fits any."
    )
    state_backend: Literal["hashmap", "rocksdb"] = Field(
        default="hashmap",
        description="Where the windows are kept: on the heap, or on disk with incremental checkpoints.",
    )
    checkpoint_interval: Duration = Field(default=timedelta(seconds=10), description="Time between two checkpoints.")
    checkpoint_timeout: Duration = Field(
        default=timedelta(minutes=10), description="A checkpoint that takes longer is given up."
    )
    checkpoint_dir: str = Field(
        default_factory=lambda: (Path.cwd() / "checkpoints").as_uri(),
        description="URI of the directory that checkpoints go to.",
    )
    savepoint_dir: str | None = Field(
        default=None, description="URI of the directory that savepoints go to. Unset: `savepoints` beside the former."
    )
    name: str = Field(
        default="vacancy", min_length=1, description="The job's name on the cluster, by which it is found."
    )
    flink_url: str = Field(
        default="http://127.0.0.1:8081",
        pattern=r"^https?://[^/]+/?$",
        description="REST address of the Flink cluster that `vacancy job submit`, `stop` and `status` talk to.",
    )
    ship: bool = Field(default=True, description="Whether the job's jars travel with it; else the image holds them.")
    flink: Annotated[dict[str, str], BeforeValidator(_flat)] = Field(
        default={}, description="Any further options of Flink for the job, by Flink's names; they win over ours."
    )
