"""`vacancy status`: each part of the system, a line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import click

from vacancy.connectors.postgres.connection import explained, where
from vacancy.connectors.postgres.migrations import refusal, schema_state
from vacancy.jobs import ports
from vacancy.jobs.commands.connections import open_reader
from vacancy.jobs.commands.host_table import summarize, summary_line
from vacancy.jobs.flink.address import local_url, named_url, with_remembered
from vacancy.jobs.flink.rest import FlinkRest
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.rendering import duration
from vacancy.jobs.settings import Settings, find_config
from vacancy.jobs.terminal import say, say_json
from vacancy.schemas.errors import VacancyError

_TIMEOUT_SECONDS = 5.0


class Part(NamedTuple):
    """How a part is.

    Attributes:
        well: whether it does its work; None: it cannot be known from here.
        text: in a few words.
    """

    well: bool | None
    text: str


def _broker(settings: Settings) -> Part:
    from vacancy.connectors.kafka.client import topic_problems

    problems = topic_problems(settings.kafka, _TIMEOUT_SECONDS)
    place = settings.kafka.bootstrap_servers
    return Part(False, f"{place}: {problems[0].what}") if problems else Part(True, f"{place}, three topics")


def _database(settings: Settings) -> Part:
    dsn = settings.postgres.reader_dsn
    state = schema_state(dsn, connect_timeout=settings.postgres.connect_timeout)
    wrong = refusal(state)
    if wrong is None and (state.pending or state.outdated):
        wrong = "is of an earlier release; run `vacancy migrate`"
    return Part(wrong is None, f"{where(dsn)}" + (f" {wrong}" if wrong else f", tables at {state.applied[-1]}"))


def _job(settings: Settings) -> Part:
    url = named_url(settings) or local_url(settings)
    if url is None:
        return Part(None, "job.flink_url says where it runs; whether it does shows in the ages below")
    cluster = FlinkRest(url)
    local = url == local_url(settings)
    jobs = [job for job in cluster.jobs() if local or job.name == settings.job.name]
    if not jobs:
        return Part(False, f"not at {url}; `{'vacancy up' if local else 'vacancy job submit'}` starts it")
    found = cluster.status(next((job for job in jobs if not job.ended), jobs[0]).job_id)
    words = [f"{found.job.state} at {url}"]
    if found.running_since is not None:
        words.append(f"for {duration(datetime.now(UTC) - found.running_since)}")
    words.append(f"{found.restarts} restarts")
    if found.last_checkpoint is not None:
        words.append(f"last checkpoint {duration(datetime.now(UTC) - found.last_checkpoint.completed_at)} ago")
    return Part(found.job.state == "RUNNING" and found.tasks_running == found.tasks, ", ".join(words))


def _hosts(settings: Settings) -> Part:
    with closing(open_reader(settings)) as connection, explained(settings.postgres.reader_dsn):
        summary = summarize(connection)
        with connection.cursor() as cursor:
            cursor.execute("SELECT age_min_seconds FROM vacancy.freshness")
            ((newest_s,),) = cursor.fetchall()
    newest = "no row yet" if newest_s is None else f"newest row {duration(timedelta(seconds=newest_s))} old"
    fresh = newest_s is not None and timedelta(seconds=newest_s) <= settings.scheduler.max_age
    return Part(fresh, f"{newest}; {summary_line(summary)}")


def _claims(settings: Settings) -> Part:
    with (
        closing(open_reader(settings)) as connection,
        explained(settings.postgres.reader_dsn),
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "SELECT count(*), max(statement_timestamp() - claimed_at) FROM vacancy.claim"
            " WHERE settled_at IS NULL AND expires_at > statement_timestamp()"
        )
        ((count, oldest),) = cursor.fetchall()
    return Part(True, f"{count:,} in flight" + (f", the oldest for {duration(oldest)}" if count else ""))


def _sources(settings: Settings) -> Part:
    with (
        closing(open_reader(settings)) as connection,
        explained(settings.postgres.reader_dsn),
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT source, hosts, hosts_expected, hosts_silent FROM vacancy.source ORDER BY source")
        rows = cursor.fetchall()
    words = [f"{name} {hosts:,}" + (f" ({silent:,} silent)" if silent else "") for name, hosts, _, silent in rows]
    heard = all(silent < expected or not expected for _, _, expected, silent in rows)
    return Part(heard and bool(rows), ", ".join(words) or "none has reported")


def _page(settings: Settings) -> Part:
    port = settings.local.web_port
    if not port:
        return Part(None, "`vacancy web` serves it")
    return Part(ports.answers(port), f"http://{ports.HOST}:{port}/")


_PARTS: Mapping[str, Callable[[Settings], Part]] = {
    "broker": _broker,
    "database": _database,
    "job": _job,
    "hosts": _hosts,
    "sources": _sources,
    "claims": _claims,
    "fleet page": _page,
}


def look(settings: Settings, names: Sequence[str] = tuple(_PARTS)) -> dict[str, Part]:
    """How each part is, or each of these, all looked at at the same time."""
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(lambda name: _isolated(_PARTS[name], settings), names), strict=True))


def _isolated(check: Callable[[Settings], Part], settings: Settings) -> Part:
    try:
        return check(settings)
    except VacancyError as error:
        return Part(False, str(error))
    except ModuleNotFoundError as error:
        return Part(None, f"{error.name} is not installed here")


@click.command("status")
@settings_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object: for each part whether it is well, and a text."
)
def command(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show each part of the system, a line each. Status 1 if a part is not well; `vacancy doctor` says what to do.

    \b
    Example:  vacancy status
    """
    settings = with_remembered(load(config, data_dir), find_config(config, data_dir))
    parts = look(settings)
    if as_json:
        say_json({name: part._asdict() for name, part in parts.items()})
    else:
        for name, part in parts.items():
            mark = {True: click.style("ok ", "green"), False: click.style("!! ", "red"), None: "   "}[part.well]
            say(f"{name:<11} {part.text}", mark=mark)
    if any(part.well is False for part in parts.values()):
        click.get_current_context().exit(1)
