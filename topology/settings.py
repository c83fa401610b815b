"""What the dataflow can be told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from schemas.units import Duration


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
    parallelism: int = Field(default=2, ge=1, le=32_768, description="Parallel instances of each operator.")
    checkpoint_interval: Duration = Field(default=timedelta(seconds=10), description="Time between two checkpoints.")
    checkpoint_dir: str = Field(
        default_factory=lambda: (Path.cwd() / "checkpoints").as_uri(),
        description="URI of the directory that checkpoints go to.",
    )
