"""`vacancy topics`: makes the three topics, or checks them."""

from __future__ import annotations

from pathlib import Path

import click

from vacancy.connectors.kafka.client import ensure_topics, topic_problems
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.terminal import say


@click.command("topics")
@settings_options
@click.option("--check", is_flag=True, help="Make nothing; say what is missing or wrong. Status 1 if anything is.")
def command(config: Path | None, data_dir: Path | None, check: bool) -> None:
    """Make the topics that are missing, with the settings that the system relies on; existing ones stay as they are.

    The job does so as well when it starts, if it may. The number of partitions is kafka.partitions, that of replicas
    kafka.replication_factor.

    \b
    Examples:
      vacancy topics --config /etc/vacancy.toml
      vacancy topics --check
    """
    kafka = load(config, data_dir).kafka
    names = (kafka.usage_topic, kafka.inventory_topic, kafka.dead_letter_topic)
    made = [] if check else ensure_topics(kafka)
    for name in made:
        say(f"made {name}")
    problems = topic_problems(kafka)
    for problem in problems:
        say(f"{problem.what}: {problem.mend}", mark=click.style("!! ", "red"))
    if problems:
        click.get_current_context().exit(1)
    say(f"all is well with {', '.join(names)} at {kafka.bootstrap_servers}")
