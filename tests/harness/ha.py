"""The system without a single point of failure, as in production, on this machine.

Three brokers (KRaft, three replicas, two of them in sync to acknowledge), a PostgreSQL primary with a synchronous
standby, two JobManagers with ZooKeeper, two TaskManagers; a simulated fleet, an agent and claimers, with the connection
strings of production: all brokers, both servers::

    simulator, agent, witnesses -> brokers 1, 2, 3 -> TaskManagers -> primary => standby <- claimers
                                                      JobManagers, ZooKeeper

    python -m tests.harness.ha                    # starts it, says how to reach it, ends it with Ctrl-C
    python -m tests.faults.ha_faults --times 5    # hurts it
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import psutil
import psycopg2
from psycopg2.extensions import make_dsn
from pydantic import SecretStr

from tests.harness.claimers import Claimers
from tests.harness.cluster import FlinkCluster, Member
from tests.harness.installation import install
from tests.harness.live import PASSWORD, Live
from tests.harness.process import with_descendants
from tests.harness.servers import reachable_directory
from tests.harness.table import open_table
from tests.harness.topic import Topic, own_topics
from tests.harness.waiting import wait_until
from tests.harness.watch import Watch
from tests.harness.witnesses import Witnesses
from vacancy.jobs import ports
from vacancy.jobs.flink.rest import FlinkRest
from vacancy.jobs.jars import ensure_jars
from vacancy.jobs.local import settings_file
from vacancy.jobs.local.kafka_server import START_SECONDS, KafkaServer
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.jobs.local.processes import Child, ServerUser

CLUSTER_ID = "VacancyHighAvailab0000"
GROUPS = range(60_001, 60_009)
"""Of the servers whose packets can be dropped: a process group id for each, by which the packets are known."""
SYNCED_SECONDS = 60.0
KEEP_MS = 180_000
"""What is compared reaches back over the longest outage: a step begins before it."""


class Broker(KafkaServer):
    """One of several brokers, all of which are controllers as well."""

    def __init__(self, directory: Path, number: int, controllers: list[int], group: int, jars: list[Path]) -> None:
        super().__init__(directory, 0, jars)
        self.number, self.group = number, group
        self.ports = [self.port, controllers[number - 1]]
        self.child = self._child("Kafka", "kafka.Kafka", directory / "server.properties")
        self._properties |= {
            "node.id": number,
            "controller.quorum.voters": ",".join(
                f"{index}@{ports.HOST}:{port}" for index, port in enumerate(controllers, start=1)
            ),
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{ports.HOST}:{controllers[number - 1]}",
            "offsets.topic.replication.factor": 3,
            "transaction.state.log.replication.factor": 3,
            "transaction.state.log.min.isr": 2,
            # A broker that is gone gives its partitions away after so long; the default is 9 s.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            "controller.quorum.election.timeout.ms": 500,
            "controller.quorum.fetch.timeout.ms": 1500,
            # A follower that does not follow holds up acknowledgements for so long; the default is 30 s.
            "replica.lag.time.max.ms": 3000,
            "num.network.threads": 2,
            "num.io.threads": 4,
        }

    def _child(self, name: str, main_class: str, *arguments: str | Path) -> Child:
        child = super()._child(name, main_class, *arguments)
        child._user = ServerUser("root", os.getuid(), getattr(self, "group", os.getgid()))
        child._arguments = ["-Xmx320m" if argument == "-Xmx512m" else argument for argument in child._arguments]
        return child

    def _format(self, data: Path) -> None:
        """With the identity that all of them share."""
        properties = self.directory / "format.properties"
        self._write_properties(properties, data)
        arguments: list[str | Path] = ["format", "--cluster-id", CLUSTER_ID, "--config", properties]
        self._child("Kafka's storage tool", "kafka.tools.StorageTool", *arguments).run(START_SECONDS)


class Pair:
    """A primary and a synchronous standby; what an operator's Patroni does to them."""

    def __init__(self, stack: ExitStack) -> None:
        self.servers: list[PostgresServer] = []
        for group in GROUPS[3:5]:
            directory = reachable_directory()
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            server = PostgresServer(directory)
            if server._user:
                server._user = server._user._replace(gid=group)
                os.chown(directory, server._user.uid, group)
            self.servers.append(server)
            stack.callback(server.stop)
        self.primary, self.standby = self.servers
        self.primary.start()
        self._copy()
        self.standby.start()
        self.be_synchronous()

    def group_of(self, server: PostgresServer) -> int:
        """The group by which a server's packets are known."""
        return GROUPS[3 + self.servers.index(server)]

    def dsn(self, user: str | None = None, password: str | None = None) -> str:
        """A connection string with both servers."""
        who = {"user": user, "password": password} if user else {}
        return str(
            make_dsn(
                self.servers[0].owner_dsn,
                host=",".join(server.host for server in self.servers),
                port=",".join(str(server.port) for server in self.servers),
                **who,
            )
        )

    def execute(self, server: PostgresServer, *statements: str) -> list[tuple[object, ...]]:
        """Runs statements at one of them, each in a transaction of its own; the last one's rows."""
        with closing(psycopg2.connect(server.owner_dsn, connect_timeout=10)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []

    def be_synchronous(self) -> None:
        """From now on a commit is on both servers before it is acknowledged; waits until they are as one."""
        names = "ALTER SYSTEM SET synchronous_standby_names = '*'"
        self.execute(self.primary, names, "SELECT pg_reload_conf()")
        wait_until(
            lambda: self.execute(self.primary, "SELECT sync_state FROM pg_stat_replication") == [("sync",)],
            SYNCED_SECONDS,
            "the standby does not follow",
        )

    def promote(self) -> None:
        """Makes the standby the primary; the former one must be down. It acknowledges alone until it has a standby."""
        names = "ALTER SYSTEM SET synchronous_standby_names = ''"
        self.execute(self.standby, names, "SELECT pg_reload_conf()", "SELECT pg_promote(true, 60)")
        self.primary, self.standby = self.standby, self.primary

    def rejoin(self) -> None:
        """Makes the former primary, which is down, the standby of the present one."""
        cluster = (self.standby.directory / "cluster").resolve()
        shutil.rmtree(cluster)
        self._copy()
        self.standby.start()
        self.be_synchronous()

    def switch_over(self) -> None:
        """The servers change their parts in good order; nothing is lost, and nobody is asked."""
        self.primary.stop()
        self.promote()
        self.rejoin()

    def _copy(self) -> None:
        """Makes the standby's data, with pg_basebackup."""
        cluster = self.standby.directory / "cluster"
        cluster = cluster.resolve() if cluster.is_symlink() else cluster
        shutil.copy(self.primary.directory / "superuser-password", self.standby.directory)
        user = self.standby._user
        subprocess.run(
            [
                *(self.primary._reachable_binaries() / "pg_basebackup", "--dbname", self.primary.owner_dsn),
                *("--pgdata", cluster, "--write-recovery-conf", "--checkpoint", "fast"),
            ],
            check=True,
            timeout=SYNCED_SECONDS,
            cwd="/",
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
        with (cluster / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            file.write("synchronous_standby_names = ''\n")
            # A standby that has lost its primary is promoted after so long at most; the default is 5 s.
            file.write("wal_retrieve_retry_interval = '500ms'\n")


@contextmanager
def silence(group: int, of_ports: list[int]) -> Iterator[None]:
    """Drops every packet to and from a server while the context lasts: nobody is told."""
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    assert program, "dropping packets takes nftables"
    table = f"vacancy_ha_{group}"
    places = ", ".join(map(str, of_ports))
    rules = f"""
table inet {table} {{
  chain out {{
    type filter hook output priority -300;
    meta skgid {group} drop
    tcp sport {{ {places} }} drop
    tcp dport {{ {places} }} drop
  }}
}}
"""
    subprocess.run([program, "-f", "-"], input=rules, text=True, check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run([program, "delete", "table", "inet", table], check=True, timeout=30)


class HighlyAvailable(Live):
    """The system; a context manager that leaves nothing running.

    Args:
        hosts: of the simulated fleet.
        claimers: how many claim at a time.
    """

    def __init__(self, hosts: int, claimers: int, window: timedelta = timedelta(seconds=10)) -> None:
        super().__init__(hosts, poison_per_s=1, window=window)
        self._claimers = claimers

    def _start(self, stack: ExitStack) -> None:
        self.directory = reachable_directory()
        stack.callback(shutil.rmtree, self.directory)
        self.checkpoints_dir = self.directory / "checkpoints"
        jars = ensure_jars("kafka")
        controllers = [ports.free_port() for _ in range(3)]
        self.brokers = [
            Broker(self.directory / f"kafka-{number}", number, controllers, GROUPS[number - 1], list(jars))
            for number in (1, 2, 3)
        ]
        for broker in self.brokers:
            stack.callback(broker.stop)
            broker.spawn()
        for broker in self.brokers:
            broker.child.wait_until(broker.is_ready, 2 * START_SECONDS)
        wait_until(lambda: self.brokers_seen() == 3, START_SECONDS, "the brokers do not find each other")
        self.pair = Pair(stack)
        self.cluster = stack.enter_context(
            FlinkCluster(jars=True, high_availability=True, job_managers=2, configuration=FLINK)
        )
        stack.enter_context(self.cluster.supervised())
        self._install()
        self.programs = {
            "simulator": self._program("simulate", "--hosts", str(self.hosts), "--interval", "1s"),
            "agent": self._program("agent"),
        }
        for program in self.programs.values():
            stack.enter_context(program)
        self.command_lines = self._submit()
        self.flink = FlinkRest(self.cluster.url)
        self.topic = stack.enter_context(closing(Topic(self.settings.kafka, KEEP_MS)))
        self.witnesses = stack.enter_context(Witnesses(self.settings.kafka, self._poison_per_s))
        # The primary alone: a standby's rows are a moment older, and so would seem to go back.
        primary = SecretStr(make_dsn(self.pair.dsn(), target_session_attrs="read-write", tcp_user_timeout="5000"))
        self.table = stack.enter_context(open_table(primary))
        self.watch = stack.enter_context(Watch(primary))
        self.watch.wait_until_fresh(self.hosts)
        self.claims = stack.enter_context(Claimers(self.settings, self._claimers))

    def _install(self) -> None:
        job = {
            "name": "vacancy",
            "window": self._window,
            "checkpoint_interval": "5 s",
            "flink_url": self.cluster.url,
            "ship": False,
        }
        servers = ",".join(broker.bootstrap_servers for broker in self.brokers)
        kafka = own_topics(servers, partitions=3).model_copy(update={"replication_factor": 3})
        settings = install(self.directory, kafka, self.pair.dsn(), job)
        self.pair.execute(
            self.pair.primary,
            f"CREATE ROLE job LOGIN PASSWORD '{PASSWORD}' IN ROLE vacancy_job",
            f"CREATE ROLE scheduler LOGIN PASSWORD '{PASSWORD}' IN ROLE vacancy_scheduler",
        )
        update = {
            "postgres": settings.postgres.model_copy(
                update={
                    "job_dsn": SecretStr(self.pair.dsn("job", PASSWORD)),
                    "scheduler_dsn": SecretStr(self.pair.dsn("scheduler", PASSWORD)),
                }
            )
        }
        self.settings = settings.model_copy(update=update)
        self.config.write_text(settings_file.dumps(self.settings), encoding="utf-8")

    def brokers_seen(self) -> int:
        """How many brokers know each other."""
        from confluent_kafka.admin import AdminClient

        client = AdminClient({"bootstrap.servers": self.brokers[0].bootstrap_servers, "log_level": 0})
        return len(client.list_topics(timeout=10).brokers)

    def leader(self, partition: int = 0) -> Broker:
        """The broker that leads a partition of the usage topic."""
        from confluent_kafka.admin import AdminClient

        client = AdminClient({"bootstrap.servers": self.settings.kafka.bootstrap_servers, "log_level": 0})
        topic = self.settings.kafka.usage_topic
        leader = client.list_topics(topic, timeout=20).topics[topic].partitions[partition].leader
        return self.brokers[leader - 1]

    def in_sync(self) -> bool:
        """Whether every replica of the topics follows."""
        from confluent_kafka.admin import AdminClient

        client = AdminClient({"bootstrap.servers": self.settings.kafka.bootstrap_servers, "log_level": 0})
        topics = client.list_topics(timeout=20).topics
        return all(len(partition.isrs) == 3 for topic in topics.values() for partition in topic.partitions.values())

    def job_manager_that_leads(self) -> int:
        """The index of the JobManager whose dispatcher leads."""
        logs = [member.output.read_text(errors="replace") for member in self.cluster.job_managers]
        granted = [
            max(re.findall(r"^(\S+ \S+) .* was granted leadership", log, re.MULTILINE), default="") for log in logs
        ]
        return granted.index(max(granted))

    def checkpoints(self) -> dict[str, Any]:
        """What the JobManager that leads says of the job's checkpoints."""
        url = self.cluster.urls[self.job_manager_that_leads()]
        (job,) = self.cluster.ask("/jobs/overview", url)["jobs"]
        answer: dict[str, Any] = self.cluster.ask(f"/jobs/{job['jid']}/checkpoints", url)
        return answer

    def task_manager_that_works(self) -> Member:
        """A TaskManager that has some of the job's tasks."""
        for url in self.cluster.urls:
            with suppress(OSError, ValueError):
                told = self.cluster.ask("/taskmanagers", url)["taskmanagers"]
                busy = {one["id"] for one in told if one["freeSlots"] < one["slotsNumber"]}
                return next(member for member in self.cluster.task_managers if member.resource_id in busy)
        raise AssertionError("no JobManager says where the tasks are")

    def restarted(self, after_s: float) -> bool:
        """Whether the job runs and began to do so after a time of time.monotonic(), by any JobManager."""
        after_ms = (time.time() - time.monotonic() + after_s) * 1000
        for url in self.cluster.urls:
            with suppress(OSError, ValueError):
                (job,) = self.cluster.ask("/jobs/overview", url)["jobs"]
                if job["state"] == "RUNNING" and job["last-modification"] > after_ms:
                    return True
        return False

    def log_files(self) -> list[Path]:
        """What its servers and programs say."""
        servers = [*(broker.child.log for broker in self.brokers), *(server.child.log for server in self.pair.servers)]
        programs = [program.log for program in self.programs.values()]
        return [log for log in [*self.cluster.logs.iterdir(), *servers, *programs] if log.is_file()]

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Its living processes, by what they are."""
        found = {member.name: member.pid for member in self.cluster.members}
        found |= {name: program.pid for name, program in self.programs.items() if not program.ended}
        found |= {f"broker {broker.number}": broker.child.pid or 0 for broker in self.brokers}
        found |= {f"PostgreSQL {index}": server.child.pid or 0 for index, server in enumerate(self.pair.servers)}
        return {name: alive for name, pid in found.items() if pid and (alive := with_descendants(pid))}


FLINK = {
    # A JobManager or TaskManager that is gone is found out after so long ...
    "heartbeat.interval": "500 ms",
    "heartbeat.timeout": "5 s",
    "high-availability.zookeeper.client.session-timeout": "3 s",
    "high-availability.zookeeper.client.connection-timeout": "2 s",
    "high-availability.zookeeper.client.retry-wait": "500 ms",
    # ... and what fails starts again at once.
    "restart-strategy.exponential-delay.initial-backoff": "200 ms",
    "jobmanager.memory.process.size": "768m",
    "taskmanager.memory.process.size": "1280m",
    "taskmanager.memory.managed.size": "64m",
    "taskmanager.memory.jvm-metaspace.size": "320m",
}


@click.command()
@click.option("--hosts", type=click.IntRange(min=1), default=200, show_default=True, help="At 1 Hz.")
@click.option("--claimers", type=click.IntRange(min=1), default=4, show_default=True)
def main(hosts: int, claimers: int) -> None:
    """Start a system without a single point of failure on this machine, until Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stopped.set())
    with HighlyAvailable(hosts, claimers) as live:
        print(f"brokers     {live.settings.kafka.bootstrap_servers}")
        print(f"PostgreSQL  {' '.join(server.owner_dsn for server in live.pair.servers)}")
        print(f"Flink       {live.cluster.url}")
        print(f"settings    {live.config}")
        for name, processes in live.processes().items():
            print(f"{name:<16} {' '.join(str(process.pid) for process in processes)}")
        print(f"look        {sys.executable} -m vacancy hosts --watch --config {live.config}", flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
