"""`vacancy config`: writes a settings file, or checks one."""

from __future__ import annotations

from pathlib import Path

import click

from vacancy.jobs.options import load, settings_options
from vacancy.jobs.settings import CONFIG_NAME, find_config
from vacancy.jobs.settings_template import PARTS, template
from vacancy.jobs.terminal import say
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.units import format_duration


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default=CONFIG_NAME)
@click.option("--for", "part", type=click.Choice(list(PARTS)), default="all", show_default=True, help="For which part.")
def init(file: Path, part: str) -> None:
    """Write FILE (vacancy.toml) with every setting of a part as a comment: what it is, and its default.

    \b
    Examples:
      vacancy config init
      vacancy config init --for agent /etc/vacancy.toml
    """
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(template(PARTS[part]))
    except FileExistsError:
        raise VacancyError(f"{file} is there already; name another file, or move it away") from None
    except OSError as error:
        raise VacancyError(f"{file}: {error.strerror}; name a file in a directory that you may write") from None
    file.chmod(0o600)  # passwords may come into it
    say(f"wrote {file}; change what you need, then `vacancy config check --config {file}`")


@click.command()
@settings_options
def check(config: Path | None, data_dir: Path | None) -> None:
    """Say whether the settings are right, and which differ from their defaults. No secret is shown.

    \b
    Example:  vacancy config check --config /etc/vacancy.toml
    """
    settings = load(config, data_dir)
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        for key in sorted(section.model_fields_set):
            value = getattr(section, key)
            if value != type(section).model_fields[key].get_default(call_default_factory=True):
                say(f"{name}.{key} = {value}")
    reporting, max_age = settings.agent.reporting_interval, settings.scheduler.max_age
    if 2 * reporting > max_age:
        key = "interval" if reporting == settings.agent.interval else "max_silence"
        say(
            f"agent.{key} ({format_duration(reporting)}) is more than half of scheduler.max_age"
            f" ({format_duration(max_age)}): one event that is lost makes a host stale"
        )
    file = find_config(config, data_dir)
    say(f"{file or 'no file, so defaults and VACANCY_* variables'}: no mistakes; `vacancy doctor` looks at the rest")


command = click.Group("config", help="Write a settings file, or check one.", commands=[init, check])
