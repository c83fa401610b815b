"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from vacancy.jobs.settings import Settings, find_config, load_settings
from vacancy.schemas.errors import ConfigError
from vacancy.schemas.units import parse_duration

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(function: F) -> F:
    """Adds ``--config`` and ``--data-dir``; the command gets them as arguments for :func:`load`."""
    function = click.option(
        "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Use the local stack in this directory."
    )(function)
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Settings file (TOML).  [default: vacancy.toml]",
    )(function)


def load(config: Path | None, data_dir: Path | None, flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings, with a command's flags applied."""
    if config is not None and data_dir is not None:
        raise ConfigError("--config and --data-dir exclude each other: name the settings file or the local stack")
    return load_settings(find_config(config, data_dir), flags)


def flags(**sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The flags that were given, in the form that :func:`load` takes; None marks a flag that was not given."""
    given = {
        name: {key: value for key, value in section.items() if value is not None} for name, section in sections.items()
    }
    return {name: section for name, section in given.items() if section}


class DurationType(click.ParamType[timedelta]):
    """A flag that takes a duration: ``500ms``, ``10s``, ``5min`` or seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The duration as a timedelta."""
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
