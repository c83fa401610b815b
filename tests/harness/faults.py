"""What can be done to the live system, and how the table goes through it."""

from __future__ import annotations

import math
import os
import signal
import time
from contextlib import closing, suppress

import psycopg2

from tests.harness.live import Live
from tests.harness.table import TABLE_SECONDS
from tests.harness.waiting import wait_until, wait_until_time
from tests.harness.watch import Outage
from vacancy.jobs.flink.rest import explained


def kill_a_task_manager(live: Live) -> None:
    """kill -9 of the one that has most tasks; the cluster's supervisor starts it again."""
    free = {manager["id"]: manager["freeSlots"] for manager in live.cluster.ask("/taskmanagers")["taskmanagers"]}
    min(live.cluster.task_managers, key=lambda member: free.get(member.resource_id, math.inf)).kill()


def kill_the_job_manager(live: Live) -> None:
    """kill -9; the next one goes on by what ZooKeeper knows."""
    live.cluster.job_manager.kill()


def kill_the_broker(live: Live) -> None:
    """kill -9, and a new start."""
    live.broker.child.kill()
    live.broker.start()


def kill_the_database_in_mid_commit(live: Live) -> None:
    """kill -9 of the server and the session of the job that is at its commit, and a new start."""
    live.execute("ALTER SYSTEM SET commit_delay = 100000", "ALTER SYSTEM SET commit_siblings = 0")
    live.execute("SELECT pg_reload_conf()")
    with closing(psycopg2.connect(live.postgres.owner_dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            found: list[int] = []

            def at_its_commit() -> bool:
                # All it does takes less than these 60 ms, but for the commit, which now waits 100 ms.
                cursor.execute(
                    "SELECT pid FROM pg_stat_activity WHERE usename = 'job' AND state = 'active'"
                    " AND backend_xid IS NOT NULL AND clock_timestamp() > query_start + interval '60 ms'"
                )
                found[:] = [pid for (pid,) in cursor.fetchall()]
                return bool(found)

            wait_until(at_its_commit, TABLE_SECONDS, "the job commits nothing")
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            live.postgres.child.kill()
    live.postgres.start()
    live.execute("ALTER SYSTEM RESET commit_delay", "ALTER SYSTEM RESET commit_siblings", "SELECT pg_reload_conf()")


def kill_what_sends(live: Live) -> None:
    """kill -9 of the simulator and of the agent, and a new start."""
    for program in live.programs.values():
        program.kill()
    for program in live.programs.values():
        program.start()


def cut_the_network(live: Live, seconds: float = 30.0) -> None:
    """The network between cluster and database, for so long; nobody is told."""
    live.network.cut()
    wait_until_time(time.monotonic() + seconds)
    live.network.mend()


def fill_the_checkpoint_disk(live: Live) -> None:
    """Until a checkpoint has failed."""
    failed, completed = (live.checkpoints()["counts"][name] for name in ("failed", "completed"))
    assert live.has_small_disk
    filler = live.checkpoints_dir / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1024 * 1024, 4096):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    wait_until(
        lambda: live.checkpoints()["counts"]["failed"] > failed, TABLE_SECONDS, "no checkpoint fails on a full disk"
    )
    filler.unlink()
    wait_until(lambda: live.checkpoints()["counts"]["completed"] > completed, TABLE_SECONDS, "no checkpoint completes")


def revoke_rights(live: Live) -> None:
    """The job's to write the table, until its status says so."""
    restarts = live.status().restarts
    live.execute("REVOKE INSERT, UPDATE ON vacancy.host FROM vacancy_job")

    def told() -> bool:
        status = live.status()
        failure = explained(status.last_failure.message) if status.last_failure else ""
        return status.restarts > restarts and all(
            part in failure for part in ("the database refuses its rows", "permission denied for table host")
        )

    try:
        wait_until(told, TABLE_SECONDS, "the job's status does not say that the database refuses its rows")
    finally:
        live.execute("GRANT INSERT, UPDATE ON vacancy.host TO vacancy_job")


FULL_DISK = "the checkpoint disk full"
FAULTS = {
    "a TaskManager killed": kill_a_task_manager,
    "the JobManager killed": kill_the_job_manager,
    "the broker killed": kill_the_broker,
    "PostgreSQL killed in mid-commit": kill_the_database_in_mid_commit,
    "simulator and agent killed": kill_what_sends,
    "the network to PostgreSQL cut for 30 s": cut_the_network,
    FULL_DISK: fill_the_checkpoint_disk,
    "the job's rights revoked": revoke_rights,
}


def faults_of(live: Live) -> list[str]:
    """The names of those of FAULTS that can be done to this system."""
    return [fault for fault in FAULTS if fault != FULL_DISK or live.has_small_disk]


def go_through(live: Live, fault: str) -> Outage:
    """Does it to the system and waits until that is over: how the table went through it.

    It is over when half of the hosts have rows of what they sent afterwards, fresh ones, and the job has completed a
    checkpoint that it began afterwards.
    """
    live.watch.wait_until_fresh()
    start_s = time.monotonic()
    FAULTS[fault](live)
    over_ms = time.time() * 1000

    live.watch.wait_for(lambda look: look.median_ms > over_ms)
    live.wait_for_checkpoint(over_ms)
    live.watch.wait_until_fresh()
    return live.watch.since(start_s)
