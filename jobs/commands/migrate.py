"""`vacancy migrate`: the tables, functions and views at this release's version."""

from __future__ import annotations

from pathlib import Path

import click

from vacancy.connectors.postgres.connection import where
from vacancy.connectors.postgres.migrations import Changes, SchemaState, migrate, refusal, schema_state
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.terminal import say
from vacancy.schemas.errors import VacancyError


@click.command("migrate")
@settings_options
@click.option("--status", is_flag=True, help="Show what is applied and what is pending, and change nothing.")
@click.option("--dry-run", is_flag=True, help="Apply everything, show what was done, and roll it back.")
def command(config: Path | None, data_dir: Path | None, status: bool, dry_run: bool) -> None:
    """Bring the tables, functions and views to this version.

    It connects as postgres.owner_dsn and applies everything or nothing. It is safe to run it again, and to run several
    at once.

    \b
    Example:  vacancy migrate --config /etc/vacancy.toml
    """
    if status and dry_run:
        raise click.UsageError("--status and --dry-run exclude each other.")
    settings = load(config, data_dir)
    dsn, connect_timeout = settings.postgres.owner_dsn, settings.postgres.connect_timeout
    if status:
        state = schema_state(dsn, connect_timeout=connect_timeout)
        for line in _state_lines(state):
            say(line)
        reason = refusal(state)
        if reason is not None:
            raise VacancyError(f"{where(dsn)} {reason}")
        return
    changes = migrate(dsn, dry_run=dry_run, connect_timeout=connect_timeout)
    for line in _change_lines(changes, "would apply" if dry_run else "applied"):
        say(line)
    if not changes:
        say("the tables are up to date")
    elif dry_run:
        say("nothing was changed")


def _state_lines(state: SchemaState) -> list[str]:
    """One line per migration, in the order of their names, and one line for the functions and views."""
    words = dict.fromkeys(state.applied, "applied")
    words |= dict.fromkeys(state.pending, "pending")
    words |= dict.fromkeys(state.unknown, "unknown")
    words |= dict.fromkeys(state.changed, "changed")
    words |= dict.fromkeys(state.replaced, "to be replaced")
    lines = [f"{words[name]}: {name}" for name in sorted(words)]
    lines += [f"differs: {name}" for name in state.outdated]
    return lines if state.pending or state.outdated or refusal(state) else [*lines, "up to date"]


def _change_lines(changes: Changes, verb: str) -> list[str]:
    lines = [f"{verb} {name}" for name in changes.migrations]
    if changes.replaced:
        lines.append(f"in place of {changes.replaced[0]} to {changes.replaced[-1]}")
    if changes:
        differ = ", ".join(changes.sources) if changes.sources else "none of them differs"
        lines.append(f"{verb} functions and views ({differ})")
    return lines
