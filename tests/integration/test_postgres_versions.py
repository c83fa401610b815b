"""The tables, functions and views on each PostgreSQL that is here, besides the local stack's.

These are Debian's, and those whose directories of binaries ``VACANCY_TEST_POSTGRES`` names, separated by colons.
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest
from pydantic import SecretStr

from tests.harness.rows import add_roomy_host, query
from tests.harness.servers import reachable_directory
from vacancy.connectors.nova.table import Table
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import NoHostFitsError
from vacancy.connectors.scheduler.bulk import PART
from vacancy.connectors.scheduler.ranking import Amount
from vacancy.connectors.scheduler.request import Numa, Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.commands import doctor
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.jobs.settings import load_settings

OTHERS = [Path(name) for name in os.environ.get("VACANCY_TEST_POSTGRES", "").split(":") if name]
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin")) + OTHERS


@pytest.mark.parametrize("binaries", BINARIES, ids=str)
def test_everything_that_is_asked_of_the_server_works(binaries: Path) -> None:
    directory = reachable_directory()
    server = PostgresServer(directory, binaries=binaries)
    try:
        server.start()
        dsn = server.owner_dsn
        assert migrate(SecretStr(dsn))
        assert not migrate(SecretStr(dsn))
        with closing(psycopg2.connect(dsn)) as owner:
            owner.autocommit = True
            for number in range(5):
                add_roomy_host(owner, f"host-{number}")
            for (view,) in query(owner, "SELECT viewname::text FROM pg_views WHERE schemaname = 'vacancy'"):
                query(owner, f"SELECT * FROM vacancy.{view}")
        with (
            closing(Scheduler(dsn, SchedulerSettings(max_age=timedelta(hours=1)))) as scheduler,
            closing(Table(dsn, 5.0)) as table,
        ):
            (claim,) = scheduler.claim(Request(vcpus=1))
            assert scheduler.claim(Request(vcpus=1), [claim.consumer])[0].already
            assert len(scheduler.claim(Request(vcpus=1), count=2 * PART + 1)) == 2 * PART + 1
            with pytest.raises(NoHostFitsError):
                scheduler.claim(Request(vcpus=1, numa=Numa(cpus=4)))
            assert len(scheduler.hosts()) == 5
            assert scheduler.candidates(Request(vcpus=1))
            assert scheduler.release(claim.consumer) == [claim.consumer]
            assert table.read(["id-host-1"])
            table.note(str(uuid.uuid4()), "id-host-1", Amount(4, 8192), 60)
            assert table.read(["id-host-1"])["id-host-1"].vcpus_claimed
        settings = load_settings(None, {"postgres": {f"{role}_dsn": dsn for role in ("owner", "reader")}})
        for check in (doctor._transactions, doctor._migrations, doctor._ages, doctor._sources, doctor._anomalies):
            assert [finding.message for finding in check(settings) if finding.remedy] == []
    finally:
        server.stop()
        shutil.rmtree(directory)
