"""`vacancy doctor`: what is wrong with a setup, and what to do.

What always holds: a check that fails, or that breaks, does not keep the others from running; each ends within seconds.
Where a part is dead it stands first, and what follows from it after it. What cannot be checked for want of a package,
such as the database on a compute node, is no fault.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click
from pydantic import SecretStr

from vacancy.jobs.flink.address import local_url, named_url, with_remembered
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.rendering import duration, one_line
from vacancy.jobs.settings import Settings, find_config
from vacancy.jobs.terminal import say, say_json
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.events import Event, released
from vacancy.schemas.units import milliseconds_of

try:
    from vacancy.connectors.postgres.connection import UnreachableError, connect, explained
    from vacancy.connectors.postgres.migrations import refusal, schema_state
except ModuleNotFoundError as error:
    if error.name != "psycopg2":
        raise
    HAS_POSTGRES = False
else:
    HAS_POSTGRES = True

TIMEOUT_SECONDS = 5.0
_CLOCK_SKEW = timedelta(seconds=1)
"""How far the broker's and the database server's clocks may be apart before it matters to an age."""
_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "TRUNCATE"})
_CALLED_BY_THE_VIEW = ("pool_counts()", "disk_gb_free()")
"""Functions that whoever reads `schedulable_host` calls through it."""
_MAY: Mapping[str, frozenset[tuple[str, str]]] = {
    "job": frozenset(
        {(table, right) for table in ("host", "host_inventory") for right in ("SELECT", "INSERT", "UPDATE")}
        | {(function, "EXECUTE") for function in ("pci_kinds()", "resource_classes()", "numa_free()")}
    ),
    "scheduler": frozenset(
        {("schedulable_host", "SELECT")}
        | {
            (function, "EXECUTE")
            for function in (
                *("claim()", "claim_many()", "release()", "candidates()", "why()", "measured()", "note_claim()"),
                *("reserve()", "take_reserved()", "claimed()"),
                *_CALLED_BY_THE_VIEW,
            )
        }
    ),
    "reader": frozenset(
        {
            (function, "EXECUTE")
            for function in (
                "why()",
                "what_fits()",
                "fit_of()",
                "claimed_amounts()",
                "pci_free()",
                "cells_free()",
                "class_free()",
                "record_drift()",
                *_CALLED_BY_THE_VIEW,
            )
        }
        | {
            (relation, "SELECT")
            for relation in (
                *("host", "host_inventory", "claim", "host_free", "pool_claimed", "pool_allocated", "schedulable_host"),
                "freshness",
                *(
                    "schema_migration",
                    "schema_source",
                    "pci_pool",
                    "numa_cell",
                    "resource_class",
                    "source",
                    "drift",
                    "drifting",
                    "host_drift",
                    "shared_disk",
                ),
            )
        }
    ),
}
"""What each role may do to the relations and functions of the schema; nothing else."""
_RIGHTS = """
SELECT c.relname, r.name
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN unnest(%s) AS r (name)
WHERE n.nspname = 'vacancy' AND c.relkind IN ('r', 'v') AND has_table_privilege(c.oid, r.name)
UNION ALL
SELECT p.proname || '()', 'EXECUTE'
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'vacancy' AND p.proname NOT IN ('max_age', 'max_clock_ahead')
  AND has_function_privilege(p.oid, 'EXECUTE')
"""
_FRESHNESS = """
SELECT hosts, hosts_schedulable, hosts_stale, hosts_without_inventory, age_min_seconds, age_p99_seconds
FROM vacancy.freshness
"""

_SOURCES = "SELECT source, hosts, hosts_expected, hosts_silent, age_min_seconds FROM vacancy.source ORDER BY source"
_ANOMALIES = """
SELECT anomaly.bit, count(*), (array_agg(s.name ORDER BY s.name))[:%(names)s]
FROM vacancy.schedulable_host AS s, unnest(ARRAY[1, 2, 4]) AS anomaly (bit)
WHERE s.anomalies & anomaly.bit <> 0
GROUP BY anomaly.bit
"""
_DISK_POOLS = """
WITH named AS (
  SELECT disk_pool, count(*) AS hosts FROM vacancy.schedulable_host WHERE disk_pool IS NOT NULL GROUP BY disk_pool
)
SELECT named.disk_pool, named.hosts, pool.host_id, pool.status, pool.reason, pool.disk_gb_free
FROM named
LEFT JOIN LATERAL (
  SELECT * FROM vacancy.schedulable_host AS p
  WHERE p.shares AND (p.name = named.disk_pool OR p.host_id = named.disk_pool) ORDER BY p.host_id LIMIT 1
) AS pool ON true
ORDER BY named.disk_pool
"""
_AHEAD = """
SELECT
  count(*), (array_agg(s.name ORDER BY s.name))[:%(names)s],
  max(greatest(s.observed_at, s.inventory_observed_at) - now())
FROM vacancy.schedulable_host AS s
WHERE s.reason = 'clock ahead'
"""
_UNCERTAIN = """
SELECT (array_agg(s.name ORDER BY s.name))[:%(names)s], count(*), figure.name
FROM vacancy.schedulable_host AS s, unnest(s.uncertain) AS figure (name)
GROUP BY figure.name
ORDER BY figure.name
LIMIT 20
"""
_INTERVALS = """
SELECT most.what, count(*), (array_agg(s.name ORDER BY s.name))[:%(names)s], max(s.reporting_interval_ms)
FROM vacancy.schedulable_host AS s, (VALUES ('age', %(age_ms)s), ('window', %(window_ms)s)) AS most (what, ms)
WHERE s.reporting_interval_ms > most.ms AND (most.what = 'age' OR NOT s.shares)
GROUP BY most.what
ORDER BY most.what
"""
_SHARED_DISKS = """
SELECT disk_id, hosts, names[:%(names)s], promised_gb, capacity_gb
FROM vacancy.shared_disk
ORDER BY hosts DESC, disk_id
LIMIT 20
"""
_LONGEST_TRANSACTION = timedelta(seconds=5)
"""Vacancy's own are shorter."""
_MANY_TRANSACTIONS = 1000
"""So many a standby may be behind without being in the way."""
_OPEN_TRANSACTIONS = """
SELECT usename, application_name, client_addr::text, pid, state, xact_start, clock_timestamp() - xact_start,
  backend_xmin IS NOT NULL OR backend_xid IS NOT NULL
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND clock_timestamp() - xact_start > %(longest)s
ORDER BY xact_start
"""
_PREPARED_TRANSACTIONS = """
SELECT gid, owner::text, prepared, clock_timestamp() - prepared
FROM pg_prepared_xacts
WHERE database = current_database() AND clock_timestamp() - prepared > %(longest)s
ORDER BY prepared
"""
_REPLICATION = """
SELECT 'replication slot', slot_name::text, active, age(xmin) FROM pg_replication_slots WHERE xmin IS NOT NULL
UNION ALL
SELECT 'standby', application_name, true, age(backend_xmin) FROM pg_stat_replication WHERE backend_xmin IS NOT NULL
ORDER BY 4 DESC
"""
_HIDDEN_SESSIONS = """
SELECT count(*) FILTER (WHERE query = '<insufficient privilege>'), quote_ident(current_user)
FROM pg_stat_activity
WHERE datname = current_database()
"""
_NAMED_HOSTS = 10
_CLONED_ID, _CLOCK_WENT_BACK, _FRACTION_BOUNDED = 1, 2, 4
"""The bits of host.anomalies."""
_SILENT_SHARE = 0.5
"""From this share of its hosts on a source as a whole is silent, and not some of its hosts."""
_TOLERATED_SHARE = 0.01
"""In a big fleet some host is always away."""
_LISTEN_AT: Mapping[str, str] = {
    "host": "look at `vacancy agent` on those nodes",
    "libvirt": "look at `vacancy agent` on those nodes, and whether libvirt answers there",
    "cinder": "look at `vacancy storage`: does cinder's API answer, and are its volume services up",
    "notifications": "look at `vacancy bridge`: do RabbitMQ, Placement and Nova's API answer there",
    "ceilometer": "look at `vacancy bridge`: do RabbitMQ, Placement and Nova's API answer there",
    "simulator": "start `vacancy simulate` again, or retire its hosts",
}
"""Where a source's figures stop; for one that is not here the collector's own name has to do."""


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        check: the name of the check.
        message: what it found.
        remedy: what to do; None if all is well.
        dead: the part that does not run or answer, from which other findings may follow; None: it is not about that.
    """

    check: str
    message: str
    remedy: str | None = None
    dead: str | None = None


Check = Callable[[Settings], Iterator[Finding]]


def diagnose(settings: Settings) -> list[Finding]:
    """Runs all checks that can be run here, at the same time, and gives their findings in the order of the checks."""
    checks = _CHECKS if HAS_POSTGRES else {name: _CHECKS[name] for name in _WITHOUT_DATABASE}
    with ThreadPoolExecutor(len(checks)) as pool:
        results = pool.map(lambda item: _isolated(item[0], item[1], settings), checks.items())
        found = [finding for findings in results for finding in findings]
    if not HAS_POSTGRES:
        named = any(f"{role}_dsn" in settings.postgres.model_fields_set for role in ("owner", "job", "reader"))
        what = "not checked: psycopg2 is not installed here, and a compute node does not need it"
        found.append(Finding("database", what, "pip install 'vacancy[scheduler]'" if named else None))
    return found


def by_cause(findings: Sequence[Finding]) -> list[tuple[Finding, str | None]]:
    """The findings in the order in which to read them, each with the dead part that it follows from.

    Dead parts come first, upstream ones before those that they feed; after them what follows from them; then the other
    faults; then what is well. The checks of a database that does not answer are one line.
    """
    dead = sorted({finding.dead for finding in findings if finding.dead is not None}, key=list(_FOLLOWS).index)
    first: dict[str, Finding] = {}
    silenced: list[str] = []
    followers: list[tuple[Finding, str | None]] = []
    others: list[tuple[Finding, str | None]] = []
    well: list[tuple[Finding, str | None]] = []
    for finding in findings:
        cause = next((part for part in dead if finding.check in _FOLLOWS[part]), None)
        if finding.dead is not None and finding.dead not in first:
            first[finding.dead] = finding
        elif finding.dead == "database":
            silenced.append(finding.check)
        elif finding.remedy is None:
            well.append((finding, None))
        elif cause is not None:
            followers.append((finding, cause))
        else:
            others.append((finding, None))
    if silenced:
        names = ", ".join(dict.fromkeys(silenced))
        followers.insert(0, (Finding("database", f"not checked: {names}", "start the database first"), "database"))
    return [(first[part], None) for part in dead] + followers + others + well


def _isolated(name: str, check: Check, settings: Settings) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings.extend(check(settings))
    except VacancyError as error:
        # Our errors say what is wrong, a semicolon, what to do.
        message, _, remedy = str(error).rpartition("; ")
        dead = name if name in ("broker", "job") else None
        if HAS_POSTGRES and isinstance(error, UnreachableError):
            dead = "database"
        findings.append(Finding(name, message or remedy, remedy if message else "see the message", dead))
    except ModuleNotFoundError as error:
        findings.append(Finding(name, f"not checked: {error.name} is not installed here; pip install 'vacancy[kafka]'"))
    except Exception as error:  # noqa: BLE001  # a check that breaks must not hide the others' findings
        findings.append(Finding(name, f"the check broke: {type(error).__name__}: {error}", "report this as a bug"))
    return findings


def _topics(settings: Settings) -> Iterator[Finding]:
    from vacancy.connectors.kafka.client import open_transactions, topic_problems

    problems = topic_problems(settings.kafka, TIMEOUT_SECONDS)
    problems += open_transactions(settings.kafka, timeout_s=TIMEOUT_SECONDS)
    yield Finding("broker", f"{settings.kafka.bootstrap_servers} answers")
    for problem in problems:
        yield Finding("topics", problem.what, problem.mend)
    if not problems:
        kafka = settings.kafka
        yield Finding("topics", f"{kafka.usage_topic}, {kafka.inventory_topic}, {kafka.dead_letter_topic}")


def _schemas(settings: Settings) -> Iterator[Finding]:
    del settings
    for event in Event:
        versions = ", ".join(f"v{version.version} {version.fingerprint.hex()}" for version in released(event))
        yield Finding("schemas", f"{event.value} {versions}")


def _registry(settings: Settings) -> Iterator[Finding]:
    url = settings.kafka.schema_registry_url
    if url is None:
        return
    subjects = _get_json(f"{url.rstrip('/')}/subjects", "start the registry, or correct kafka.schema_registry_url")
    yield Finding("registry", f"{_without_password(url)} answers, {len(subjects)} subjects")


def _role(role: str) -> Check:
    """The check that a role reaches the database, and may do what it must and nothing more."""

    def check(settings: Settings) -> Iterator[Finding]:
        name = f"postgres.{role}_dsn"
        with (
            closing(_connect(settings, role)) as connection,
            connection.cursor() as cursor,
            explained(_dsn(settings, role)),
        ):
            cursor.execute("SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user")
            user, is_superuser = cursor.fetchall()[0]
            yield Finding(name, f"connects as {user}")
            if role == "owner":
                return
            if is_superuser:
                yield Finding(name, f"{user} is a superuser, who may do anything", f"use a member of vacancy_{role}")
                return
            cursor.execute(_RIGHTS, (sorted({"SELECT", *_WRITES}),))
            held = frozenset(cursor.fetchall())
            cursor.execute("SELECT has_schema_privilege('vacancy', 'USAGE')")
            usage = cursor.fetchall() == [(True,)]
        may = _MAY[role]
        if not usage or may - held:
            lacking = _listed(may - held) or "USAGE on the schema"
            yield Finding(name, f"{user} may not {lacking}", f"GRANT vacancy_{role} TO {user}")
        if held - may:
            yield Finding(name, f"{user} may {_listed(held - may)}, which it must not", f"REVOKE that from {user}")
        if usage and held == may:
            yield Finding(name, f"{user} has the rights it needs and no others")

    return check


def _listed(rights: frozenset[tuple[str, str]]) -> str:
    return ", ".join(f"{right} vacancy.{relation}" for relation, right in sorted(rights))


def _migrations(settings: Settings) -> Iterator[Finding]:
    state = schema_state(settings.postgres.reader_dsn, connect_timeout=_timeout(settings))
    reason = refusal(state)
    if reason is not None:
        message, _, remedy = reason.partition(": ")
        yield Finding("tables", f"the database {message}", remedy)
    elif state.pending:
        yield Finding("tables", f"{len(state.pending)} migrations are missing", "run `vacancy migrate`")
    elif state.outdated:
        files = ", ".join(state.outdated)
        yield Finding("tables", f"functions or views are not those of this release: {files}", "run `vacancy migrate`")
    else:
        yield Finding("tables", f"up to date at {state.applied[-1]}")


def _job(settings: Settings) -> Iterator[Finding]:
    url = named_url(settings) or local_url(settings)
    if url is None:
        return  # Nothing says where the job is; that it runs shows in the age of the table.
    local = url == local_url(settings)
    start = "`vacancy up` or `vacancy job run`" if local else "the cluster, or correct job.flink_url"
    overview = _get_json(f"{url}/jobs/overview", f"start {start}")
    states = [job["state"] for job in overview["jobs"] if local or job["name"] == settings.job.name]
    if "RUNNING" in states:
        yield Finding("job", f"runs, {_without_password(url)}")
    else:
        state = states[0].lower() if states else "not there"
        start = "`vacancy up`" if local else "`vacancy job submit`"
        remedy = f"see {_without_password(url)} and the job's log; {start} starts it"
        yield Finding("job", f"the job is {state}", remedy, "job")


def _ages(settings: Settings) -> Iterator[Finding]:
    with (
        closing(_connect(settings, "reader")) as connection,
        connection.cursor() as cursor,
        explained(settings.postgres.reader_dsn),
    ):
        cursor.execute(_FRESHNESS)
        hosts, schedulable, stale, nameless, newest_s, p99_s = cursor.fetchall()[0]
    max_age = settings.scheduler.max_age
    if nameless:
        yield Finding(
            "table",
            f"{nameless} hosts sent usage but no inventory, so no scheduler sees them",
            "restart their agents; if that does not help, see `vacancy dead-letters`",
        )
    if newest_s is None:
        what = f"none of {hosts} hosts is enabled and reports" if hosts else "no host is in the table"
        yield Finding("table", what, "start `vacancy agent` on the nodes, and the job")
        return
    newest, p99 = timedelta(seconds=newest_s), timedelta(seconds=p99_s)
    ages = f"{hosts} hosts, newest {duration(newest)} old, 99 % within {duration(p99)}"
    if newest < -_CLOCK_SKEW:
        yield Finding(
            "table", f"events come {duration(-newest)} from the future", "set the clocks of brokers and database (NTP)"
        )
    elif stale and not schedulable:
        yield Finding("table", f"every host is stale: {ages}", "look whether the job, the broker and the agents run")
    elif p99 > max_age:
        yield Finding("table", f"{stale} hosts are stale: {ages}", "look at their agents; `vacancy hosts` names them")
    else:
        yield Finding("table", ages)


def _sources(settings: Settings) -> Iterator[Finding]:
    for source, hosts, expected, silent, newest_s in _read(settings, _SOURCES):
        heard = "never heard" if newest_s is None else f"last heard {duration(timedelta(seconds=newest_s))} ago"
        remedy = _LISTEN_AT.get(source, f"look at the collector that calls itself {source}")
        what = f"{source} speaks for {hosts} hosts, {heard}"
        if not silent:
            yield Finding("sources", what)
        elif silent >= _SILENT_SHARE * expected:
            yield Finding(
                "sources", f"{source} is silent: {silent} of the {hosts} hosts it speaks for, {heard}", remedy
            )
        elif silent > _TOLERATED_SHARE * expected:
            yield Finding(
                "sources", f"{what}, but {silent} of them are silent", f"{remedy}; `vacancy hosts` names them"
            )
        else:
            yield Finding("sources", f"{what}; {silent} of them are silent")


def _anomalies(settings: Settings) -> Iterator[Finding]:
    with (
        closing(_connect(settings, "reader")) as connection,
        connection.cursor() as cursor,
        explained(settings.postgres.reader_dsn),
    ):
        cursor.execute("SELECT count(*) FROM vacancy.schedulable_host")
        ((hosts,),) = cursor.fetchall()
        cursor.execute(_ANOMALIES, {"names": _NAMED_HOSTS})
        found = {bit: (count, _named(names, count)) for bit, count, names in cursor.fetchall()}
        cursor.execute(_AHEAD, {"names": _NAMED_HOSTS})
        ((ahead, ahead_names, furthest),) = cursor.fetchall()
    if ahead:
        yield Finding(
            "clocks",
            f"the newest events of {ahead} hosts say times ahead of this database's, by up to {duration(furthest)}; "
            f"these hosts are out (clock ahead): {_named(ahead_names, ahead)}",
            "set the clocks of brokers and database (NTP); a host is back with its next event and its next inventory",
        )
    if not found:
        yield Finding("anomalies", "the events of no host contradict each other")
    if _CLONED_ID in found:
        count, names = found[_CLONED_ID]
        yield Finding(
            "anomalies",
            f"several nodes report under the id of {count} hosts, which are out: {names}",
            "give each node a machine id of its own (systemd-machine-id-setup) or set agent.host_id, restart its agent",
        )
    if _CLOCK_WENT_BACK in found:
        count, names = found[_CLOCK_WENT_BACK]
        yield Finding(
            "anomalies",
            f"the monotonic clock of {count} hosts went back since they booted, as after a restored snapshot: {names}",
        )
    if _FRACTION_BOUNDED in found:
        count, names = found[_FRACTION_BOUNDED]
        what = f"the counters of {count} hosts say that they were busy for more than all of the time: {names}"
        # The ticks of a clock that counts in steps of 10 ms say so of a host that is fully busy.
        many = count > _TOLERATED_SHARE * hosts + 1
        yield Finding("anomalies", what, "look at their counters and their CPU counts there" if many else None)


def disk_pools(settings: Settings) -> Iterator[Finding]:
    """The check of the storage pools that hosts take their disk from."""
    with (
        closing(_connect(settings, "reader")) as connection,
        connection.cursor() as cursor,
        explained(settings.postgres.reader_dsn),
    ):
        cursor.execute(_DISK_POOLS)
        pools = cursor.fetchall()
    for name, hosts, pool_id, status, reason, free_gb in pools:
        what = f"{hosts} hosts take their disk from the storage pool {one_line(name)}"
        if pool_id is None:
            remedy = "set agent.reports_disk_pool on one of them, or start what reports it (docs/storage.md)"
            yield Finding("storage pools", f"{what}, which nobody reports", remedy)
        elif status == "DISABLED" or reason in {"no usage yet", "stale", "duplicate id"}:
            remedy = "see what reports it: an agent with agent.reports_disk_pool, `vacancy storage` or the simulator"
            yield Finding("storage pools", f"{what}, which gives none: {one_line(reason)}", remedy)
        elif free_gb < 0:
            remedy = "move instances to other pools, or enlarge it"
            yield Finding("storage pools", f"{what}, which has promised {-free_gb} GiB more than it may", remedy)
        else:
            yield Finding("storage pools", f"{what}, {free_gb} GiB free")


def _figures(settings: Settings) -> Iterator[Finding]:
    for names, count, figure in _read(settings, _UNCERTAIN, {"names": _NAMED_HOSTS}):
        yield Finding(
            "figures",
            f"{one_line(figure)} of {count} hosts is not known for certain: {_named(names, count)};"
            " the logs of their agents say why",
        )


def _intervals(settings: Settings) -> Iterator[Finding]:
    """Whether hosts report often enough for what is made of their events."""
    max_age, window = settings.scheduler.max_age, settings.job.window
    values = {"names": _NAMED_HOSTS, "age_ms": milliseconds_of(max_age) // 2, "window_ms": milliseconds_of(window)}
    for what, count, names, longest_ms in _read(settings, _INTERVALS, values):
        who = f"{count} hosts let up to {duration(timedelta(milliseconds=longest_ms))} pass between two reports"
        lower = "lower agent.interval (agent.max_silence with agent.tolerance, bridge.interval, storage.interval) there"
        if what == "age":
            yield Finding(
                "intervals",
                f"{who}, so one event that is lost makes them stale: {_named(names, count)}",
                f"{lower}, or set scheduler.max_age to twice that or more; it is {duration(max_age)}",
            )
        else:
            yield Finding(
                "intervals",
                f"{who}, which gives no rates: {_named(names, count)}",
                f"{lower}, or set job.window to several times that; it is {duration(window)}",
            )


def _disks(settings: Settings) -> Iterator[Finding]:
    for disk, count, names, promised_gb, capacity_gb in _read(settings, _SHARED_DISKS, {"names": _NAMED_HOSTS}):
        yield Finding(
            "disks",
            f"{count} hosts promise {promised_gb:,} GiB of one disk of {capacity_gb:,} GiB, {one_line(disk)}:"
            f" {_named(names, count)}",
            "set agent.disk_pool to one name on all of them",
        )


def _transactions(settings: Settings) -> Iterator[Finding]:
    """What keeps the server from removing the old versions of rows, which makes every update of a host slower."""
    with (
        closing(_connect(settings, "owner")) as connection,
        connection.cursor() as cursor,
        explained(settings.postgres.owner_dsn),
    ):
        cursor.execute(_OPEN_TRANSACTIONS, {"longest": _LONGEST_TRANSACTION})
        transactions = cursor.fetchall()
        cursor.execute(_PREPARED_TRANSACTIONS, {"longest": _LONGEST_TRANSACTION})
        prepared = cursor.fetchall()
        cursor.execute(_REPLICATION)
        replication = [row for row in cursor.fetchall() if not row[2] or row[3] > _MANY_TRANSACTIONS]
        cursor.execute(_HIDDEN_SESSIONS)
        ((hidden, user),) = cursor.fetchall()
    for who, program, address, pid, state, since, lasts, holds_back in transactions:
        where = f"{one_line(program) or 'a program without a name'}{f' at {address}' if address else ''}, process {pid}"
        harm = "old versions of rows stay, and updates get slower" if holds_back else "it keeps its locks"
        yield Finding(
            "transactions",
            f"{one_line(who)} ({where}) has had a transaction open since {_moment(since)}, for {duration(lasts)}, now "
            f"{state}: {harm}",
            f"commit it there, or end it (SELECT pg_terminate_backend({pid})); "
            "idle_in_transaction_session_timeout ends the next one",
        )
    for name, who, since, lasts in prepared:
        yield Finding(
            "transactions",
            f"{one_line(who)} has prepared the transaction {one_line(name)} and not committed it since "
            f"{_moment(since)}, for {duration(lasts)}: old versions of rows stay, and it keeps its locks",
            f"COMMIT PREPARED '{one_line(name)}', or ROLLBACK PREPARED, in this database",
        )
    for kind, name, active, behind in replication:
        what = f"the {kind} {one_line(name)}{'' if active else ', which nobody uses,'} holds back the last {behind:,}"
        yield Finding(
            "transactions",
            f"{what} transactions: old versions of rows stay, and updates get slower",
            "end long queries on that standby, or turn hot_standby_feedback off there"
            if active
            else f"start its standby again, or drop it (SELECT pg_drop_replication_slot('{one_line(name)}'))",
        )
    if not (transactions or prepared or replication):
        unseen = f"; {hidden} sessions hide theirs: GRANT pg_read_all_stats TO {user} shows them" if hidden else ""
        longest_s = _LONGEST_TRANSACTION.total_seconds()
        yield Finding("transactions", f"none is open for longer than {longest_s:g} s{unseen}")


def _moment(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _named(names: Sequence[str], count: int) -> str:
    shown = ", ".join(str(one_line(name)) for name in names)
    return shown if count <= len(names) else f"{shown} and {count - len(names)} more"


_CHECKS: Mapping[str, Check] = {
    "broker": _topics,
    "schemas": _schemas,
    "registry": _registry,
    **{f"postgres.{role}_dsn": _role(role) for role in ("owner", "job", "scheduler", "reader")},
    "tables": _migrations,
    "job": _job,
    "table": _ages,
    "sources": _sources,
    "anomalies": _anomalies,
    "storage pools": disk_pools,
    "figures": _figures,
    "intervals": _intervals,
    "disks": _disks,
    "transactions": _transactions,
}


_WITHOUT_DATABASE = ("broker", "schemas", "registry", "job")
_FOLLOWS: Mapping[str, frozenset[str]] = {
    "broker": frozenset({"topics", "job", "table", "sources"}),
    "database": frozenset({"job"}),
    "job": frozenset({"table", "sources"}),
}
"""For each part, upstream ones first, the checks that fail because it is dead.

What is checked by asking the database is not here: it was not checked, or the database has answered.
"""


def _dsn(settings: Settings, role: str) -> SecretStr:
    dsn: SecretStr = getattr(settings.postgres, f"{role}_dsn")
    return dsn


def _timeout(settings: Settings) -> timedelta:
    return min(settings.postgres.connect_timeout, timedelta(seconds=TIMEOUT_SECONDS))


def _connect(settings: Settings, role: str) -> Any:
    dsn = _dsn(settings, role)
    return connect(
        dsn,
        connect_timeout=_timeout(settings),
        application_name="vacancy doctor",
        read_only=True,
        max_age=settings.scheduler.max_age,
        statement_timeout=timedelta(seconds=TIMEOUT_SECONDS),
    )


def _read(settings: Settings, query: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """A query's rows, with the reader's rights."""
    with (
        closing(_connect(settings, "reader")) as connection,
        connection.cursor() as cursor,
        explained(settings.postgres.reader_dsn),
    ):
        cursor.execute(query, values)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _get_json(url: str, remedy: str) -> Any:
    if not url.startswith(("http://", "https://")):
        raise VacancyError(f"{_without_password(url)} is not an http URL; {remedy}")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # checked above
            return json.load(response)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise VacancyError(f"{_without_password(url)} does not answer: {reason}; {remedy}") from None


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


@click.command("doctor")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array alone.")
def command(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Say what is wrong with a setup, and what to do.

    Each line is "ok" or "!!" with what is wrong and what to do: a part that is dead first, then what follows from it.
    Status 1 if anything is wrong.

    \b
    Example:  vacancy doctor --config /etc/vacancy.toml
    """
    findings: list[Finding] = []
    try:
        settings = load(config, data_dir)
        file = find_config(config, data_dir)
        findings.append(Finding("settings", str(file) if file else "no file: defaults and VACANCY_* variables"))
    except VacancyError as error:
        findings.append(Finding("settings", str(error), "correct the settings (docs/settings.md)"))
    else:
        findings += diagnose(with_remembered(settings, file))
    ordered = by_cause(findings)
    if as_json:
        say_json(
            [finding._asdict() | {"ok": finding.remedy is None, "follows_from": cause} for finding, cause in ordered]
        )
    else:
        for finding, cause in ordered:
            if finding.remedy is None:
                say(f"{finding.check}: {finding.message}", mark=click.style("ok ", "green"))
            else:
                then = f"follows from the {cause}, mend that first" if cause else finding.remedy
                say(f"{finding.check}: {finding.message}: {then}", mark=click.style("!! ", "red"))
    if any(finding.remedy is not None for finding in findings):
        click.get_current_context().exit(1)
