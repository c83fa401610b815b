"""Kafka and PostgreSQL over TLS, by the users, rights and roles of docs/security.md; who is wrong is refused in a line.

Where no PostgreSQL with TLS is installed the tests that need one are skipped, unless VACANCY_TEST_REQUIRE_TLS is set.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.harness.agent import what_an_agent_says
from tests.harness.installation import config_file
from tests.harness.job import Job
from tests.harness.process import Ended, Process, group, own_environment, vacancy
from tests.harness.secure import HOST, OTHER_MECHANISM_USER, Broker, Database, blocks, running_broker, running_database
from tests.harness.secure import tls_binaries as find_tls_binaries
from tests.harness.tls import Authority
from tests.harness.waiting import wait_until
from vacancy.connectors.kafka.client import Right, ensure_topics, topic_problems
from vacancy.connectors.postgres.connection import connect, dial
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.settings import KafkaSettings, PostgresSettings
from vacancy.jobs import ports
from vacancy.jobs.local import settings_file
from vacancy.jobs.settings import LocalSettings, Settings, load_settings
from vacancy.schemas.errors import VacancyError
from vacancy.topology.settings import JobSettings

TIMEOUT = timedelta(seconds=5)
WRITE_EVENTS: dict[str, Right] = {"vacancy.usage": "WRITE", "vacancy.inventory": "WRITE"}
HOSTS = 3
KEY_PASSWORD = "hush-of-the-key"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The one that signs everything that is right."""
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("tls-of-a-stranger"))


@pytest.fixture(scope="module")
def broker(authority: Authority) -> Iterator[Broker]:
    with running_broker(authority) as broker:
        yield broker


@pytest.fixture(scope="module")
def database(authority: Authority) -> Iterator[Database]:
    binaries = find_tls_binaries()
    if binaries is None:
        assert "VACANCY_TEST_REQUIRE_TLS" not in os.environ, "no PostgreSQL with TLS: apt-get install postgresql"
        pytest.skip("no PostgreSQL with TLS below /usr/lib/postgresql; install postgresql, or run ./test.sh as root")
    with running_database(authority, binaries) as database:
        migrate(SecretStr(database.dsn("vacancy_owner")))
        yield database


def test_the_settings_of_the_page_are_settings(tmp_path: Path) -> None:
    pages = blocks("toml")
    assert len(pages) >= 3
    for page in pages:
        file = tmp_path / "page.toml"
        file.write_text(page, encoding="utf-8")
        load_settings(file)
        tomllib.loads(page)


def test_each_user_may_what_the_page_says_and_no_more(broker: Broker, authority: Authority) -> None:
    agent, job, tools = (broker.by_password(f"vacancy-{name}") for name in ("agent", "job", "tools"))
    job_rights: dict[str, Right] = {
        "vacancy.usage": "READ",
        "vacancy.inventory": "READ",
        "vacancy.dead-letters": "WRITE",
    }
    assert ensure_topics(agent, WRITE_EVENTS) == []
    assert ensure_topics(job, job_rights) == []
    assert topic_problems(tools) == []
    by_certificate = broker.by_certificate(authority.issue("agent", common_name="vacancy-agent"))
    assert ensure_topics(by_certificate, WRITE_EVENTS) == []

    forbidden: list[tuple[KafkaSettings, dict[str, Right], str]] = [
        (agent, {"vacancy.usage": "READ"}, "vacancy-agent Read on topic vacancy.usage"),
        (agent, {"vacancy.dead-letters": "WRITE"}, "vacancy-agent Describe on topic vacancy.dead-letters"),
        (job, WRITE_EVENTS, "vacancy-job Write on topic vacancy."),
        (job, {"vacancy.dead-letters": "READ"}, "vacancy-job Read on topic vacancy.dead-letters"),
        (tools, WRITE_EVENTS, "vacancy-tools Write on topic vacancy."),
    ]
    for settings, rights, what in forbidden:
        with pytest.raises(VacancyError, match=rf"does not allow {what}.*; grant it \(docs/security\.md\)"):
            ensure_topics(settings, rights)


def test_who_may_not_create_a_missing_topic_is_told_so(broker: Broker) -> None:
    settings = broker.by_password("vacancy-tools").model_copy(update={"usage_topic": "vacancy.not-there"})
    with pytest.raises(VacancyError, match=r"does not allow vacancy-tools Describe on topic vacancy\.not-there"):
        ensure_topics(settings)


def test_who_is_wrong_for_the_broker_is_told_what_to_mend(
    broker: Broker, authority: Authority, stranger: Authority
) -> None:
    user = "vacancy-agent"
    right = authority.issue("right", common_name=user)
    plain: dict[str, Any] = {
        "protocol": "PLAINTEXT",
        "mechanism": None,
        "username": None,
        "password": None,
        "ca_file": None,
    }
    tls = plain | {"protocol": "SSL", "ca_file": authority.file}
    wrong: dict[str, tuple[KafkaSettings, str]] = {
        "password": (broker.by_password(user, password="no"), "kafka.security.username and password"),
        "user": (broker.by_password(user, username="nobody"), "kafka.security.username and password"),
        "mechanism": (broker.by_password(user, mechanism="PLAIN"), "kafka.security.mechanism"),
        "mechanism of another user": (
            broker.by_password(user, mechanism="SCRAM-SHA-256"),
            "kafka.security.username and password",
        ),
        "authority": (broker.by_password(user, ca_file=stranger.file), "kafka.security.ca_file"),
        "authority, by certificate": (broker.by_certificate(right, ca_file=stranger.file), "kafka.security.ca_file"),
        "host name": (
            broker.by_password(user, bootstrap_servers=broker.place("SASL_SSL", "127.0.0.1")),
            "name the brokers in kafka.bootstrap_servers as their certificates do",
        ),
        "expired broker": (broker.by_certificate(right, "EXPIRED"), "have the broker's certificate renewed"),
        "no certificate": (broker.by_certificate(None), "kafka.security.certificate_file and key_file"),
        "certificate of a stranger": (
            broker.by_certificate(stranger.issue("right", common_name=user)),
            "kafka.security.certificate_file and key_file",
        ),
        "expired certificate": (
            broker.by_certificate(authority.issue("expired", common_name=user, expired=True)),
            "kafka.security.certificate_file and key_file",
        ),
    }
    no_listener = broker.by_password(user, **tls, bootstrap_servers=broker.server.bootstrap_servers)
    wrong["TLS where there is none"] = (no_listener, "correct kafka.security.protocol")
    # The broker waits for more.
    wrong["no TLS"] = (broker.by_password(user, **plain), "")
    messages = in_parallel(
        {what: partial(ensure_topics, settings, WRITE_EVENTS, 5) for what, (settings, _) in wrong.items()}
    )
    for what, (settings, remedy) in wrong.items():
        who = settings.security.username or "this client"
        right_start = f"Kafka at {settings.bootstrap_servers} cannot be used by {who}: "
        if not remedy:
            right_start = f"no Kafka broker answers at {settings.bootstrap_servers} within 5 s: "
        assert messages[what].startswith(right_start), messages[what]
        assert messages[what].endswith(remedy or "or set kafka.bootstrap_servers and kafka.security"), messages[what]
    assert not [text for text in messages.values() if "\n" in text]


def in_parallel(calls: dict[str, Callable[[], object]]) -> dict[str, str]:
    """What each call fails with; all at once, since what they do is wait."""

    def fail(call: Callable[[], object]) -> str:
        with pytest.raises(VacancyError) as caught:
            call()
        return str(caught.value)

    with ThreadPoolExecutor(len(calls)) as pool:
        return dict(zip(calls, pool.map(fail, calls.values()), strict=True))


def test_both_mechanisms_and_an_encrypted_key_are_taken(broker: Broker, authority: Authority) -> None:
    other = broker.by_password(OTHER_MECHANISM_USER, mechanism="SCRAM-SHA-256")
    encrypted = authority.issue("encrypted", common_name=OTHER_MECHANISM_USER, key_password=KEY_PASSWORD)
    by_certificate = broker.by_certificate(encrypted, key_password=KEY_PASSWORD)
    # Let in, but without any right.
    for settings in (other, by_certificate):
        with pytest.raises(VacancyError, match=r"does not allow .* Describe on topic vacancy\."):
            ensure_topics(settings, WRITE_EVENTS)


def write_settings(directory: Path, kafka: KafkaSettings, postgres: dict[str, str] | None = None) -> Settings:
    """Writes ``vacancy.toml``, with a checkpoint a second."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = Settings().model_copy(
        update={
            "kafka": kafka,
            "postgres": PostgresSettings(**{key: SecretStr(dsn) for key, dsn in (postgres or {}).items()}),
            "job": JobSettings(
                checkpoint_dir=(directory / "checkpoints").as_uri(), checkpoint_interval=timedelta(seconds=1)
            ),
            "local": LocalSettings(flink_port=ports.free_port()),
        }
    )
    config_file(directory).write_text(settings_file.dumps(settings), encoding="utf-8")
    return settings


def test_the_commands_say_it_in_a_line(broker: Broker, tmp_path: Path) -> None:
    """A wrong password, and a user without the right."""
    wrong_password = (
        r"Kafka at \S+ cannot be used by vacancy-agent: .*; correct kafka\.security\.username and password$"
    )
    cases = {
        "dead-letters": ("password", wrong_password),
        "job run": ("password", wrong_password),
        "simulate --hosts 1": ("password", wrong_password),
        "doctor": ("password", wrong_password),
        "dead-letters ": (
            "agent",
            r"Kafka at \S+ cannot be used by vacancy-agent: .*[Aa]uthorization failed.*; grant ",
        ),
        "job run ": (
            "agent",
            r"does not allow vacancy-agent (Read|Describe) on topic \S+; grant it \(docs/security\.md\)",
        ),
        "simulate --hosts 1 ": (
            "job",
            r"does not allow vacancy-job Write on topic \S+; grant it \(docs/security\.md\)",
        ),
    }
    write_settings(tmp_path / "password", broker.by_password("vacancy-agent", password="hush"))
    write_settings(tmp_path / "agent", broker.by_password("vacancy-agent"))
    write_settings(tmp_path / "job", broker.by_password("vacancy-job"))
    with ThreadPoolExecutor(len(cases)) as pool:
        results = pool.map(lambda case: Ended(tmp_path / case[1][0], *case[0].split()), cases.items())
        for (command, (_, message)), ended in zip(cases.items(), results, strict=True):
            assert ended.status == 1, command
            if command == "doctor":
                (line,) = [line for line in ended.output.splitlines() if line.startswith("!! broker: ")]
                assert re.search(message.replace("; ", ": "), line), line
            else:
                assert re.search(message, ended.error()), ended.error()
            assert "hush" not in ended.output + ended.errors


@pytest.mark.parametrize(
    ("user", "changes", "message"),
    [
        ("vacancy-agent", {"password": "hush"}, r"; correct kafka\.security\.username and password; keeping"),
        (
            "vacancy-job",
            {},
            r"[Aa]uthorization failed; grant this client its rights \(docs/security\.md\), .*; keeping",
        ),
    ],
)
def test_the_agent_says_it_once_and_goes_on(
    broker: Broker, tmp_path: Path, user: str, changes: dict[str, Any], message: str
) -> None:
    write_settings(tmp_path, broker.by_password(user, **changes))
    lines, rest = what_an_agent_says(tmp_path, "--interval", "100ms")
    assert re.search(rf"topic vacancy.usage at \S+ takes no events: .*{message}", "".join(lines)), lines
    assert len(rest.splitlines()) == 1, rest
    assert "hush" not in "".join(lines) + rest


def test_who_is_wrong_for_the_database_is_told_what_to_mend(
    database: Database, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    job = authority.issue("db-job", common_name="job")
    certificate = "correct sslcert and sslkey in the dsn"
    wrong = {
        "password": (database.dsn("reader", password="hush"), "check the user and the password in the dsn"),
        "authority": (
            database.dsn("reader", sslrootcert=stranger.file),
            "or name the authorities that sign it as sslrootcert",
        ),
        "no authority": (
            database.dsn("reader", sslrootcert=tmp_path / "none.pem"),
            "name the file of the authorities that sign the server's as sslrootcert in the dsn",
        ),
        "host name": (database.dsn("reader", host="127.0.0.1"), "name the server in the dsn as its certificate does"),
        "no TLS": (database.dsn("reader", sslmode="disable"), "pg_hba.conf"),
        "no certificate": (database.dsn("job", password="hush"), certificate),
        "certificate of another": (database.dsn("job", authority.issue("eve", common_name="eve")), certificate),
        "certificate of a stranger": (database.dsn("job", stranger.issue("db-job", common_name="job")), certificate),
        "expired certificate": (
            database.dsn("job", authority.issue("db-old", common_name="job", expired=True)),
            certificate,
        ),
        "no key": (database.dsn("job", job, sslkey=tmp_path / "none.key"), certificate),
    }
    messages = in_parallel(
        {
            what: partial(dial, SecretStr(dsn), connect_timeout=TIMEOUT, application_name="test")
            for what, (dsn, _) in wrong.items()
        }
    )
    for what, (_, remedy) in wrong.items():
        assert messages[what].startswith("PostgreSQL at "), what
        assert messages[what].endswith(remedy), messages[what]
        assert "hush" not in messages[what]
        assert "\n" not in messages[what]


def test_a_server_whose_certificate_has_expired_is_refused(database: Database, authority: Authority) -> None:
    database.server.stop()
    database.show(authority.issue("db-expired", HOST, expired=True))
    database.server.start()
    try:
        with pytest.raises(VacancyError, match="certificate verify failed; have the server's certificate renewed"):
            dial(SecretStr(database.dsn("reader")), connect_timeout=TIMEOUT, application_name="test")
    finally:
        database.server.stop()
        database.show(authority.issue("server", HOST))
        database.server.start()


def test_a_server_without_tls_is_refused(postgres_server: Any) -> None:
    dsn = f"{postgres_server.owner_dsn}?sslmode=require"
    with pytest.raises(VacancyError, match=r"does not support SSL.*; turn ssl on in the server's postgresql\.conf"):
        dial(SecretStr(dsn), connect_timeout=TIMEOUT, application_name="test")


def test_a_job_whose_role_lacks_a_right_does_not_start(broker: Broker, database: Database, tmp_path: Path) -> None:
    write_settings(tmp_path, broker.by_password("vacancy-job"), {"job_dsn": database.dsn("scheduler")})
    ended = Ended(tmp_path, "job", "run")
    assert ended.status == 1
    assert re.search(
        r"as scheduler: may not SELECT vacancy\.host, INSERT vacancy\.host, .*; GRANT vacancy_job TO scheduler \(",
        ended.error(),
    )


@pytest.fixture
def installation(broker: Broker, database: Database, authority: Authority, tmp_path: Path) -> Settings:
    """The job's settings: a password for Kafka, a certificate for PostgreSQL."""
    identity = authority.issue("pg-job", common_name="job")
    dsns = {f"{role}_dsn": database.dsn(role) for role in ("scheduler", "reader")}
    dsns |= {"owner_dsn": database.dsn("vacancy_owner"), "job_dsn": database.dsn("job", identity)}
    return write_settings(tmp_path, broker.by_password("vacancy-job"), dsns)


@pytest.mark.timeout(400)
def test_the_whole_path_and_no_secret_anywhere(
    installation: Settings, broker: Broker, database: Database, authority: Authority, tmp_path: Path
) -> None:
    """Agents with certificates and with passwords, to the broker, to the job, to the database, to a reader."""
    write_settings(tmp_path / "simulate", broker.by_password("vacancy-agent"))
    write_settings(tmp_path / "agent", broker.by_certificate(authority.issue("agent", common_name="vacancy-agent")))
    ended = Ended(tmp_path / "simulate", "simulate", "--hosts", str(HOSTS), "--for", "2")
    assert ended.status == 0, ended.errors
    identity = authority.issue("sink", common_name="vacancy-job")
    private = [
        *broker.passwords.values(),
        *database.passwords.values(),
        *(
            line
            for key in tmp_path.parent.glob("**/*.key")
            for line in key.read_text(encoding="ascii").splitlines()[1:3]
        ),
    ]

    with Job(tmp_path) as job, running_agent(tmp_path / "agent"):
        job.wait_until_ready()
        wait_for_rows(database.dsn("reader"), HOSTS + 1)
        job.wait_for_checkpoint()
        shown = "\n".join(word for process in group(job.process.pid) for word in process.cmdline())
        shown += all_rest_answers(installation.local.flink_port) + job.output
        job.stop()
    shown += "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "logs").iterdir())
    assert_none_of(private, shown)

    # The other way round: a certificate for Kafka, and a password for PostgreSQL.
    with closing(
        connect(
            SecretStr(database.dsn("vacancy_owner")), connect_timeout=TIMEOUT, application_name="test", read_only=False
        )
    ) as owner:
        with owner.cursor() as cursor:
            cursor.execute("DELETE FROM vacancy.host; DELETE FROM vacancy.host_inventory")
        owner.commit()
    other = tmp_path / "other"
    write_settings(
        other,
        broker.by_certificate(identity),
        {"job_dsn": database.dsn("job_by_password")},
    )
    result = subprocess.run(
        [sys.executable, "-m", "tests.integration.bounded_job", config_file(other)],
        env=own_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    assert len(hosts(tmp_path)) == HOSTS + 1
    assert re.search(r"^[1-9]\d* views, tables left to show: \[\]$", result.stdout, re.MULTILINE), result.stdout
    assert "Sink(table=" in result.stdout
    shown = result.stdout + result.stderr
    shown += "".join(file.read_text(encoding="utf-8") for file in (other / "logs").iterdir())
    assert "ssl.keystore.key = [hidden]" in shown
    assert_none_of(private, shown)

    # What a person looks with.
    impatient = installation.scheduler.model_copy(update={"max_age": timedelta(seconds=2)})
    tools = installation.model_copy(update={"kafka": broker.by_password("vacancy-tools"), "scheduler": impatient})
    config_file(tmp_path).write_text(settings_file.dumps(tools), encoding="utf-8")
    assert json.loads(Ended(tmp_path, "dead-letters", "--json").output) == []
    doctor = Ended(tmp_path, "doctor")
    wrong = [line for line in doctor.output.splitlines() if line.startswith("!! ")]
    # Job, agent and simulator have ended.
    assert [line.split(":")[0] for line in wrong] == ["!! job", "!! table", "!! sources", "!! sources"], doctor.output
    assert_none_of(private, doctor.output)


@contextmanager
def running_agent(directory: Path) -> Iterator[None]:
    """An agent, for as long as the context lasts."""
    with Process(vacancy("agent", "--host-id", "an-agent"), directory, directory / "agent.log") as agent:
        yield
        agent.stop()


def hosts(directory: Path) -> list[dict[str, Any]]:
    """The table, as a reader sees it."""
    ended = Ended(directory, "hosts", "--json")
    assert ended.status == 0, ended.errors
    rows: list[dict[str, Any]] = json.loads(ended.output)
    return [row for row in rows if row["age"] is not None]


def wait_for_rows(dsn: str, count: int) -> None:
    """Waits until so many hosts have a row."""

    def rows() -> int:
        connection = connect(SecretStr(dsn), connect_timeout=TIMEOUT, application_name="test", read_only=True)
        with closing(connection) as reader, reader.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM vacancy.schedulable_host WHERE age IS NOT NULL")
            (rows,) = cursor.fetchall()
            return int(rows[0])

    wait_until(lambda: rows() == count, 60, f"there are not {count} rows")


def all_rest_answers(port: int) -> str:
    """What Flink's REST interface says of the job and of itself."""
    base = f"http://{ports.HOST}:{port}"

    def get(path: str) -> str:
        with urllib.request.urlopen(base + path, timeout=10) as response:  # noqa: S310  # our own
            return str(response.read().decode())

    (job,) = json.loads(get("/jobs"))["jobs"]
    paths = [f"/jobs/{job['id']}{more}" for more in ("", "/config", "/plan", "/exceptions", "/checkpoints/config")]
    return "".join(map(get, [*paths, "/jobmanager/config", "/jobmanager/environment", "/taskmanagers"]))


def assert_none_of(secrets: list[str], text: str) -> None:
    """That a text holds none of some secrets, nor any as SQL or JSON would quote it."""
    assert text.strip()
    for secret in secrets:
        for form in {secret, json.dumps(secret)[1:-1], secret.replace("'", "''"), secret.split("\\")[-1]}:
            assert form not in text, f"a secret that starts with {secret[:4]} shows"
