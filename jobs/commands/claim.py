"""`vacancy claim`: picks hosts and claims them."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, get_args

import click

from vacancy.connectors.postgres.connection import connect, explained
from vacancy.connectors.postgres.documents import documents, json_value
from vacancy.connectors.postgres.servers import Connection
from vacancy.connectors.postgres.whole_host import unknown_hosts
from vacancy.connectors.scheduler.answers import Claim, Contradiction, ContradictionError, NoHostFitsError
from vacancy.connectors.scheduler.reasons import why_out
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import Strategy
from vacancy.jobs.commands.connections import open_scheduler
from vacancy.jobs.commands.request_options import parse_request, request_options
from vacancy.jobs.options import DurationType, load, settings_options
from vacancy.jobs.settings import Settings
from vacancy.jobs.terminal import say, say_json
from vacancy.schemas.errors import VacancyError

_ROW = "SELECT * FROM vacancy.schedulable_host WHERE host_id = %(host)s"


@click.command("claim")
@settings_options
@request_options
@click.option(
    "--count", type=click.IntRange(1, 1000), default=1, show_default=True, help="Number of hosts to claim: all or none."
)
@click.option("--distinct-hosts", is_flag=True, help="Claim each on a different host.")
@click.option(
    "--consumer",
    "consumers",
    type=click.UUID,
    multiple=True,
    help="UUID of the instance that the claim is for.  [default: a new one]",
)
@click.option(
    "--move", is_flag=True, help="Move a --consumer's claim for something else, in one step, instead of refusing."
)
@click.option("--strategy", type=click.Choice(get_args(Strategy)), help="As scheduler.strategy.")
@click.option("--ttl", "claim_ttl", type=DurationType(), help="As scheduler.claim_ttl.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON: an array of claims, or why there are none.")
def command(
    config: Path | None,
    data_dir: Path | None,
    count: int,
    consumers: tuple[uuid.UUID, ...],
    move: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Pick hosts and claim them.

    A claim counts against its host until the host reports the consumer, the claim is released, or scheduler.claim_ttl
    ends. Claiming again with the same --consumer returns the same claim; if that is not what is asked for (another
    size, another host), it is an error, or with --move the claim moves. Status 3: no host fits, and nothing has moved.

    \b
    Examples:
      vacancy claim --vcpus 4 --memory-mb 8192 --disk-gb 40
      vacancy claim --vcpus 2 --count 3 --distinct-hosts --require HW_CPU_X86_AVX2
      vacancy claim --vcpus 8 --numa-cpus 8 --numa-pages 2048=4096 --pci 10de:20b5,count=2,same_cell
      vacancy claim --vcpus 8 --consumer 5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d11 --move
      vacancy claim --vcpus 1 --consumer 5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d11 --json | jq -r '.[].host_name'
    """
    request = parse_request(**flags)
    if not request.takes_anything:
        raise click.UsageError("say what to claim: --vcpus, --memory-mb, --disk-gb, --resource, --numa-cpus, --pci")
    if move and not consumers:
        raise click.UsageError("--move moves the claim of a --consumer: say which")
    if consumers and count not in (1, len(consumers)):
        raise click.UsageError(f"--count {count} with {len(consumers)} --consumer: leave one of them out")
    settings = load(config, data_dir)
    with open_scheduler(settings) as scheduler:
        try:
            claims = scheduler.claim(request, consumers or None, count=count, move=move)
        except ContradictionError as error:
            if as_json:
                say_json([_document(one) for one in error.contradictions])
            raise
        except NoHostFitsError as error:
            if as_json:
                say_json(dataclasses.asdict(error.refusal))
            raise RefusedError(f"{error}{_nearest(settings, request, error)}{_strangers(settings, request)}") from None
    if stranger := _strangers(settings, request):
        say(f"vacancy: {stranger.removeprefix('; ')}", err=True)
    if as_json:
        say_json([_document(claim) for claim in claims])
    else:
        for claim in claims:
            say(f"{claim.consumer}  {claim.host_name or claim.host_id}" + ("  already" if claim.already else ""))


class RefusedError(VacancyError):
    """No host fits; the message says what the nearest one lacks."""

    exit_status = 3


def _nearest(settings: Settings, request: Request, error: NoHostFitsError) -> str:
    """What rules the nearest host out, in words; empty where its row cannot be read."""
    nearest = error.refusal.nearest
    if nearest is None:
        return ""
    with suppress(VacancyError), _reading(settings) as connection:
        rows = documents(connection, _ROW, {"host": nearest.host_id})
        words = [why_out(name, row, request, settings.scheduler) for row in rows for name in nearest.ruled_out_by]
        return f": {'; '.join(words)}" if words else ""
    return ""


def _strangers(settings: Settings, request: Request) -> str:
    """The names of --include and --avoid that no host has."""
    names = (*request.include, *request.avoid)
    if not names:
        return ""
    with suppress(VacancyError), _reading(settings) as connection:
        unknown = unknown_hosts(connection, names)
        return f"; no host is called {', '.join(unknown)}" if unknown else ""
    return ""


@contextmanager
def _reading(settings: Settings) -> Iterator[Connection]:
    dsn = settings.postgres.scheduler_dsn
    with (
        closing(
            connect(
                dsn,
                connect_timeout=settings.postgres.connect_timeout,
                application_name="vacancy claim",
                read_only=True,
                max_age=settings.scheduler.max_age,
            )
        ) as connection,
        explained(dsn),
    ):
        yield connection


def _document(claim: Claim | Contradiction) -> dict[str, Any]:
    """A claim, or what it is not true to, as JSON: times ISO 8601 in UTC."""
    return {name: json_value(value) for name, value in dataclasses.asdict(claim).items()}
