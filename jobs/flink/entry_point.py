"""The job's entry point for Flink's own launchers: ``flink run -py`` and, in an image, application mode.

``flink run -pyclientexec python -py .../vacancy/jobs/flink/entry_point.py --config /etc/vacancy.toml``, where that
Python has ``vacancy[job]``. Settings come from the file and from ``VACANCY_*`` variables, never from arguments, so that
Flink never shows a secret. Savepoint, cluster and detached mode are set by Flink's own flags (``-s``, ``-m``, ``-d``).
The settings take precedence over all other Flink configuration, including the parallelism.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vacancy.jobs.flink.cluster import shipping
from vacancy.jobs.flink.mini_cluster import check_edges, graph
from vacancy.jobs.options import load
from vacancy.schemas.errors import VacancyError


@click.command()
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings file (TOML).")
def command(config: Path | None) -> None:
    """Submits the job to the Flink that runs this file."""
    settings = load(config, None)
    check_edges(settings)
    graph(settings, shipping(settings.job)).execute(settings.job.name)


if __name__ == "__main__":
    try:
        command.main(standalone_mode=False)
    except (VacancyError, click.ClickException) as error:
        sys.exit(f"vacancy: {error}")
